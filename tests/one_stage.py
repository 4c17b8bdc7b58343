"""A space with all that a supernet can meet, in one stage: its graphs are traced twice as fast."""

from __future__ import annotations

from ofa_tf.spaces import SearchSpace
from ofa_tf.spaces.mobilenet_v3 import HARD_SWISH, MobileNetV3
from ofa_tf.spaces.stages import Stage

TINY = SearchSpace(
    "one_stage",
    MobileNetV3(
        stem_width=8,
        stem_stride=2,
        stages=(Stage(16, 2, HARD_SWISH, True, blocks=2),),
        final_expand_width=48,
        feature_mix_width=64,
    ),
    depths=(1, 2),
    kernel_sizes=(3, 5, 7),
    expand_ratios=(2, 3, 4),
    resolutions=(24, 28, 32),
)
