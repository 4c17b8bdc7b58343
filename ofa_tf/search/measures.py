"""What a subnet costs besides its latency: computations, parameters, file size, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ofa_tf.errors import UsageError
from ofa_tf.spaces import BlockCosts, SearchSpace
from ofa_tf.spaces.blueprint import Block, Classifier, InvertedResidual


class _FileBytes(NamedTuple):
    """What TFLite's converter writes, in bytes, besides the numbers of a block.

    Fitted to files of five spaces: a layer's operations and the names of its tensors, in int8 the
    scales and zero points of each channel, and what the cpu form adds (export/cpu_form.py).
    """

    weight: int
    channel: float
    layer: int
    squeeze_excite: int
    network: int  # with the metadata of a few classes
    pixel: int = 0  # of a row of the image
    band: int = 0  # of a depthwise kernel that is written in bands
    band_channel: int = 0
    hard_swish: int = 0


_FILE_BYTES = {
    ("float32", "plain"): _FileBytes(4, 4.1, 642, 1024, 2380),
    ("float32", "cpu"): _FileBytes(4, 4.2, 639, 991, 2800, pixel=24, band=2406),
    ("int8", "plain"): _FileBytes(1, 28.1, 738, 1141, 2650),
    ("int8", "cpu"): _FileBytes(
        1, 28.8, 724, 388, 4250, pixel=6, band=2883, band_channel=45, hard_swish=81
    ),
}
_ELEMENT_BYTES = {"float32": 4, "int8": 1}

# Of a depthwise kernel that the cpu form writes as it is; tests tie it to the form's own number.
_MAX_TAPS = 25


def _file_kb(precision: str, form: str) -> Callable[[Block, int], float]:
    size = _FILE_BYTES[precision, form]

    def cost(block: Block, resolution: int) -> float:
        layers = block.weighted_layers
        total = size.layer * len(layers)
        total += sum(
            size.weight * layer.weights + size.channel * layer.channels for layer in layers
        )
        total += size.squeeze_excite * bool(block.sizes.se_channels)
        total += size.network * isinstance(block, Classifier)
        total += size.pixel * resolution * (block.in_channels == 3)
        if form == "cpu" and isinstance(block, InvertedResidual):
            total += _depthwise_bytes(block, size)
        if getattr(block, "activation", None) == "hard_swish":
            total += size.hard_swish * (1 + getattr(block, "expand", False))
        return total / 1e3

    return cost


def _depthwise_bytes(block: InvertedResidual, size: _FileBytes) -> float:
    """What the cpu form adds for a depthwise kernel, less the weights that it leaves out."""
    unused = block.kernel_size**2 - block.needed_kernel_size**2
    total = -size.weight * unused * block.mid_channels
    if block.needed_kernel_size**2 > _MAX_TAPS:
        total += size.band + size.band_channel * block.mid_channels
    return total


def _memory_kb(precision: str) -> Callable[[Block, int], float]:
    return lambda block, resolution: block.peak_activations * _ELEMENT_BYTES[precision] / 1e3


MEASURES = ("macs_m", "params_m", "file_kb", "memory_kb")


def block_measure(
    name: str,
    space: SearchSpace,
    num_classes: int,
    precision: str = "float32",
    form: str = "cpu",
) -> BlockCosts:
    """A measure that the Blueprint alone decides, for whole arrays of encoded archs.

    Args:
        name: "macs_m" (millions of multiply-accumulates), "params_m" (millions of trainable
            parameters), "file_kb" (kilobytes of the .tflite file, an estimate within two per
            cent) or "memory_kb" (kilobytes of the activations that are alive at once).
        space: whose codes it takes.
        num_classes: classes of the networks.
        precision: "float32" or "int8"; of the file and of the activations.
        form: "cpu" or "plain"; of the file.

    Raises:
        UsageError: there is no such measure, precision or form.
    """
    if name not in MEASURES:
        raise UsageError(f"A measure is one of {', '.join(MEASURES)}, not {name!r}.")
    for what, value, known in (
        ("precision", precision, _ELEMENT_BYTES),
        ("form", form, dict.fromkeys(form for _, form in _FILE_BYTES)),
    ):
        if value not in known:
            raise UsageError(f"A {what} is one of {', '.join(known)}, not {value!r}.")
    costs: dict[str, Callable[[Block, int], float]] = {
        "macs_m": lambda block, resolution: block.macs / 1e6,
        "params_m": lambda block, resolution: block.params / 1e6,
        "file_kb": _file_kb(precision, form),
        "memory_kb": _memory_kb(precision),
    }
    return BlockCosts(space, costs[name], num_classes, largest=name == "memory_kb")
