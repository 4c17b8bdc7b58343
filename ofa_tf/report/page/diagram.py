"""A subnet block by block, as data that a template draws: color is the kernel, height the width.

A block that the largest subnet has and this one leaves out shows as a gap.
"""

from __future__ import annotations

import dataclasses

from ofa_tf.report.columns import columns_of, place_of
from ofa_tf.spaces import Blueprint
from ofa_tf.spaces.blueprint import Block

_COLUMN, _BOX = 38, 28  # pixels
_TALLEST, _LEAST = 84, 16
_TOP = 16  # for the widths above the boxes
_BELOW = 30  # for the names and sizes below them
_LONGEST = 8  # characters of a name's line
_SHORT = {"classifier": "logits", "max_pool": "pool"}  # names for narrow columns


@dataclasses.dataclass(frozen=True)
class Box:
    """A block: its left upper corner and height in pixels, and what is written on it.

    Args:
        kernel: side of its kernel; None where it has none.
        width: its middle width in channels.
        name: below it, a text for each line; () for an elastic block.
        title: all about it, for who points at it.
    """

    x: float
    y: float
    height: float
    kernel: int | None
    width: int
    name: tuple[str, ...]
    title: str


@dataclasses.dataclass(frozen=True)
class Stage:
    """The columns of blocks with one output shape: where they begin and end, and this shape."""

    left: float
    right: float
    size: str


@dataclasses.dataclass(frozen=True)
class Diagram:
    """The boxes of a subnet on a base line; `gaps` are the centers of blocks left out."""

    title: str
    width: float
    height: float
    base: float
    box_width: float
    boxes: tuple[Box, ...]
    gaps: tuple[float, ...]
    stages: tuple[Stage, ...]

    @property
    def kernels(self) -> list[int]:
        """The sides of all kernels, for the legend."""
        return sorted({box.kernel for box in self.boxes if box.kernel})


def draw(plan: Blueprint, largest: Blueprint, name: str) -> Diagram:
    """The diagram of a plan.

    Args:
        plan: of the subnet.
        largest: of its space's largest subnet, which tells what it leaves out.
        name: of the subnet.
    """
    places = columns_of((largest, plan))
    widest = max(_width(block) for block in (*plan.blocks, *largest.blocks))
    blocks = {place_of(block): block for block in plan.blocks}
    boxes, gaps = [], []
    for index, place in enumerate(places):
        x = index * _COLUMN + (_COLUMN - _BOX) / 2
        if place in blocks:
            boxes.append(_box(blocks[place], x, widest))
        else:
            gaps.append(x + _BOX / 2)
    return Diagram(
        f"The {len(plan.blocks)} blocks of {name}",
        len(places) * _COLUMN,
        _TOP + _TALLEST + _BELOW,
        _TOP + _TALLEST,
        _BOX,
        tuple(boxes),
        tuple(gaps),
        tuple(_stages(plan, places)),
    )


def _box(block: Block, x: float, widest: int) -> Box:
    width = _width(block)
    # The square root keeps the narrow early blocks visible beside the wide late ones.
    height = round(max(_LEAST, _TALLEST * (width / widest) ** 0.5), 1)
    place = place_of(block)
    words = _SHORT.get(place, place).split("_")[:2] if isinstance(place, str) else ()
    name = tuple(word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…" for word in words)
    return Box(x, _TOP + _TALLEST - height, height, _kernel(block), width, name, _title(block))


def _title(block: Block) -> str:
    kernel = _kernel(block)
    parts = [
        block.name.replace("_", " "),
        f"kernel {kernel} × {kernel}" if kernel else "",
        f"stride {block.stride}" if getattr(block, "stride", 1) > 1 else "",
        f"{_shape(block.in_size, block.in_channels)} → "
        f"{_shape(block.out_size, block.out_channels)}",
        f"middle width {_width(block)}" if hasattr(block, "mid_channels") else "",
        f"squeeze-excite {block.sizes.se_channels}" if block.sizes.se_channels else "",
        getattr(block, "activation", "").replace("_", "-"),
        f"{block.macs / 1e6:.2f} M MACs",
    ]
    return ", ".join(filter(None, parts))


def _shape(size: int, channels: int) -> str:
    return f"{size} × {size} × {channels}"


def _stages(plan: Blueprint, places: list[object]) -> list[Stage]:
    """Runs of elastic blocks with one output shape, with the gaps that end them."""
    starts: list[tuple[int, str]] = []
    for block in plan.elastic_blocks:
        size = f"{block.out_size}² × {block.out_channels}"
        if not starts or starts[-1][1] != size:
            starts.append((places.index(block.position), size))
    end = 1 + max((i for i, place in enumerate(places) if isinstance(place, int)), default=-1)
    ends = [*(start for start, _ in starts[1:]), end]
    return [
        Stage(start * _COLUMN, end * _COLUMN, size)
        for (start, size), end in zip(starts, ends, strict=True)
    ]


def _kernel(block: Block) -> int | None:
    return getattr(block, "kernel_size", None)


def _width(block: Block) -> int:
    """Channels in the middle of an elastic block, or of another's output."""
    return getattr(block, "mid_channels", block.out_channels)
