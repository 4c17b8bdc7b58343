"""net.config, the reference's description of one network, read to a Blueprint.

What a Blueprint cannot hold is refused, never dropped.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import read_json
from ofa_tf.interop.fields import Fields
from ofa_tf.spaces import Blueprint, blueprint
from ofa_tf.spaces.blueprint import make_divisible
from ofa_tf.spaces.stages import se_width

# The format's words, and ours. The reference has no swish: it refuses that word, we read it.
ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "h_swish": "hard_swish", "swish": "swish"}
_NEVER_NEGATIVE = ("relu", "relu6")
SHORTCUTS = {"avgpool_conv": "avg_pool_conv", "conv": "conv"}
_DEFAULT_RESOLUTION = 224


def read_net_config(path: str | os.PathLike, resolution: int | None = None) -> Blueprint:
    """The network of a published net.config, in a space of ours or not.

    Args:
        path: the file.
        resolution: side of the input image in pixels; by default that of the `run.config` beside
            the file, or 224 where there is none.

    Raises:
        UsageError: the file is missing or damaged, its blocks do not fit each other, or a
            Blueprint cannot hold it; names the file, the layer and the value.
    """
    path = pathlib.Path(path)
    config = _read_json(path)
    return from_net_config(config, resolution or _resolution_beside(path), source=str(path))


def from_net_config(config: Any, resolution: int, source: str = "net.config") -> Blueprint:
    """The network of a net.config's content; `source` is what messages call it.

    Raises:
        UsageError: as `read_net_config` does.
    """
    top = Fields(source, config)
    family = top.choice("name", {name: name for name in _READERS})
    network = _Network(resolution)
    _READERS[family](network, top)
    if "bn" in top:
        momentum, epsilon = _read_batch_norm(top.child("bn"))
    else:
        momentum, epsilon = 0.1, 1e-3 if family == "ProxylessNASNets" else 1e-5
    return Blueprint(resolution, tuple(network.blocks), complement(momentum), epsilon)


def _read_batch_norm(bn: Fields) -> tuple[float, float]:
    """PyTorch's momentum, and epsilon."""
    momentum, epsilon = bn.number("momentum", most=1), bn.number("eps")
    bn.only("gn_channel_per_group", None)  # else it is group norm
    bn.only("ws_eps", None)  # else weights are standardized
    bn.end()
    return momentum, epsilon


def _read_mobilenet_v3(network: _Network, top: Fields) -> None:
    network.conv(top.child("first_conv"), "stem")
    network.inverted_residuals(top.children("blocks"))
    network.conv(top.child("final_expand_layer"), "final_expand")
    network.pool()
    network.conv(top.child("feature_mix_layer"), "feature_mix")
    network.classifier(top.child("classifier"))


def _read_proxyless(network: _Network, top: Fields) -> None:
    network.conv(top.child("first_conv"), "stem")
    network.inverted_residuals(top.children("blocks"))
    mix = top.child_or_none("feature_mix_layer")
    if mix is not None:
        network.conv(mix, "feature_mix")
    network.pool()
    network.classifier(top.child("classifier"))


def _read_resnet(network: _Network, top: Fields) -> None:
    for index, layer in enumerate(top.children("input_stem")):
        if layer.get("name") == "ResidualBlock":
            inner, shortcut = _residual(layer)
            if not shortcut:
                raise UsageError(f"{layer.place} has to have a layer and an IdentityLayer beside.")
            network.conv(inner, f"stem{index}", shortcut)
        else:
            network.conv(layer, f"stem{index}")
    network.max_pool(f"{top.place}: input_stem")
    network.bottlenecks(top.children("blocks"))
    network.pool()
    network.classifier(top.child("classifier"))


_READERS: dict[str, Callable[[_Network, Fields], None]] = {
    "MobileNetV3": _read_mobilenet_v3,
    "ProxylessNASNets": _read_proxyless,
    "ResNets": _read_resnet,
}


class _Network:
    """The blocks read so far, of which each takes what the last one gives."""

    def __init__(self, resolution: int):
        self.blocks: list[blueprint.Block] = []
        self.size = resolution

    def _add(self, block: blueprint.Block) -> None:
        self.blocks.append(block)
        self.size = block.out_size

    def _in_channels(self, layer: Fields, key: str = "in_channels") -> int:
        channels = layer.whole(key)
        if self.blocks and channels != self.blocks[-1].out_channels:
            layer.refuse(
                key, channels, f"the layer before gives {self.blocks[-1].out_channels} channels"
            )
        return channels

    def conv(self, layer: Fields, name: str, shortcut: bool = False) -> None:
        layer.choice("name", {"ConvLayer": None})
        block = blueprint.Conv(
            name=name,
            in_size=self.size,
            in_channels=self._in_channels(layer),
            out_channels=layer.whole("out_channels"),
            kernel_size=layer.kernel(),
            stride=layer.whole("stride", 1),
            activation=layer.choice("act_func", ACTIVATIONS, "relu"),
            batch_norm=layer.choice("use_bn", {True: True, False: False}, True),
            shortcut=shortcut,
        )
        for key, value in (("dilation", 1), ("groups", 1), ("dropout_rate", 0)):
            layer.only(key, value)
        for key in ("bias", "has_shuffle", "use_se"):
            layer.only(key, False)
        layer.only("ops_order", "weight_bn_act")
        layer.end()
        _check_shortcut(layer, block, shortcut)
        self._add(block)

    def inverted_residuals(self, blocks: list[Fields]) -> None:
        """The first is the fixed one; a stage begins where a block has no shortcut."""
        names = _StageNames()
        for residual in blocks:
            layer, shortcut = _residual(residual)
            if layer is None:
                continue
            first = not isinstance(self.blocks[-1], blueprint.InvertedResidual)
            name, position = ("first", None) if first else names.next(opens=not shortcut)
            self._inverted_residual(layer, name, position, shortcut)
        if not isinstance(self.blocks[-1], blueprint.InvertedResidual):
            raise UsageError(f"{blocks[0].place} and all after it are blocks that do not run.")

    def _inverted_residual(
        self, layer: Fields, name: str, position: int | None, shortcut: bool
    ) -> None:
        layer.choice("name", {"MBConvLayer": None, "MBInvertedConvLayer": None})
        in_channels = self._in_channels(layer)
        mid = layer.whole("mid_channels", None)
        # The width counts where both are given, but a ratio of 1 means that there is no expansion.
        ratio = layer.number("expand_ratio", 6 if mid is None else None)
        expand = ratio != 1
        if not expand and mid not in (None, in_channels):
            layer.refuse("mid_channels", mid, f"an expand_ratio of 1 leaves {in_channels} channels")
        mid = mid or round(in_channels * ratio)
        if mid < 1:
            layer.refuse("expand_ratio", ratio, "it leaves no channels")
        squeeze_excite = layer.choice("use_se", {True: True, False: False}, False)
        block = blueprint.InvertedResidual(
            name=name,
            position=position,
            in_size=self.size,
            in_channels=in_channels,
            mid_channels=mid,
            out_channels=layer.whole("out_channels"),
            kernel_size=layer.kernel(),
            stride=layer.whole("stride", 1),
            activation=layer.choice("act_func", ACTIVATIONS, "relu6"),
            se_channels=se_width(mid) if squeeze_excite else 0,
            expand=expand,
            shortcut=shortcut,
        )
        layer.only("groups", None)
        layer.end()
        _check_shortcut(layer, block, shortcut)
        self._add(block)

    def bottlenecks(self, blocks: list[Fields]) -> None:
        """A stage begins where a block's shortcut is not the identity."""
        names = _StageNames()
        for layer in blocks:
            layer.choice("name", {"ResNetBottleneckBlock": None})
            in_channels, out_channels = self._in_channels(layer), layer.whole("out_channels")
            stride = layer.whole("stride", 1)
            mid = layer.whole("mid_channels", None)
            ratio = layer.number("expand_ratio", 0.25 if mid is None else None)
            shortcut = layer.choice("downsample_mode", SHORTCUTS, "avgpool_conv")
            if stride == 1 and in_channels == out_channels:
                shortcut = "identity"
            name, position = names.next(opens=shortcut != "identity")
            block = blueprint.Bottleneck(
                name=name,
                position=position,
                in_size=self.size,
                in_channels=in_channels,
                mid_channels=make_divisible(mid or round(out_channels * ratio)),
                out_channels=out_channels,
                kernel_size=layer.kernel(),
                stride=stride,
                activation=layer.choice("act_func", ACTIVATIONS, "relu"),
                shortcut=shortcut,
            )
            layer.only("groups", 1)
            layer.end()
            self._add(block)

    def max_pool(self, place: str) -> None:
        """The one that every network of that family has between stem and blocks."""
        stem = self.blocks[-1]
        if stem.activation not in _NEVER_NEGATIVE:
            raise UsageError(
                f"{place} ends in {stem.activation!r}; a max pool can be read only after an "
                "activation that is never negative."
            )
        self._add(
            blueprint.MaxPool("max_pool", self.size, stem.out_channels, kernel_size=3, stride=2)
        )

    def pool(self) -> None:
        self._add(blueprint.GlobalPool("pool", self.size, self.blocks[-1].out_channels))

    def classifier(self, layer: Fields) -> None:
        layer.choice("name", {"LinearLayer": None})
        block = blueprint.Classifier(
            name="classifier",
            in_channels=self._in_channels(layer, "in_features"),
            out_channels=layer.whole("out_features"),
            dropout=layer.number("dropout_rate", 0, least=0, most=1),
        )
        layer.only("bias", True)
        layer.only("use_bn", False)
        layer.only("act_func", None)
        layer.only("ops_order", "weight_bn_act")
        layer.end()
        self._add(block)


class _StageNames:
    """Names and positions of elastic blocks, one after the other."""

    def __init__(self):
        self._stage, self._rank, self._position = -1, 0, -1

    def next(self, opens: bool) -> tuple[str, int]:
        """Of the next block; `opens` says that it begins a stage."""
        self._position += 1
        if opens or self._stage < 0:
            self._stage, self._rank = self._stage + 1, 0
        else:
            self._rank += 1
        return f"stage{self._stage}_block{self._rank}", self._position


def _residual(block: Fields) -> tuple[Fields | None, bool]:
    """The layer of a ResidualBlock, None for one that is skipped, and whether it has a shortcut."""
    key = "conv" if "conv" in block else "mobile_inverted_conv"
    layer, shortcut = block.child_or_none(key), block.child_or_none("shortcut")
    if layer is None or layer.get("name") == "ZeroLayer":
        return None, False
    if shortcut is None:
        return layer, False
    kind = shortcut.choice("name", {"IdentityLayer": True, "ZeroLayer": False})
    if kind:
        shortcut.only("use_bn", False)
        shortcut.only("act_func", None)
    return layer, kind


def _check_shortcut(layer: Fields, block: blueprint.Block, shortcut: bool) -> None:
    if shortcut and (block.stride, block.out_channels) != (1, block.in_channels):
        raise UsageError(
            f"{layer.place} has a shortcut, yet stride {block.stride} and {block.in_channels} "
            f"channels in, {block.out_channels} out; a shortcut needs stride 1 and equal channels."
        )


def _read_json(path: pathlib.Path) -> Any:
    try:
        return read_json(path, "Give another file, or download it again.")
    except FailureError as error:
        raise UsageError(str(error)) from error


def _resolution_beside(path: pathlib.Path) -> int:
    """What the run.config beside a net.config says."""
    run_config = path.with_name("run.config")
    if not run_config.exists():
        return _DEFAULT_RESOLUTION
    return Fields(str(run_config), _read_json(run_config)).whole("image_size")


def complement(momentum: float) -> float:
    """Keras's momentum from PyTorch's or back, without the noise of binary fractions."""
    return round(1 - momentum, 12)
