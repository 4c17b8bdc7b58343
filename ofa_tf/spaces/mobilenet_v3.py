"""The MobileNetV3 family (arXiv 1905.02244 as Once-for-All uses it) and its spaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import Block, Blueprint, Classifier, Conv, GlobalPool, make_divisible
from ofa_tf.spaces.search_space import SearchSpace
from ofa_tf.spaces.stages import Stage, elastic_stages, inverted_residual, stage_runs

HARD_SWISH = "hard_swish"
# What the networks of a space can have in its place: accelerators without it run these as a whole.
ACTIVATIONS = ("swish", "relu6")


@dataclasses.dataclass(frozen=True)
class MobileNetV3:
    """A table of stages between a stem and a head; all widths times `width_mult`.

    Args:
        stem_width: channels of the 3x3 stem and of the first, fixed block.
        stem_stride: 2 as published; 1 keeps the pixels of small images.
        stages: the elastic stages.
        final_expand_width: channels of the 1x1 convolution before the mean.
        feature_mix_width: channels of the 1x1 convolution after it.
        width_mult: multiplies every width, before rounding to a multiple of 8.
        dropout: rate before the classifier.
        activation: of all that has hard-swish as published, the stages' too; ReLU stays.
    """

    stem_width: int
    stem_stride: int
    stages: tuple[Stage, ...]
    final_expand_width: int
    feature_mix_width: int
    width_mult: float = 1.0
    dropout: float = 0.1
    activation: str = HARD_SWISH

    num_widths = 0

    def stage_runs(self, depths: Sequence[int]) -> tuple[Mapping[int, int], ...]:
        return stage_runs(self.stages, depths)

    def blueprint(self, arch: Arch, num_classes: int) -> Blueprint:
        """The plan of a canonical arch."""
        stem_width = self._width(self.stem_width)
        stem = Conv("stem", arch.resolution, 3, stem_width, 3, self.stem_stride, self.activation)
        first = inverted_residual(
            "first", None, stem, stem_width, stem_width, 3, 1, "relu", False, expand=False
        )
        stages = [
            stage._replace(activation=self.activation) if stage.activation == HARD_SWISH else stage
            for stage in self.stages
        ]
        blocks: list[Block] = [stem, first, *elastic_stages(stages, arch, first, self.width_mult)]
        blocks += self._head(blocks[-1], num_classes)
        return Blueprint(arch.resolution, tuple(blocks))

    def _head(self, last: Block, num_classes: int) -> list[Block]:
        wide = self._width(self.final_expand_width)
        mixed = self._width(self.feature_mix_width)
        return [
            Conv("final_expand", last.out_size, last.out_channels, wide, 1, 1, self.activation),
            GlobalPool("pool", last.out_size, wide),
            Conv("feature_mix", 1, wide, mixed, 1, 1, self.activation, batch_norm=False),
            Classifier("classifier", mixed, num_classes, self.dropout),
        ]

    def _width(self, base: int) -> int:
        return make_divisible(base * self.width_mult)


def _published(width_mult: float) -> MobileNetV3:
    """The networks of Once-for-All: 20 elastic blocks in five stages."""
    return MobileNetV3(
        stem_width=16,
        stem_stride=2,
        stages=(
            Stage(24, 2, "relu", False),
            Stage(40, 2, "relu", True),
            Stage(80, 2, HARD_SWISH, False),
            Stage(112, 1, HARD_SWISH, True),
            Stage(160, 2, HARD_SWISH, True),
        ),
        final_expand_width=960,
        feature_mix_width=1280,
        width_mult=width_mult,
    )


_CIFAR = MobileNetV3(
    stem_width=16,
    stem_stride=1,
    stages=(
        Stage(24, 2, "relu", False, blocks=3),
        Stage(48, 2, "relu", True, blocks=3),
        Stage(80, 2, HARD_SWISH, True, blocks=3),
    ),
    final_expand_width=320,
    feature_mix_width=512,
)

_TINY = MobileNetV3(
    stem_width=8,
    stem_stride=2,
    stages=(
        Stage(16, 1, "relu", False, blocks=2),
        Stage(24, 2, "relu", True, blocks=2),
        Stage(40, 2, HARD_SWISH, True, blocks=2),
    ),
    final_expand_width=128,
    feature_mix_width=160,
)

_ELASTIC = {"depths": (2, 3, 4), "kernel_sizes": (3, 5, 7), "expand_ratios": (3, 4, 6)}

SPACES = (
    SearchSpace(
        "ofa_mbv3_w1.0", _published(1.0), **_ELASTIC, resolutions=tuple(range(128, 225, 4))
    ),
    SearchSpace(
        "ofa_mbv3_w1.2", _published(1.2), **_ELASTIC, resolutions=tuple(range(160, 225, 4))
    ),
    SearchSpace(
        "ofa_mbv3_cifar",
        _CIFAR,
        depths=(1, 2, 3),
        kernel_sizes=(3, 5, 7),
        expand_ratios=(2, 3, 4),
        resolutions=(24, 28, 32),
    ),
    SearchSpace(
        "ofa_mbv3_tiny",
        _TINY,
        depths=(1, 2),
        kernel_sizes=(3, 5, 7),
        expand_ratios=(2, 3, 4),
        resolutions=(24, 28, 32),
    ),
)


def _with_activation(space: SearchSpace, activation: str) -> SearchSpace:
    """The space with another activation, which its name tells."""
    family = dataclasses.replace(space.family, activation=activation)
    return dataclasses.replace(space, name=f"{space.name}-{activation}", family=family)


VARIANTS = tuple(
    _with_activation(space, activation) for space in SPACES for activation in ACTIVATIONS
)
