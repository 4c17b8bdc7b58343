"""Blueprint: the exact layer-by-layer plan of one subnet, and the blocks that it is made of.

Everything about the shape of a subnet is decided by the family that draws its Blueprint. The
Keras builder, the costs, the latency keys and the drawings only read it.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
from typing import NamedTuple

# What the blocks can have.
ACTIVATIONS = ("relu", "relu6", "swish", "hard_swish")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a block that a supernet slices by; 0 for what the block does not have.

    In a supernet's graph those that archs choose are scalar int32 tensors.
    """

    kernel_size: int
    mid_channels: int
    se_channels: int
    out_channels: int

    FIELDS = ("kernel_size", "mid_channels", "se_channels", "out_channels")

    def values(self) -> tuple[int, ...]:
        """In the order of FIELDS."""
        return tuple(getattr(self, field) for field in self.FIELDS)


class WeightedLayer(NamedTuple):
    """One layer with weights inside a block, as the costs see it."""

    weights: int  # entries of the kernel; each is used once per output pixel
    channels: int  # of the output
    pixels: int  # height times width of the output
    per_channel: int = 2  # batch norm's gamma and beta, or 1 for a bias, or 0


class Block(abc.ABC):
    """One step of a Blueprint: a square feature map in, a square feature map out.

    Subclasses are frozen dataclasses with `name`, `in_size`, `in_channels`, `out_size` and
    `out_channels` (pixels of a side, channels), and define `key` and `weighted_layers`.
    """

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """All that the block's latency depends on, as text: equal keys, equal latencies."""

    @property
    @abc.abstractmethod
    def weighted_layers(self) -> tuple[WeightedLayer, ...]:
        """The layers with weights, in the order in which they run."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image in convolutions and dense layers."""
        return sum(layer.weights * layer.pixels for layer in self.weighted_layers)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        layers = self.weighted_layers
        return sum(layer.weights + layer.per_channel * layer.channels for layer in layers)

    @property
    def sizes(self) -> Sizes:
        """The block's sizes, as a supernet slices by them."""
        return Sizes(*(getattr(self, field, 0) for field in Sizes.FIELDS))

    @property
    def peak_activations(self) -> int:
        """The most tensor elements that are alive at once for one image."""
        return self.in_size**2 * self.in_channels + self.out_size**2 * self.out_channels


@dataclasses.dataclass(frozen=True)
class Conv(Block):
    """A regular convolution without bias, batch norm where asked for, an activation.

    Args:
        shortcut: whether the input is added to the output, after the activation.
    """

    name: str
    in_size: int
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: str
    batch_norm: bool = True
    shortcut: bool = False

    @property
    def out_size(self) -> int:
        return conv_size(self.in_size, self.stride)

    @property
    def key(self) -> str:
        return (
            f"conv-{self.in_size}x{self.in_channels}-{self.out_size}x{self.out_channels}"
            f"-k{self.kernel_size}-s{self.stride}-{self.activation}-bn{int(self.batch_norm)}"
            f"{'-shortcut' * self.shortcut}"
        )

    @property
    def weighted_layers(self) -> tuple[WeightedLayer, ...]:
        weights = self.kernel_size**2 * self.in_channels * self.out_channels
        per_channel = 2 if self.batch_norm else 0
        return (WeightedLayer(weights, self.out_channels, self.out_size**2, per_channel),)

    @property
    def peak_activations(self) -> int:
        # The sum of input and output is a third tensor beside them.
        return super().peak_activations + self.shortcut * self.out_size**2 * self.out_channels


@dataclasses.dataclass(frozen=True)
class InvertedResidual(Block):
    """1x1 expand, depthwise, squeeze-excite, 1x1 project; batch norm after each convolution.

    Args:
        position: its place among the elastic blocks; None for a block that every subnet has.
        mid_channels: width between expand and project.
        se_channels: middle width of squeeze-excite; 0 for none.
        expand: False where there is no first convolution (then mid_channels == in_channels).
        shortcut: whether the input is added to the output.
    """

    name: str
    position: int | None
    in_size: int
    in_channels: int
    mid_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: str
    se_channels: int
    expand: bool
    shortcut: bool

    @property
    def out_size(self) -> int:
        return conv_size(self.in_size, self.stride)

    @property
    def key(self) -> str:
        return (
            f"inverted_residual-{self.in_size}x{self.in_channels}"
            f"-{self.out_size}x{self.out_channels}-mid{self.mid_channels}-k{self.kernel_size}"
            f"-s{self.stride}-{self.activation}-se{self.se_channels}"
            f"-expand{int(self.expand)}-shortcut{int(self.shortcut)}"
        )

    @property
    def weighted_layers(self) -> tuple[WeightedLayer, ...]:
        mid, out_pixels = self.mid_channels, self.out_size**2
        layers = []
        if self.expand:
            layers.append(WeightedLayer(self.in_channels * mid, mid, self.in_size**2))
        layers.append(WeightedLayer(self.kernel_size**2 * mid, mid, out_pixels))
        if self.se_channels:
            layers.append(WeightedLayer(mid * self.se_channels, self.se_channels, 1, 1))
            layers.append(WeightedLayer(self.se_channels * mid, mid, 1, 1))
        layers.append(WeightedLayer(mid * self.out_channels, self.out_channels, out_pixels))
        return tuple(layers)

    @property
    def needed_kernel_size(self) -> int:
        """Side of the part of the depthwise kernel that meets more than padding."""
        return min(self.kernel_size, 2 * self.in_size - 1)

    @property
    def peak_activations(self) -> int:
        image = self.in_size**2 * self.in_channels
        expanded = self.in_size**2 * self.mid_channels
        filtered = self.out_size**2 * self.mid_channels
        projected = self.out_size**2 * self.out_channels
        kept = image if self.shortcut else 0
        steps = [kept + expanded + filtered, kept + filtered + projected]
        if self.expand:
            steps.append(image + expanded)
        return max(steps)


@dataclasses.dataclass(frozen=True)
class Bottleneck(Block):
    """1x1 reduce, regular convolution, 1x1 widen; the activation after the addition (ResNet).

    Batch norm follows each convolution, also that of the shortcut.

    Args:
        position: its place among the elastic blocks; None where nothing is chosen.
        mid_channels: width of the two inner feature maps.
        shortcut: one of SHORTCUTS; "identity" only where stride and width stay.
    """

    SHORTCUTS = ("identity", "avg_pool_conv", "conv")

    name: str
    position: int | None
    in_size: int
    in_channels: int
    mid_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: str
    shortcut: str

    @property
    def out_size(self) -> int:
        return conv_size(self.in_size, self.stride)

    @property
    def key(self) -> str:
        return (
            f"bottleneck-{self.in_size}x{self.in_channels}"
            f"-{self.out_size}x{self.out_channels}-mid{self.mid_channels}-k{self.kernel_size}"
            f"-s{self.stride}-{self.activation}-shortcut_{self.shortcut}"
        )

    @property
    def weighted_layers(self) -> tuple[WeightedLayer, ...]:
        mid, out, out_pixels = self.mid_channels, self.out_channels, self.out_size**2
        layers = [
            WeightedLayer(self.in_channels * mid, mid, self.in_size**2),
            WeightedLayer(self.kernel_size**2 * mid**2, mid, out_pixels),
            WeightedLayer(mid * out, out, out_pixels),
        ]
        if self.shortcut != "identity":
            layers.append(WeightedLayer(self.in_channels * out, out, out_pixels))
        return tuple(layers)

    @property
    def peak_activations(self) -> int:
        image = self.in_size**2 * self.in_channels
        reduced = self.in_size**2 * self.mid_channels
        filtered = self.out_size**2 * self.mid_channels
        widened = self.out_size**2 * self.out_channels
        steps = [image + reduced + filtered, image + filtered + widened]
        # The shortcut comes last: until then the image stays. In the end, two summands and a sum.
        if self.shortcut == "avg_pool_conv" and self.stride > 1:
            pooled = self.out_size**2 * self.in_channels
            steps.append(widened + image + pooled)
            image = pooled
        if self.shortcut != "identity":
            steps.append(widened + image + widened)
        return max(*steps, 3 * widened)


@dataclasses.dataclass(frozen=True)
class MaxPool(Block):
    """The largest of each window of an odd side, padded by kernel_size // 2 on each side."""

    name: str
    in_size: int
    in_channels: int
    kernel_size: int
    stride: int

    weighted_layers = ()

    @property
    def out_size(self) -> int:
        return conv_size(self.in_size, self.stride)

    @property
    def out_channels(self) -> int:
        return self.in_channels

    @property
    def key(self) -> str:
        return f"max_pool-{self.in_size}x{self.in_channels}-k{self.kernel_size}-s{self.stride}"


@dataclasses.dataclass(frozen=True)
class GlobalPool(Block):
    """The mean over height and width, which stay as 1 x 1."""

    name: str
    in_size: int
    in_channels: int

    out_size = 1
    weighted_layers = ()

    @property
    def out_channels(self) -> int:
        return self.in_channels

    @property
    def key(self) -> str:
        return f"global_pool-{self.in_size}x{self.in_channels}"


@dataclasses.dataclass(frozen=True)
class Classifier(Block):
    """Dropout and a dense layer with bias on a 1 x 1 feature map: the logits."""

    name: str
    in_channels: int
    out_channels: int
    dropout: float

    in_size = 1
    out_size = 1

    @property
    def key(self) -> str:
        return f"classifier-{self.in_channels}-{self.out_channels}"

    @property
    def weighted_layers(self) -> tuple[WeightedLayer, ...]:
        return (WeightedLayer(self.in_channels * self.out_channels, self.out_channels, 1, 1),)


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """The plan of one subnet, from the image to the logits.

    Args:
        resolution: side of the square input image in pixels.
        blocks: in the order in which they run; each block's input is the one before's output.
        bn_momentum: share of the old value in the update of a moving statistic, as in Keras.
        bn_epsilon: added to the variance in batch norm.
    """

    resolution: int
    blocks: tuple[Block, ...]
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    @property
    def num_classes(self) -> int:
        return self.blocks[-1].out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, batch norm and activations not counted."""
        return sum(block.macs for block in self.blocks)

    @property
    def params(self) -> int:
        """Trainable parameters, batch norm's gamma and beta included."""
        return sum(block.params for block in self.blocks)

    @property
    def peak_activations(self) -> int:
        """The most tensor elements that are alive at once for one image."""
        return max(block.peak_activations for block in self.blocks)

    @property
    def feature_blocks(self) -> dict[int, Block]:
        """The last block at each stride of 4, 8, 16 and 32 that the network has, by stride.

        Their outputs are the feature pyramid of a backbone (arXiv 1612.03144).
        """
        sizes = {stride: -(-self.resolution // stride) for stride in (4, 8, 16, 32)}
        trunk = itertools.takewhile(lambda block: block.out_size > 1, self.blocks)
        last = {block.out_size: block for block in trunk}
        return {stride: last[size] for stride, size in sizes.items() if size in last}

    @property
    def backbone(self) -> Blueprint:
        """The network up to the last of its `feature_blocks`; without blocks where it has none."""
        features = self.feature_blocks.values()
        end = max(map(self.blocks.index, features)) + 1 if features else 0
        return dataclasses.replace(self, blocks=self.blocks[:end])

    @property
    def elastic_blocks(self) -> tuple[InvertedResidual | Bottleneck, ...]:
        """The blocks that the arch chose, by position."""
        return tuple(b for b in self.blocks if getattr(b, "position", None) is not None)


def conv_size(size: int, stride: int) -> int:
    """Output side of a convolution with an odd kernel k, padded by k // 2 on each side."""
    return (size - 1) // stride + 1


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` (half up), at least one, one more where 10 % was lost.

    The rounding of channels in MobileNet and in Once-for-All (arXiv 1908.09791).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
