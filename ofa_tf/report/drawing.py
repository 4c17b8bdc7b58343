"""Blueprints drawn block by block: color is the kernel, height the middle width.

Every subnet of a picture has the same columns, one per block that any of them has, so that a
block which a depth leaves out shows as a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ofa_tf.report.colors import LIGHT
from ofa_tf.report.figures import measured_or_predicted
from ofa_tf.report.plots import Picture, styled
from ofa_tf.spaces import Blueprint
from ofa_tf.spaces.blueprint import Block

_KERNEL_COLORS = {side: LIGHT[f"k{side}"] for side in (1, 3, 5, 7)}
_NO_KERNEL = LIGHT["page"]
_LINE, _GRAY = LIGHT["muted"], LIGHT["faint"]
_LABELS = {"classifier": "logits"}  # shorter than the name, for narrow columns
_BOX_WIDTH = 0.72  # of a column
_LEAST_HEIGHT = 0.22  # of the tallest box, so that a kernel's number fits


@styled
def architectures_picture(
    rows: Sequence[Mapping[str, Any]],
    blueprints: Sequence[Blueprint],
    beside: Blueprint | None = None,
) -> Picture:
    """Subnets below each other, a box per block; its PNG is 1000 pixels wide.

    Args:
        rows: rows of results.json, for the titles; all but their names may be missing.
        blueprints: the plan of each row's arch.
        beside: another, such as the largest of the space, whose blocks have columns too.
    """
    height = 0.6 + 1.5 * len(rows)
    figure = Figure(figsize=(10, height), dpi=100)
    # A layout engine would take most of the time, and nothing depends on the length of a text.
    figure.subplots_adjust(0.005, 0.55 / height, 0.995, 1 - 0.25 / height, hspace=0.24)
    names = ", ".join(str(row["name"]) for row in rows)
    picture = Picture(figure, f"The blocks of {names}")
    titles = [_title(row, plan) for row, plan in zip(rows, blueprints, strict=True)]
    axes_of_rows = draw_blueprints(figure, blueprints, titles, beside)
    for plan, axes in zip(blueprints, axes_of_rows, strict=True):
        for block, box in zip(plan.blocks, axes.patches, strict=True):
            picture.explain(box, [_in_words(block)])
    picture.settle()
    return picture


def _title(row: Mapping[str, Any], blueprint: Blueprint) -> str:
    """The subnet in one line, with numbers of the file that was predicted, measured if it was."""
    side = blueprint.resolution
    title = f"{row['name']}: {side} × {side} px, {blueprint.macs / 1e6:.1f} M MACs"
    latency, accuracy, origin = measured_or_predicted(row)
    if latency is None or accuracy is None:
        return title
    decimals = 3 if latency < 1 else 2
    return f"{title}, {latency:.{decimals}f} ms, {accuracy:.1f} % ({origin})"


def draw_blueprints(
    figure: Figure,
    blueprints: Sequence[Blueprint],
    titles: Sequence[str],
    beside: Blueprint | None = None,
) -> list[Axes]:
    """Draws one row per blueprint and a legend; returns the rows, whose patches are the boxes."""
    all_plans = [*blueprints, beside] if beside else blueprints
    columns = _columns(all_plans)
    widest = max(_width(block) for plan in all_plans for block in plan.blocks)
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
        loc="lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
        handletextpad=0.5,
        title="Each box is a block; its height and the number above are its middle width in "
        "channels. Below: the feature map after each stage.",
        title_fontsize=8,
    )
    return rows


def _columns(plans: Iterable[Blueprint]) -> list[object]:
    """The places that some plan has, each once, in the order of their blocks."""
    columns: list[object] = []
    for plan in plans:
        after = 0
        for place in map(_place, plan.blocks):
            if place not in columns:
                columns.insert(after, place)
            after = columns.index(place) + 1
    return columns


def _place(block: Block) -> object:
    """The name of a fixed block, or the position of an elastic one."""
    position = getattr(block, "position", None)
    return block.name if position is None else position


def _draw_row(axes: Axes, plan: Blueprint, columns: Sequence[object], widest: int) -> None:
    """One subnet: its boxes along a base line, and a cross where a block is left out."""
    by_place = {_place(block): block for block in plan.blocks}
    axes.plot([0, len(columns) - 1], [0.0, 0.0], color=_GRAY, lw=1, zorder=0)
    for x, place in enumerate(columns):
        if place in by_place:
            _draw_block(axes, x, by_place[place], widest)
        else:
            axes.plot(x, 0.0, "x", color=_GRAY, ms=5)
        if isinstance(place, str):
            name = _LABELS.get(place, place).replace("_", "\n")
            axes.text(x, -0.1, name, ha="center", va="top", fontsize=7.5, color=_LINE)
    _draw_stages(axes, plan, columns)


def _draw_stages(axes: Axes, plan: Blueprint, columns: Sequence[object]) -> None:
    """Dashed lines between the stages, and below each the feature map that leaves it."""
    firsts = _stage_firsts(plan)
    starts = [columns.index(block.position) for block in firsts]
    end = next(x for x, place in enumerate(columns) if x > starts[-1] and isinstance(place, str))
    for x in (*starts, end):
        axes.plot([x - 0.5] * 2, [-0.44, 1.15], color=LIGHT["rule"], ls="--", zorder=0)
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
    axes.add_patch(Rectangle(corner, _BOX_WIDTH, height, fc=color, ec=_GRAY))
    axes.text(x, height + 0.02, str(width), ha="center", va="bottom", fontsize=7.5, color=_LINE)
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


def _in_words(block: Block) -> str:
    """All about a block, for who points at its box."""
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


def _kernel(block: Block) -> int | None:
    """Side of the kernel or of the max pool's window; None for the mean and the dense layer."""
    return getattr(block, "kernel_size", None)


def _width(block: Block) -> int:
    """Channels in the middle of an elastic block, or of another's output."""
    return getattr(block, "mid_channels", block.out_channels)


def _legend(kernels: set[int | None]) -> list[Patch | Line2D]:
    return [
        *(
            Patch(fc=color, ec=_GRAY, label=f"kernel {kernel} × {kernel}")
            for kernel, color in _KERNEL_COLORS.items()
            if kernel in kernels
        ),
        Patch(fc=_NO_KERNEL, ec=_GRAY, label="no kernel"),
        Line2D([], [], ls="", marker="x", color=_GRAY, label="block left out"),
    ]
