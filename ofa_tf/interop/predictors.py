"""Published accuracy predictors: PyTorch files as layers for the features of our spaces.

Two kinds are published (arXiv 1908.09791). The tutorial's `acc_predictor.pth` takes kernels,
expand ratios and one of eight resolutions, (r - 112) // 16; it was trained at 160, 176, 192, 208
and 224 only. The later class takes a resolution of a list that is not in the file, what a ResNet
chooses besides (stem, widths), kernels where there is a choice, and expand ratios.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.interop.torch_files import read_tensors
from ofa_tf.spaces import SearchSpace, get_space

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]  # kernel (in, out) and bias (out,) of each

_TUTORIAL_RESOLUTIONS = tuple(range(112, 225, 16))
_TUTORIAL_SPACE = "ofa_mbv3_w1.2"
_CLASS_SPACES = ("ofa_resnet50", "ofa_mbv3_w1.2", "ofa_proxyless_w1.3")
_RESNET50_RESOLUTIONS = (128, 144, 160, 176, 192, 224, 240, 256)
# The defaults of the reference's encoder and of its collection of accuracies.
_DEFAULT_RESOLUTIONS = ((224,), (128, 160, 192, 224))

# The order of the inputs.
_TUTORIAL_AXES = ("kernel", "expand", "resolution")
_CLASS_AXES = ("resolution", "depth", "width", "kernel", "expand")


def is_published_predictor(path: str | os.PathLike) -> bool:
    """Whether a file is a PyTorch one, as published predictors are, and none of ours."""
    return pathlib.Path(path).suffix in (".pth", ".pt")


def read_accuracy_predictor(
    path: str | os.PathLike, space: SearchSpace | None = None
) -> tuple[SearchSpace, Layers]:
    """Reads a published accuracy predictor.

    Args:
        path: the file.
        space: whose archs to predict; None for the one that the file was made for.

    Returns: the space and the layers, whose inputs are the space's `one_hot`; accuracies are
        fractions. Without a space given, the tutorial's predictor is for w1.2 at steps of 16
        pixels; with one, other resolutions count as the next lower step, as in the reference.
        The other kind keeps only those resolutions of a space that it has an input for.

    Raises:
        UsageError: the file is missing or damaged; keys are missing, surplus or misshapen, which
            are listed; or it was not made for the space.
    """
    tensors = read_tensors(path)
    is_tutorial = "base_acc" not in tensors and not any(
        key.startswith("layers.") for key in tensors
    )
    layers = _layers(path, tensors, is_tutorial)
    num_inputs = len(layers[0][0])
    if is_tutorial:
        space, inputs = _tutorial_inputs(space)
    else:
        space, inputs = _class_inputs(path, space, num_inputs)
    if inputs.count != num_inputs:
        raise UsageError(
            f"{path} has {num_inputs} inputs; for {space.name} it would have {inputs.count}."
        )
    known = [side for side in space.resolutions if side in inputs.resolutions]
    if not known:
        raise UsageError(
            f"{path} knows the resolutions {list(inputs.resolutions)}, none of "
            f"{list(space.resolutions)}."
        )
    if len(known) < len(space.resolutions):
        space = space.restrict(resolutions=known)
    return space, ((_reordered(space, layers[0][0], inputs), layers[0][1]), *layers[1:])


# -- layers -----------------------------------------------------------------------------------


def _layers(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], is_tutorial: bool
) -> Layers:
    """The dense layers in their order. Raises UsageError where the keys or shapes are others."""
    pairs = _expected_keys(tensors, is_tutorial)
    expected = {key for pair in pairs for key in pair}
    problems = {
        "missing": sorted(expected - set(tensors)),
        "surplus": sorted(set(tensors) - expected),
    }
    if not problems["missing"]:
        problems["misshapen"] = _misshapen(tensors, pairs)
    if any(problems.values()):
        said = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in problems.items() if keys)
        raise UsageError(f"{path} is no published accuracy predictor: {said}.")
    return tuple(
        (np.float32(tensors[weight].T), np.float32(tensors[bias])) for weight, bias in pairs
    )


def _expected_keys(tensors: Mapping[str, np.ndarray], is_tutorial: bool) -> list[tuple[str, str]]:
    """The keys of the weight and the bias of each layer, as many as the highest number says."""
    numbers = re.compile(r"(?:layers\.)?(\d+)\..*")
    highest = max((int(match[1]) for match in map(numbers.fullmatch, tensors) if match), default=0)
    highest = min(highest, 2 * len(tensors))  # a number out of nowhere makes no endless list
    if is_tutorial:  # with a ReLU, which has a number too, between any two layers
        return [(f"{i}.weight", f"{i}.bias") for i in range(0, highest + 1, 2)]
    hidden = [(f"layers.{i}.0.weight", f"layers.{i}.0.bias") for i in range(highest)]
    return [*hidden, (f"layers.{highest}.weight", "base_acc")]


def _misshapen(tensors: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The tensors that do not lead from the layer before to the next, or at the end to one."""
    found, num_inputs = [], None
    for weight_key, bias_key in pairs:
        weight, bias = tensors[weight_key], tensors[bias_key]
        num_outputs = 1 if weight_key == pairs[-1][0] else len(bias) if bias.ndim else 0
        if weight.ndim != 2 or num_inputs not in (None, weight.shape[1]) or not num_outputs:
            found.append(f"{weight_key} {weight.shape}")
        elif len(weight) != num_outputs or bias.shape != (num_outputs,):
            found += [f"{weight_key} {weight.shape}", f"{bias_key} {bias.shape}"]
        num_inputs = num_outputs
    return found


# -- inputs -----------------------------------------------------------------------------------


class _Inputs(NamedTuple):
    """The inputs of a published predictor for archs of a space.

    Args:
        rows: which input stands for a (column, choice) of a code.
        resolutions: those that it knows, in pixels.
        count: how many inputs there are.
    """

    rows: dict[tuple[int, int], int]
    resolutions: tuple[int, ...]
    count: int


def _reordered(space: SearchSpace, kernel: np.ndarray, inputs: _Inputs) -> np.ndarray:
    """The first kernel with a row for each of our features; 0 at resolutions without an input."""
    features = _features(space)
    reordered = np.zeros((len(features), kernel.shape[1]), kernel.dtype)
    for place, feature in enumerate(features):
        if feature in inputs.rows:
            reordered[place] = kernel[inputs.rows[feature]]
    return reordered


def _features(space: SearchSpace) -> list[tuple[int, int]]:
    """The column of a code and the choice that each feature of `one_hot` stands for."""
    return [
        (column, choice)
        for columns, choices in space.one_hot_columns
        for column in columns
        for choice in range(choices)
    ]


def _inputs(
    space: SearchSpace, axes: Sequence[str], places: Mapping[int, int], num_resolutions: int
) -> _Inputs:
    """Inputs in the order of some axes; `places` are those of resolutions among their own."""
    rows, count = {}, 0
    for axis in axes:
        columns = space.columns[axis]
        of_axis = [f for f in _features(space) if columns.start <= f[0] < columns.stop]
        if axis == "resolution":
            for column, choice in of_axis:
                if space.root.resolutions[choice] in places:
                    rows[column, choice] = count + places[space.root.resolutions[choice]]
            count += num_resolutions
        else:
            rows |= {feature: count + place for place, feature in enumerate(of_axis)}
            count += len(of_axis)
    return _Inputs(rows, tuple(places), count)


def _tutorial_inputs(space: SearchSpace | None) -> tuple[SearchSpace, _Inputs]:
    if space is None:
        space = get_space(_TUTORIAL_SPACE)
        steps = [side for side in space.resolutions if side in _TUTORIAL_RESOLUTIONS]
        space = space.restrict(resolutions=steps)
    number = len(_TUTORIAL_RESOLUTIONS)
    places = {side: (side - 112) // 16 for side in space.root.resolutions}
    places = {side: place for side, place in places.items() if 0 <= place < number}
    return space, _inputs(space, _TUTORIAL_AXES, places, number)


def _class_inputs(
    path: str | os.PathLike, space: SearchSpace | None, num_inputs: int
) -> tuple[SearchSpace, _Inputs]:
    """The space, and the list of resolutions, that so many inputs stand for."""
    known = []
    for candidate in [space] if space else map(get_space, _CLASS_SPACES):
        for resolutions in _resolution_lists(candidate):
            places = {side: place for place, side in enumerate(resolutions)}
            inputs = _inputs(candidate, _CLASS_AXES, places, len(resolutions))
            if inputs.count == num_inputs:
                return candidate, inputs
            known.append(f"{inputs.count} ({candidate.name} at {len(resolutions)} resolutions)")
    raise UsageError(
        f"{path} has {num_inputs} inputs, and which resolutions they stand for is not in the file; "
        f"known are {', '.join(known)}."
    )


def _resolution_lists(space: SearchSpace) -> list[tuple[int, ...]]:
    """Those for which predictors of a space are known to have been made; no two of one length."""
    lists = [*_DEFAULT_RESOLUTIONS, space.root.resolutions]
    return [*lists, _RESNET50_RESOLUTIONS] if space.name == "ofa_resnet50" else lists
