"""The ProxylessNAS family (arXiv 1812.00332 as Once-for-All uses it) and its space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import Block, Blueprint, Classifier, Conv, GlobalPool, make_divisible
from ofa_tf.spaces.search_space import SearchSpace
from ofa_tf.spaces.stages import Stage, elastic_stages, inverted_residual, stage_runs


@dataclasses.dataclass(frozen=True)
class ProxylessNAS:
    """A table of stages between a stem and a head, relu6 throughout, no squeeze-excite.

    Args:
        stem_width: channels of the 3x3 stem.
        first_width: channels of the first, fixed block.
        stages: the elastic stages.
        feature_mix_width: channels of the 1x1 convolution before the mean.
        width_mult: multiplies every width, before rounding to a multiple of 8.
        dropout: rate before the classifier.
    """

    stem_width: int
    first_width: int
    stages: tuple[Stage, ...]
    feature_mix_width: int
    width_mult: float = 1.0
    dropout: float = 0.1

    num_widths = 0

    def stage_runs(self, depths: Sequence[int]) -> tuple[Mapping[int, int], ...]:
        return stage_runs(self.stages, depths)

    def blueprint(self, arch: Arch, num_classes: int) -> Blueprint:
        """The plan of a canonical arch."""
        stem_width, first_width, mixed = (
            make_divisible(width * self.width_mult)
            for width in (self.stem_width, self.first_width, self.feature_mix_width)
        )
        stem = Conv("stem", arch.resolution, 3, stem_width, 3, 2, "relu6")
        first = inverted_residual(
            "first", None, stem, stem_width, first_width, 3, 1, "relu6", False, expand=False
        )
        blocks: list[Block] = [
            stem,
            first,
            *elastic_stages(self.stages, arch, first, self.width_mult),
        ]
        last = blocks[-1]
        blocks += [
            Conv("feature_mix", last.out_size, last.out_channels, mixed, 1, 1, "relu6"),
            GlobalPool("pool", last.out_size, mixed),
            Classifier("classifier", mixed, num_classes, self.dropout),
        ]
        return Blueprint(arch.resolution, tuple(blocks), bn_epsilon=1e-3)


SPACES = (
    SearchSpace(
        "ofa_proxyless_w1.3",
        ProxylessNAS(
            stem_width=32,
            first_width=16,
            stages=(
                Stage(24, 2, "relu6", False),
                Stage(40, 2, "relu6", False),
                Stage(80, 2, "relu6", False),
                Stage(96, 1, "relu6", False),
                Stage(192, 2, "relu6", False),
                Stage(320, 1, "relu6", False, blocks=1),
            ),
            feature_mix_width=1280,
            width_mult=1.3,
        ),
        depths=(2, 3, 4),
        kernel_sizes=(3, 5, 7),
        expand_ratios=(3, 4, 6),
        resolutions=tuple(range(128, 225, 4)),
    ),
)
