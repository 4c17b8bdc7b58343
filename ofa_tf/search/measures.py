"""What a subnet costs besides its latency: computations, parameters, file size, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ofa_tf.errors import UsageError
from ofa_tf.spaces import BlockCosts, SearchSpace
from ofa_tf.spaces.blueprint import Block, Classifier


class _FileBytes(NamedTuple):
    """What TFLite's converter writes, in bytes, besides the numbers of a block.

    Fitted to files of five spaces, which they explain within one per cent: a layer's operations
    and the names of its tensors, and in int8 the scales and zero points of each channel.
    """

    weight: int
    channel: int
    layer: int
    squeeze_excite: int
    network: int


_FILE_BYTES = {
    "float32": _FileBytes(weight=4, channel=4, layer=660, squeeze_excite=900, network=1400),
    "int8": _FileBytes(weight=1, channel=28, layer=760, squeeze_excite=990, network=1650),
}
_ELEMENT_BYTES = {"float32": 4, "int8": 1}


def _file_kb(precision: str) -> Callable[[Block, int], float]:
    size = _FILE_BYTES[precision]

    def cost(block: Block, resolution: int) -> float:
        layers = block.weighted_layers
        total = size.layer * len(layers)
        total += sum(
            size.weight * layer.weights + size.channel * layer.channels for layer in layers
        )
        total += size.squeeze_excite * bool(block.sizes.se_channels)
        total += size.network * (isinstance(block, Classifier))
        return total / 1e3

    return cost


def _memory_kb(precision: str) -> Callable[[Block, int], float]:
    return lambda block, resolution: block.peak_activations * _ELEMENT_BYTES[precision] / 1e3


MEASURES = ("macs_m", "params_m", "file_kb", "memory_kb")


def block_measure(
    name: str, space: SearchSpace, num_classes: int, precision: str = "float32"
) -> BlockCosts:
    """A measure that the Blueprint alone decides, for whole arrays of encoded archs.

    Args:
        name: "macs_m" (millions of multiply-accumulates), "params_m" (millions of trainable
            parameters), "file_kb" (kilobytes of the .tflite file, an estimate within one per
            cent) or "memory_kb" (kilobytes of the activations that are alive at once).
        space: whose codes it takes.
        num_classes: classes of the networks.
        precision: "float32" or "int8"; of the file and of the activations.

    Raises:
        UsageError: there is no such measure or precision.
    """
    if name not in MEASURES:
        raise UsageError(f"A measure is one of {', '.join(MEASURES)}, not {name!r}.")
    if precision not in _FILE_BYTES:
        raise UsageError(f"A precision is one of {', '.join(_FILE_BYTES)}, not {precision!r}.")
    costs: dict[str, Callable[[Block, int], float]] = {
        "macs_m": lambda block, resolution: block.macs / 1e6,
        "params_m": lambda block, resolution: block.params / 1e6,
        "file_kb": _file_kb(precision),
        "memory_kb": _memory_kb(precision),
    }
    return BlockCosts(space, costs[name], num_classes, largest=name == "memory_kb")
