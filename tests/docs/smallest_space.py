"""A search space with all that one can have, and as few different blocks as that takes."""

from ofa_tf.spaces import MobileNetV3, SearchSpace, Stage

SPACE = SearchSpace(
    name="smallest",
    family=MobileNetV3(
        stem_width=8,
        stem_stride=2,
        stages=(Stage(16, 2, "hard_swish", True, blocks=2),),
        final_expand_width=32,
        feature_mix_width=32,
        activation="hard_swish",
    ),
    depths=(1, 2),
    kernel_sizes=(3, 5),
    expand_ratios=(2, 4),
    resolutions=(16, 24),
)
