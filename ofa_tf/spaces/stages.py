"""What the mobile families share: stages of inverted residuals, as a table and as blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ofa_tf.errors import UsageError
from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import Block, InvertedResidual, make_divisible


class Stage(NamedTuple):
    """A row of a family's table: blocks of one output width, the first of which may stride.

    Args:
        width: output channels, before the family's multiplier and rounding.
        stride: of the first block, 1 or 2.
        activation: one of `blueprint.ACTIVATIONS`.
        squeeze_excite: whether the blocks have it.
        blocks: how many run at most; one of the space's depths, or less than all of them.
    """

    width: int
    stride: int
    activation: str
    squeeze_excite: bool
    blocks: int = 4


def stage_runs(stages: Sequence[Stage], depths: Sequence[int]) -> tuple[Mapping[int, int], ...]:
    """`Family.stage_runs`: a depth is the number of blocks; all of a stage where none fits.

    Raises:
        UsageError: a stage has more blocks than the largest depth that fits lets run.
    """
    found = []
    for index, stage in enumerate(stages):
        fitting = [depth for depth in depths if depth <= stage.blocks] or [stage.blocks]
        if max(fitting) != stage.blocks:
            raise UsageError(
                f"Stage {index} has {stage.blocks} blocks, of which depths of {list(depths)} run "
                f"at most {max(fitting)}: give it blocks={max(fitting)}, or add the depth."
            )
        found.append({depth: depth for depth in fitting})
    return tuple(found)


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
