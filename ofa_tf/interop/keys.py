"""How the reference names a network's tensors, and how it lays them out. NumPy only.

Its networks differ in spelling: those cut out have `bn.weight` where the elastic layers of a
supernet have `bn.bn.weight`, and old files say `mobile_inverted_conv` for `conv`. Keys are
compared in one form, `canonical`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.spaces import Blueprint, blueprint

# The path of each of our layers inside the reference's module of the block.
_LAYERS = {
    blueprint.Conv: {"conv": "conv", "bn": "bn"},
    blueprint.InvertedResidual: {
        "expand_conv": "inverted_bottleneck.conv",
        "expand_bn": "inverted_bottleneck.bn",
        "depthwise_conv": "depth_conv.conv",
        "depthwise_bn": "depth_conv.bn",
        "se_reduce": "depth_conv.se.fc.reduce",
        "se_expand": "depth_conv.se.fc.expand",
        "project_conv": "point_linear.conv",
        "project_bn": "point_linear.bn",
    },
    blueprint.Bottleneck: {
        "reduce_conv": "conv1.conv",
        "reduce_bn": "conv1.bn",
        "spatial_conv": "conv2.conv",
        "spatial_bn": "conv2.bn",
        "widen_conv": "conv3.conv",
        "widen_bn": "conv3.bn",
        "shortcut_conv": "downsample.conv",
        "shortcut_bn": "downsample.bn",
    },
    blueprint.Classifier: {"dense": "linear"},
}

_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
LISTS = ("input_stem", "blocks")  # the attributes of its networks that hold several blocks
COUNTER = "num_batches_tracked"  # which each of its batch norms has, and ours have not


class Layout(NamedTuple):
    """How a weight of ours (`to_torch`) and the reference's (`from_torch`) become each other."""

    to_torch: Callable[[np.ndarray], np.ndarray]
    from_torch: Callable[[np.ndarray], np.ndarray]


_SAME = Layout(lambda ours: ours, lambda theirs: theirs)
_TRANSPOSED = Layout(np.transpose, np.transpose)  # dense kernels, and kernel transforms
# (k, k, in, out) and (out, in, k, k).
_CONV = Layout(lambda ours: ours.transpose(3, 2, 0, 1), lambda theirs: theirs.transpose(2, 3, 1, 0))
# (k, k, channels) in elastic layers, (k, k, channels, 1) in Keras's; (channels, 1, k, k).
_DEPTHWISE = Layout(
    lambda ours: np.moveaxis(ours.reshape(*ours.shape[:3]), 2, 0)[:, None],
    lambda theirs: np.moveaxis(theirs[:, 0], 0, 2),
)


class Tensor(NamedTuple):
    """One weight of a network: where it is in ours, and in the reference's."""

    block: str
    layer: str
    variable: str  # the attribute of the layer that holds it
    transform_to: int  # of a kernel transform: the smaller kernel, its key in `variable`; else 0
    key: str  # as networks without elastic layers spell it
    elastic_key: str  # as supernets spell it
    layout: Layout

    @property
    def is_classifier(self) -> bool:
        """Whether its shape depends on the number of classes."""
        return self.layer == "dense"


def network_parts(plan: Blueprint) -> tuple[str, dict[str, list[blueprint.Block]]]:
    """The reference's class of a network, and the blocks of each of its attributes.

    The attributes are named alike in its state_dict and in its net.config. What has no weights
    (pooling) is no part.

    Raises:
        UsageError: the order of the blocks is none of the three families'.
    """
    runs = [(kind, list(blocks)) for kind, blocks in itertools.groupby(plan.blocks, type)]
    match runs:
        case [
            (blueprint.Conv, [_] as stem),
            (blueprint.InvertedResidual, blocks),
            (blueprint.Conv, [_] as wide),
            (blueprint.GlobalPool, [_]),
            (blueprint.Conv, [_] as mix),
            (blueprint.Classifier, [_] as classifier),
        ]:
            return "MobileNetV3", {
                "first_conv": stem,
                "blocks": blocks,
                "final_expand_layer": wide,
                "feature_mix_layer": mix,
                "classifier": classifier,
            }
        case [
            (blueprint.Conv, [_] as stem),
            (blueprint.InvertedResidual, blocks),
            *mix,
            (blueprint.GlobalPool, [_]),
            (blueprint.Classifier, [_] as classifier),
        ] if not mix or (len(mix) == 1 and mix[0][0] is blueprint.Conv and len(mix[0][1]) == 1):
            return "ProxylessNASNets", {
                "first_conv": stem,
                "blocks": blocks,
                "feature_mix_layer": mix[0][1] if mix else [],
                "classifier": classifier,
            }
        case [
            (blueprint.Conv, stem),
            (blueprint.MaxPool, [_]),
            (blueprint.Bottleneck, blocks),
            (blueprint.GlobalPool, [_]),
            (blueprint.Classifier, [_] as classifier),
        ]:
            return "ResNets", {"input_stem": stem, "blocks": blocks, "classifier": classifier}
    order = ", ".join(f"{len(blocks)} {kind.__name__}" for kind, blocks in runs)
    raise UsageError(
        f"A network of {order} is neither MobileNetV3 nor ProxylessNASNets nor ResNets, which "
        "are what a net.config or a PyTorch file can hold."
    )


def tensors(plan: Blueprint, kernel_sizes: Sequence[int] = ()) -> Iterator[Tensor]:
    """All weights of a network.

    Args:
        plan: the network; for a supernet, that of its largest arch.
        kernel_sizes: for a supernet, the kernels that its elastic depthwise layers can take,
            ascending.
    """
    family, parts = network_parts(plan)
    for attribute, blocks in parts.items():
        for index, block in enumerate(blocks):
            path = f"{attribute}.{index}" if attribute in LISTS else attribute
            if is_residual(block):
                path += ".conv"
            elastic = family == "ResNets" or getattr(block, "position", None) is not None
            yield from _block_tensors(block, path, elastic, kernel_sizes)


def is_residual(block: blueprint.Block) -> bool:
    """Whether the reference wraps the block in a ResidualBlock, with a shortcut or without."""
    if isinstance(block, blueprint.Conv):
        return block.shortcut
    return isinstance(block, blueprint.InvertedResidual)


def _block_tensors(
    block: blueprint.Block, path: str, elastic: bool, kernel_sizes: Sequence[int]
) -> Iterator[Tensor]:
    for layer, inner in _LAYERS[type(block)].items():
        if not _has_layer(block, layer):
            continue
        key = elastic_key = f"{path}.{inner}"
        name = key.rpartition(".")[2]
        if elastic and name in ("conv", "bn", "linear"):
            elastic_key = f"{key}.{name}"  # the plain layer is a part of the elastic one
        for variable, (leaf, layout) in _variables(layer).items():
            spellings = f"{key}.{leaf}", f"{elastic_key}.{leaf}"
            yield Tensor(block.name, layer, variable, 0, *spellings, layout)
        if elastic and layer == "depthwise_conv":
            for small, large in itertools.pairwise(kernel_sizes):
                matrix = f"{key}.{large}to{small}_matrix"
                yield Tensor(block.name, layer, "transforms", small, matrix, matrix, _TRANSPOSED)


def _has_layer(block: blueprint.Block, layer: str) -> bool:
    """Whether a block has a layer that not all blocks of its kind have."""
    match layer.partition("_")[0]:
        case "bn":
            return block.batch_norm
        case "expand":
            return block.expand
        case "se":
            return block.se_channels > 0
        case "shortcut":
            return block.shortcut != "identity"
    return True


def _variables(layer: str) -> dict[str, tuple[str, Layout]]:
    """The variables of a layer: what the reference calls each, and its layout."""
    if layer.endswith("bn"):
        return {ours: (theirs, _SAME) for ours, theirs in _BATCH_NORM.items()}
    if layer == "dense":
        return {"kernel": ("weight", _TRANSPOSED), "bias": ("bias", _SAME)}
    if layer == "depthwise_conv":
        return {"kernel": ("weight", _DEPTHWISE)}
    variables = {"kernel": ("weight", _CONV)}
    if layer in ("se_reduce", "se_expand"):
        variables["bias"] = ("bias", _SAME)
    return variables


def canonical(key: str) -> str:
    """The form in which all spellings of a key are equal."""
    key = key.removeprefix("module.").replace(".mobile_inverted_conv.", ".conv.")
    return re.sub(r"\b(conv|bn|linear)(\.\1)+\.", r"\1.", key)


def close_gaps(keys: Sequence[str]) -> dict[str, str]:
    """The keys with blocks numbered without gaps, by the keys that were given.

    A block that is skipped has no tensors, yet counts in the numbers of those after it.
    """
    found = [re.match(r"((?:module\.)?blocks\.)(\d+)\.", key) for key in keys]
    places = {number: i for i, number in enumerate(sorted({int(m[2]) for m in found if m}))}
    return {
        key: f"{match[1]}{places[int(match[2])]}.{key[match.end() :]}" if match else key
        for key, match in zip(keys, found, strict=True)
    }
