"""Weights from and to the reference's PyTorch files, for supernets and for single networks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.interop import torch_files
from ofa_tf.interop.keys import COUNTER, Tensor, canonical, close_gaps, tensors
from ofa_tf.interop.net_config import read_net_config
from ofa_tf.models import Supernet, build_subnet
from ofa_tf.spaces import Blueprint, SearchSpace
from ofa_tf.spaces.mobilenet_v3 import HARD_SWISH, MobileNetV3

if TYPE_CHECKING:
    import keras

_LISTED = 10  # keys of each kind in a message


def load_checkpoint(
    supernet: Supernet,
    path: str | os.PathLike,
    *,
    with_classifier: bool = True,
    classes_remedy: str = "make the supernet with Supernet(space, num_classes={theirs})",
) -> None:
    """Reads a published supernet: every weight, statistic and kernel transform.

    Args:
        supernet: of the checkpoint's space.
        path: holds a state_dict, bare or as training programs keep it, in any spelling that the
            reference reads.
        with_classifier: False leaves the classifier as it is, for other classes.
        classes_remedy: what a message says to do where the file is of `{theirs}` classes.

    Raises:
        UsageError: the file is no PyTorch file of tensors, a tensor is missing, surplus, of
            another shape or not finite, the space has another activation than the published one,
            or torch is not installed. Then nothing has changed.
    """
    _check_activation(supernet.space)
    found = torch_files.read_tensors(path)
    weights = list(supernet_weights(supernet))
    if not with_classifier:
        heads = {canonical(weight.tensor.key) for weight in weights if weight.tensor.is_classifier}
        weights = [weight for weight in weights if not weight.tensor.is_classifier]
        found = {key: value for key, value in found.items() if canonical(key) not in heads}
    _assign(weights, found, f"{path} and {supernet.space.name}", classes_remedy)


def save_checkpoint(supernet: Supernet, path: str | os.PathLike) -> None:
    """Writes a supernet as `{"state_dict": ...}` for the reference's own supernet class.

    Raises:
        UsageError: its networks are of no kind that the reference has, or torch is not installed.
        FailureError: the disk refuses; names the file.
    """
    _check_activation(supernet.space)
    state = {}
    for weight in supernet_weights(supernet):
        key = weight.tensor.elastic_key
        state[key] = weight.tensor.layout.to_torch(weight.variable.numpy())
        if weight.tensor.variable == "moving_variance":
            # Only averages over all batches use the count, which is not how these were made.
            state[f"{key.rpartition('.')[0]}.{COUNTER}"] = np.int64(0)
    torch_files.write_tensors(path, state)


def load_specialized(
    net_config: str | os.PathLike, weights: str | os.PathLike, **options
) -> keras.Model:
    """A published specialized network as a plain Keras model.

    Args:
        net_config: its `net.config`, with the `run.config` beside it.
        weights: its `init`, a PyTorch file.
        **options: of `ofa_tf.models.build_subnet`.

    Raises:
        UsageError: as `read_net_config` and `load_checkpoint` do.
    """
    plan = read_net_config(net_config)
    model = build_subnet(plan, **options)
    load_weights(model, plan, weights)
    return model


def load_weights(model: keras.Model, plan: Blueprint, path: str | os.PathLike) -> None:
    """Reads the weights of one network, e.g. a published `init`, into its plain Keras model.

    Args:
        model: what `build_subnet(plan)` built.
        plan: the network.
        path: a PyTorch file of the reference's network that `to_net_config(plan)` describes.

    Raises:
        UsageError: as `load_checkpoint` does. Then nothing has changed.
    """
    found = torch_files.read_tensors(path)
    numbered = close_gaps(list(found))
    found = {numbered[key]: value for key, value in found.items()}
    remedy = "out_features of its net.config has to be {theirs}"
    _assign(list(_model_weights(model, plan)), found, f"{path} and the network", remedy)


def _check_activation(space: SearchSpace) -> None:
    """The reference's MobileNetV3 supernets have hard-swish, and their files do not say so."""
    family = space.family
    if isinstance(family, MobileNetV3) and family.activation != HARD_SWISH:
        raise UsageError(
            f"{space.name} has no PyTorch checkpoints: those of its family are for hard-swish, "
            f"and with {family.activation} the same weights are another function. Only spaces "
            f"without -{family.activation} at the end have them."
        )


class Weight(NamedTuple):
    """A variable of ours and what the reference calls it."""

    tensor: Tensor
    variable: keras.Variable

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the reference."""
        return self.tensor.layout.to_torch(np.empty(self.variable.shape, np.bool_)).shape


def supernet_weights(supernet: Supernet) -> Iterator[Weight]:
    """Every variable of a supernet beside its tensor in the reference."""
    layers = {block.name: block.named_layers for block in supernet.blocks}
    plan = supernet.space.blueprint(supernet.space.max(), supernet.num_classes)
    for tensor in tensors(plan, supernet.space.kernel_sizes):
        layer = layers[tensor.block][tensor.layer]
        if tensor.transform_to:
            yield Weight(tensor, layer.transforms[tensor.transform_to])
        else:
            yield Weight(tensor, getattr(layer, tensor.variable))


def _model_weights(model: keras.Model, plan: Blueprint) -> Iterator[Weight]:
    for tensor in tensors(plan):
        layer = model.get_layer(f"{tensor.block}_{tensor.layer}")
        yield Weight(tensor, getattr(layer, tensor.variable))


def _assign(
    weights: list[Weight], found: Mapping[str, np.ndarray], sides: str, remedy: str
) -> None:
    """Gives every weight its value, or raises before any has it.

    Args:
        weights: all weights of a network.
        found: all tensors of a file.
        sides: what does not fit each other, for the message.
        remedy: what to do about another number of classes.
    """
    found = {key: value for key, value in found.items() if not key.endswith(f".{COUNTER}")}
    spelled = {canonical(key): key for key in found}
    expected = {canonical(weight.tensor.key): weight for weight in weights}
    pairs = {key: (expected[key], found[spelled[key]]) for key in expected if key in spelled}
    problems = {
        "missing from the file": [w.tensor.key for key, w in expected.items() if key not in pairs],
        "surplus in the file": [theirs for key, theirs in spelled.items() if key not in pairs],
        "in two spellings": [theirs for theirs in found if spelled[canonical(theirs)] != theirs],
        "of another shape": [
            f"{spelled[key]} {value.shape} for {weight.shape}"
            for key, (weight, value) in pairs.items()
            if value.shape != weight.shape
        ],
        "not finite": [
            spelled[key] for key, (_, value) in pairs.items() if not np.isfinite(value).all()
        ],
    }
    told = [f"{kind} ({len(keys)}): {_listed(keys)}" for kind, keys in problems.items() if keys]
    if told:
        hint = _classes_hint(pairs, remedy)
        raise UsageError(f"{sides} do not fit each other. Tensors {'; '.join(told)}.{hint}")
    for weight, value in pairs.values():
        value = weight.tensor.layout.from_torch(value.astype(np.float32))
        weight.variable.assign(value.reshape(weight.variable.shape))


def _listed(keys: list[str]) -> str:
    """The first keys, and how many more there are."""
    more = len(keys) - _LISTED
    return ", ".join(keys[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _classes_hint(pairs: Mapping[str, tuple[Weight, np.ndarray]], remedy: str) -> str:
    """What to do where the numbers of classes differ; empty where they do not."""
    bias = pairs.get("classifier.linear.bias")
    if bias is None or bias[1].shape == bias[0].shape or bias[1].ndim != 1:
        return ""
    theirs, ours = len(bias[1]), bias[0].shape[0]
    advice = remedy.format(theirs=theirs)
    return f" The file is of a network with {theirs} classes, this one has {ours}: {advice}."
