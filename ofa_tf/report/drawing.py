"""Blueprints drawn block by block: color is the kernel, height the middle width.

Every subnet of a picture has the same columns, one per block that any of them has, so that a
block which a depth leaves out shows as a gap.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ofa_tf.report.columns import columns_of, place_of
from ofa_tf.spaces import Blueprint
from ofa_tf.spaces.blueprint import Block

_KERNEL_COLORS = {1: "#d9d9d9", 3: "#8ecae6", 5: "#f4b942", 7: "#d1495b"}
_NO_KERNEL = "white"
_LABELS = {"classifier": "logits"}  # shorter than the name, for narrow columns
_BOX_WIDTH = 0.72  # of a column
_LEAST_HEIGHT = 0.22  # of the tallest box, so that a kernel's number fits


def draw_blueprints(
    figure: Figure, blueprints: Sequence[Blueprint], titles: Sequence[str]
) -> list[Axes]:
    """Draws one row per blueprint and a legend; returns the rows, whose patches are the boxes."""
    columns = columns_of(blueprints)
    widest = max(_width(block) for plan in blueprints for block in plan.blocks)
    rows = list(figure.subplots(len(blueprints), squeeze=False)[:, 0])
    for axes, plan, title in zip(rows, blueprints, titles, strict=True):
        axes.set_title(title, loc="left", fontsize=10, weight="bold")
        axes.set_xlim(-0.6, len(columns) - 0.4)
        axes.set_ylim(-0.46, 1.2)
        axes.axis("off")
        _draw_row(axes, plan, columns, widest)
    used = {_kernel(block) for plan in blueprints for block in plan.blocks}
    handles = _legend(used)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
        handletextpad=0.5,
        title="A box is a block; its height and the number above are its middle width in channels. "
        "Below: the feature map (pixels × pixels × channels) that leaves each stage.",
        title_fontsize=8,
    )
    return rows


def _draw_row(axes: Axes, plan: Blueprint, columns: Sequence[object], widest: int) -> None:
    """One subnet: its boxes along a base line, and a cross where a block is left out."""
    by_place = {place_of(block): block for block in plan.blocks}
    axes.plot([0, len(columns) - 1], [0.0, 0.0], color="0.6", lw=1, zorder=0)
    for x, place in enumerate(columns):
        if place in by_place:
            _draw_block(axes, x, by_place[place], widest)
        else:
            axes.plot(x, 0.0, "x", color="0.6", ms=5)
        if isinstance(place, str):
            name = _LABELS.get(place, place).replace("_", "\n")
            axes.text(x, -0.1, name, ha="center", va="top", fontsize=7, color="0.35")
    _draw_stages(axes, plan, columns)


def _draw_stages(axes: Axes, plan: Blueprint, columns: Sequence[object]) -> None:
    """Dashed lines between the stages, and below each the feature map that leaves it."""
    firsts = _stage_firsts(plan)
    starts = [columns.index(block.position) for block in firsts]
    end = next(x for x, place in enumerate(columns) if x > starts[-1] and isinstance(place, str))
    for x in (*starts, end):
        axes.plot([x - 0.5] * 2, [-0.44, 1.15], color="0.75", lw=0.8, ls="--", zorder=0)
    for block, start, stop in zip(firsts, starts, [*starts[1:], end], strict=True):
        gap = "\n" if stop - start < 0.1 * len(columns) else " "  # two lines where it is narrow
        size = f"{block.out_size} × {block.out_size}{gap}× {block.out_channels}"
        axes.text((start + stop - 1) / 2, -0.1, size, ha="center", va="top", fontsize=8)


def _draw_block(axes: Axes, x: int, block: Block, widest: int) -> None:
    """A box on the base line, its kernel inside and its width above."""
    kernel, width = _kernel(block), _width(block)
    # The square root keeps the narrow early blocks visible beside the wide late ones.
    height = max(_LEAST_HEIGHT, (width / widest) ** 0.5)
    color = _KERNEL_COLORS.get(kernel, _NO_KERNEL)
    corner = (x - _BOX_WIDTH / 2, 0.0)
    axes.add_patch(Rectangle(corner, _BOX_WIDTH, height, fc=color, ec="0.25", lw=0.8))
    axes.text(x, height + 0.02, str(width), ha="center", va="bottom", fontsize=7)
    if kernel:
        axes.text(x, height / 2, str(kernel), ha="center", va="center", fontsize=8)


def _stage_firsts(plan: Blueprint) -> list[Block]:
    """The elastic blocks that change the shape of the feature map: each begins a stage."""
    firsts: list[Block] = []
    for block in plan.elastic_blocks:
        shape = (block.out_size, block.out_channels)
        if not firsts or shape != (firsts[-1].out_size, firsts[-1].out_channels):
            firsts.append(block)
    return firsts


def _kernel(block: Block) -> int | None:
    """Side of the kernel or of the max pool's window; None for the mean and the dense layer."""
    return getattr(block, "kernel_size", None)


def _width(block: Block) -> int:
    """Channels in the middle of an elastic block, or of another's output."""
    return getattr(block, "mid_channels", block.out_channels)


def _legend(kernels: set[int | None]) -> list[Patch | Line2D]:
    return [
        *(
            Patch(fc=color, ec="0.25", label=f"kernel {kernel} × {kernel}")
            for kernel, color in _KERNEL_COLORS.items()
            if kernel in kernels
        ),
        Patch(fc=_NO_KERNEL, ec="0.25", label="no kernel"),
        Line2D([], [], ls="", marker="x", color="0.6", label="block left out"),
    ]
