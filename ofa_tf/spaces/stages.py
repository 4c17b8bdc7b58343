"""What the mobile families share: stages of inverted residuals, as a table and as blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import Block, InvertedResidual, make_divisible


class Stage(NamedTuple):
    """A row of a family's table: blocks of one output width, the first of which may stride."""

    width: int
    stride: int
    activation: str
    squeeze_excite: bool
    blocks: int = 4


def stage_runs(stages: Sequence[Stage], depths: Sequence[int]) -> tuple[Mapping[int, int], ...]:
    """`Family.stage_runs`: a depth is the number of blocks; all of a stage where none fits."""
    return tuple(
        {depth: depth for depth in depths if depth <= stage.blocks} or {stage.blocks: stage.blocks}
        for stage in stages
    )


def elastic_stages(
    stages: Sequence[Stage], arch: Arch, last: Block, width_mult: float
) -> list[InvertedResidual]:
    """The blocks of all stages that a canonical arch runs, after the block `last`.

    All widths are multiplied by `width_mult`, then rounded.
    """
    blocks: list[InvertedResidual] = []
    start = 0
    for s, (stage, depth) in enumerate(zip(stages, arch.depths, strict=True)):
        for b in range(depth):
            position = start + b
            last = inverted_residual(
                f"stage{s}_block{b}",
                position,
                last,
                make_divisible(round(last.out_channels * arch.expand_ratios[position])),
                make_divisible(stage.width * width_mult),
                arch.kernel_sizes[position],
                stage.stride if b == 0 else 1,
                stage.activation,
                stage.squeeze_excite,
            )
            blocks.append(last)
        start += stage.blocks
    return blocks


def inverted_residual(
    name: str,
    position: int | None,
    previous: Block,
    mid_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    activation: str,
    squeeze_excite: bool,
    expand: bool = True,
) -> InvertedResidual:
    """A block after `previous`, with a shortcut wherever the shape stays."""
    return InvertedResidual(
        name=name,
        position=position,
        in_size=previous.out_size,
        in_channels=previous.out_channels,
        mid_channels=mid_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        activation=activation,
        se_channels=se_width(mid_channels) if squeeze_excite else 0,
        expand=expand,
        shortcut=stride == 1 and previous.out_channels == out_channels,
    )


def se_width(mid_channels: int) -> int:
    """Middle width of the squeeze-excite on so many channels."""
    return make_divisible(mid_channels // 4)
