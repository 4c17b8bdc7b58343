"""net.config, the reference's description of one network, written from a Blueprint.

What the format cannot hold is refused, never dropped.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

from ofa_tf import files
from ofa_tf.errors import UsageError
from ofa_tf.interop.keys import LISTS, is_residual, network_parts
from ofa_tf.interop.net_config import ACTIVATIONS, SHORTCUTS, complement, from_net_config
from ofa_tf.spaces import Blueprint, blueprint


def write_net_config(plan: Blueprint, folder: str | os.PathLike) -> None:
    """Writes a network as `net.config`, with its resolution in `run.config`, into a folder.

    Raises:
        UsageError: the format cannot hold the network; names what.
        FailureError: the disk refuses.
    """
    config = to_net_config(plan)
    folder = pathlib.Path(folder)
    files.write_json(folder / "net.config", config)
    files.write_json(folder / "run.config", {"image_size": plan.resolution})


def to_net_config(plan: Blueprint) -> dict[str, Any]:
    """The content of a net.config that means this network, as the reference and we read it.

    Where an activation is swish, which the reference does not have, only we do.

    Raises:
        UsageError: the format cannot hold the network; names what.
    """
    family, parts = network_parts(plan)
    config: dict[str, Any] = {
        "name": family,
        "bn": {"momentum": complement(plan.bn_momentum), "eps": plan.bn_epsilon},
    }
    for attribute, blocks in parts.items():
        layers = [_layer_config(block) for block in blocks]
        if attribute in LISTS:
            config[attribute] = layers
        else:
            config[attribute] = layers[0] if layers else None
    _check_meaning(config, plan)
    return config


def _check_meaning(config: dict[str, Any], plan: Blueprint) -> None:
    """That a config reads back as the plan: the format leaves out what the reference derives.

    These are the width of squeeze-excite, the window of max pooling, and more of that kind.
    """
    meant = from_net_config(config, plan.resolution, "This network, written as net.config")
    for ours, theirs in zip(plan.blocks, meant.blocks, strict=True):
        if _nameless(ours) != _nameless(theirs):
            raise UsageError(
                f"A net.config cannot hold {ours.name}: {ours.key} would become {theirs.key}."
            )


def _nameless(block: blueprint.Block) -> blueprint.Block:
    """The block without what a net.config does not tell: its name and its position."""
    unnamed = {"name": "", "position": None}
    fields = {field.name for field in dataclasses.fields(block)}
    return dataclasses.replace(block, **{k: v for k, v in unnamed.items() if k in fields})


def _layer_config(block: blueprint.Block) -> dict[str, Any]:
    layer = _WRITERS[type(block)](block)
    if not is_residual(block):
        return layer
    identity = {
        "name": "IdentityLayer",
        "in_channels": block.in_channels,
        "out_channels": block.out_channels,
        "use_bn": False,
        "act_func": None,
        "dropout_rate": 0,
        "ops_order": "weight_bn_act",
    }
    return {
        "name": "ResidualBlock",
        "conv": layer,
        "shortcut": identity if block.shortcut else None,
    }


# The published files have no `use_se` in their convolutions, whose default is False.
def _conv_config(block: blueprint.Conv) -> dict[str, Any]:
    return {
        "name": "ConvLayer",
        "kernel_size": block.kernel_size,
        "stride": block.stride,
        "dilation": 1,
        "groups": 1,
        "bias": False,
        "has_shuffle": False,
        "in_channels": block.in_channels,
        "out_channels": block.out_channels,
        "use_bn": block.batch_norm,
        "act_func": _key_of(ACTIVATIONS, block.activation, block),
        "dropout_rate": 0,
        "ops_order": "weight_bn_act",
    }


def _inverted_residual_config(block: blueprint.InvertedResidual) -> dict[str, Any]:
    # The ratio decides only whether there is an expansion (1: none); the width decides the rest.
    ratio = max(2, round(block.mid_channels / block.in_channels)) if block.expand else 1
    return {
        "name": "MBConvLayer",
        "in_channels": block.in_channels,
        "out_channels": block.out_channels,
        "kernel_size": block.kernel_size,
        "stride": block.stride,
        "expand_ratio": ratio,
        "mid_channels": block.mid_channels if block.expand else None,
        "act_func": _key_of(ACTIVATIONS, block.activation, block),
        "use_se": block.se_channels > 0,
    }


def _bottleneck_config(block: blueprint.Bottleneck) -> dict[str, Any]:
    # An identity is not told: it is wherever stride and width stay.
    shortcut = "avg_pool_conv" if block.shortcut == "identity" else block.shortcut
    return {
        "name": "ResNetBottleneckBlock",
        "in_channels": block.in_channels,
        "out_channels": block.out_channels,
        "kernel_size": block.kernel_size,
        "stride": block.stride,
        "expand_ratio": round(block.mid_channels / block.out_channels, 4),
        "mid_channels": block.mid_channels,
        "act_func": _key_of(ACTIVATIONS, block.activation, block),
        "groups": 1,
        "downsample_mode": _key_of(SHORTCUTS, shortcut, block),
    }


def _classifier_config(block: blueprint.Classifier) -> dict[str, Any]:
    return {
        "name": "LinearLayer",
        "in_features": block.in_channels,
        "out_features": block.out_channels,
        "bias": True,
        "use_bn": False,
        "act_func": None,
        "dropout_rate": block.dropout,
        "ops_order": "weight_bn_act",
    }


_WRITERS: dict[type[blueprint.Block], Callable[[Any], dict[str, Any]]] = {
    blueprint.Conv: _conv_config,
    blueprint.InvertedResidual: _inverted_residual_config,
    blueprint.Bottleneck: _bottleneck_config,
    blueprint.Classifier: _classifier_config,
}


def _key_of(known: dict[str, str], ours: str, block: blueprint.Block) -> str:
    """The format's word for one of ours."""
    for theirs, meaning in known.items():
        if meaning == ours:
            return theirs
    raise UsageError(f"A net.config has no word for the {ours!r} of {block.name}.")
