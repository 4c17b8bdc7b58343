"""The ResNet50D family (arXiv 1812.01187 as Once-for-All uses it) and its space.

Its arch is spelled as published. `depths` starts with the stem: its residual convolution runs
where that is the largest depth; of each stage it is the number of blocks beyond the base.
`widths` are the indices of width multipliers: of the stem's inner convolutions, of the stem's
output, and of each stage's output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ofa_tf.errors import UsageError
from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import (
    Block,
    Blueprint,
    Bottleneck,
    Classifier,
    Conv,
    GlobalPool,
    MaxPool,
    make_divisible,
)
from ofa_tf.spaces.search_space import SearchSpace


class BottleneckStage(NamedTuple):
    """A row of the table: output width, stride of the first block, blocks that always run."""

    width: int
    stride: int
    base_blocks: int


@dataclasses.dataclass(frozen=True)
class ResNet50D:
    """A deep stem, stages of bottlenecks with average-pool shortcuts, and a dense head.

    Args:
        stem_width: channels that leave the stem; its inner convolutions have half of them.
        stages: the elastic stages.
        width_mults: what `Arch.widths` are indices of; multiply the widths before rounding.
        extra_blocks: the largest depth: the most blocks that a stage runs beyond its base.
        stem_stride: of the first convolution.
        dropout: rate before the classifier.
    """

    stem_width: int
    stages: tuple[BottleneckStage, ...]
    width_mults: tuple[float, ...]
    extra_blocks: int
    stem_stride: int = 2
    dropout: float = 0.0

    @property
    def num_widths(self) -> int:
        return 2 + len(self.stages)

    def stage_runs(self, depths: Sequence[int]) -> tuple[Mapping[int, int], ...]:
        if max(depths) != self.extra_blocks:
            raise UsageError(
                f"The largest depth is extra_blocks of the family, {self.extra_blocks}, not "
                f"{max(depths)}."
            )
        stem = {min(depths): 0, max(depths): 0}  # no block position; the stem's flag
        return (stem, *({d: stage.base_blocks + d for d in depths} for stage in self.stages))

    def blueprint(self, arch: Arch, num_classes: int) -> Blueprint:
        """The plan of a canonical arch."""
        blocks = self._stem(arch)
        mults = [self.width_mults[index] for index in arch.widths[2:]]
        start = 0
        for s, (stage, extra, mult) in enumerate(
            zip(self.stages, arch.depths[1:], mults, strict=True)
        ):
            width = make_divisible(stage.width * mult)
            for b in range(stage.base_blocks + extra):
                expand_ratio = arch.expand_ratios[start + b]
                blocks.append(
                    Bottleneck(
                        name=f"stage{s}_block{b}",
                        position=start + b,
                        in_size=blocks[-1].out_size,
                        in_channels=blocks[-1].out_channels,
                        mid_channels=make_divisible(round(width * expand_ratio)),
                        out_channels=width,
                        kernel_size=arch.kernel_sizes[start + b],
                        stride=stage.stride if b == 0 else 1,
                        activation="relu",
                        shortcut="identity" if b else "avg_pool_conv",
                    )
                )
            start += stage.base_blocks + self.extra_blocks
        last = blocks[-1]
        blocks += [
            GlobalPool("pool", last.out_size, last.out_channels),
            Classifier("classifier", last.out_channels, num_classes, self.dropout),
        ]
        return Blueprint(arch.resolution, tuple(blocks))

    def _stem(self, arch: Arch) -> list[Block]:
        inner, outer = (self.width_mults[index] for index in arch.widths[:2])
        half = make_divisible(make_divisible(self.stem_width * inner) // 2)
        width = make_divisible(self.stem_width * outer)
        first = Conv("stem0", arch.resolution, 3, half, 3, self.stem_stride, "relu")
        blocks: list[Block] = [first]
        size = first.out_size
        if arch.depths[0] == self.extra_blocks:
            blocks.append(Conv("stem1", size, half, half, 3, 1, "relu", shortcut=True))
        return [
            *blocks,
            Conv("stem2", size, half, width, 3, 1, "relu"),
            MaxPool("max_pool", size, width, 3, 2),
        ]


_PUBLISHED = (
    BottleneckStage(256, 1, 2),
    BottleneckStage(512, 2, 2),
    BottleneckStage(1024, 2, 4),
    BottleneckStage(2048, 2, 2),
)

SPACES = (
    SearchSpace(
        "ofa_resnet50",
        ResNet50D(stem_width=64, stages=_PUBLISHED, width_mults=(0.65, 0.8, 1.0), extra_blocks=2),
        depths=(0, 1, 2),
        kernel_sizes=(3,),
        expand_ratios=(0.2, 0.25, 0.35),
        widths=(0, 1, 2),
        resolutions=tuple(range(128, 225, 4)),
    ),
    # Small enough for a few thousand images of 32 px on a CPU.
    SearchSpace(
        "ofa_resnet_tiny",
        ResNet50D(
            stem_width=32,
            stages=(BottleneckStage(48, 1, 1), BottleneckStage(96, 2, 1)),
            width_mults=(0.5, 1.0),
            extra_blocks=1,
            stem_stride=1,
        ),
        depths=(0, 1),
        kernel_sizes=(3,),
        expand_ratios=(0.25, 0.5),
        widths=(0, 1),
        resolutions=(24, 28, 32),
    ),
)
