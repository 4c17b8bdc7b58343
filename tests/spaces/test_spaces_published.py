"""The spaces are the published ones, down to their widths, counts, MACs and parameters."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib

import pytest

from ofa_tf.errors import UsageError
from ofa_tf.spaces import get_space, list_spaces
from ofa_tf.spaces.blueprint import make_divisible

# The published stages: stride, activation, squeeze-excite; 4 blocks each.
STAGES = (
    (2, "relu", False),
    (2, "relu", True),
    (2, "hard_swish", False),
    (1, "hard_swish", True),
    (2, "hard_swish", True),
)
# Stem and first block, stages, final expand, feature mix, all rounded to multiples of 8.
WIDTHS = {
    "ofa_mbv3_w1.0": (16, (24, 40, 80, 112, 160), 960, 1280),
    "ofa_mbv3_w1.2": (24, (32, 48, 96, 136, 192), 1152, 1536),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_published_plan(name):
    stem_width, stage_widths, final_expand, feature_mix = WIDTHS[name]
    space = get_space(name)
    plan = space.blueprint(space.max())
    stem, first, *blocks, expand, pool, mix, classifier = plan.blocks
    assert plan.bn_momentum == 0.9
    assert plan.bn_epsilon == 1e-5

    assert (stem.in_channels, stem.out_channels, stem.kernel_size) == (3, stem_width, 3)
    assert (stem.stride, stem.activation, stem.batch_norm) == (2, "hard_swish", True)
    assert (first.in_channels, first.mid_channels, first.out_channels) == (stem_width,) * 3
    assert (first.kernel_size, first.stride, first.activation) == (3, 1, "relu")
    assert not first.expand
    assert first.se_channels == 0
    assert first.shortcut
    assert first.position is None

    assert [block.position for block in blocks] == list(range(20))
    width, size = stem_width, 112
    for index, block in enumerate(blocks):
        stride, activation, squeeze_excite = STAGES[index // 4]
        out = stage_widths[index // 4]
        opens_stage = index % 4 == 0
        stride = stride if opens_stage else 1
        mid = make_divisible(6 * width)
        assert (block.in_channels, block.mid_channels, block.out_channels) == (width, mid, out)
        assert (block.in_size, block.stride) == (size, stride)
        assert block.activation == activation
        assert block.se_channels == (make_divisible(mid // 4) if squeeze_excite else 0)
        assert block.shortcut == (not opens_stage)
        assert block.expand
        width, size = out, size // stride

    assert (expand.out_channels, expand.kernel_size, expand.batch_norm) == (final_expand, 1, True)
    assert expand.activation == mix.activation == "hard_swish"
    assert (pool.in_size, pool.out_size, pool.out_channels) == (7, 1, final_expand)
    assert (mix.in_channels, mix.out_channels, mix.batch_norm) == (final_expand, feature_mix, False)
    assert (classifier.in_channels, classifier.out_channels) == (feature_mix, 1000)
    assert classifier.dropout == 0.1


@pytest.mark.parametrize(("name", "smallest"), [("ofa_mbv3_w1.0", 128), ("ofa_mbv3_w1.2", 160)])
def test_published_choices(name, smallest):
    space = get_space(name)
    assert space.depths == (2, 3, 4)
    assert space.kernel_sizes == (3, 5, 7)
    assert space.expand_ratios == (3, 4, 6)
    assert space.resolutions == tuple(range(smallest, 225, 4))
    assert space.restrict(resolutions=[224]).num_subnets == 7371**5
    assert space.num_subnets == len(space.resolutions) * 7371**5


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1, 8),  # at least the divisor
        (11, 16),  # 8 would lose more than 10 %
        (12, 16),  # half rounds up
        (16, 16),
        (19.2, 24),  # 16 would lose more than 10 %
        (20, 24),
        (28.8, 32),
        (33, 32),  # loses 3 %
        (134.4, 136),
        (1247.9, 1248),
    ],
)
def test_make_divisible(value, rounded):
    assert make_divisible(value) == rounded


def test_make_divisible_of_another_divisor():
    assert make_divisible(10, 4) == 12
    assert make_divisible(9, 4) == 12  # 8 would lose more than 10 %
    assert make_divisible(37, 4) == 36


def test_unknown_space_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        get_space("mbv3")
    assert "'mbv3'" in str(caught.value)
    assert all(name in str(caught.value) for name in list_spaces())


def test_spaces_are_known_by_their_names():
    assert {"ofa_mbv3_w1.0", "ofa_mbv3_w1.2", "ofa_mbv3_cifar", "ofa_mbv3_tiny"} <= {*list_spaces()}
    assert all(get_space(name).name == name for name in list_spaces())


def test_published_networks_cost_what_was_published():
    """MACs, parameters and middle widths of the authors' own specialized MobileNetV3 networks."""
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the published networks are not at hand")
    published = pathlib.Path(os.environ["OFA_SHARED"], "data", "published")
    with open(published / "specialized.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["family"] == "MobileNetV3"]
    assert rows
    for row in rows:
        config = json.loads((published / "specialized" / row["id"] / "net.config").read_text())
        stem_width = config["first_conv"]["out_channels"]
        name = next(name for name, widths in WIDTHS.items() if widths[0] == stem_width)
        stage_widths = WIDTHS[name][1]
        blocks = [block["mobile_inverted_conv"] for block in config["blocks"][1:]]
        kernels, expands, depths = [], [], []
        for width in stage_widths:
            stage = [block for block in blocks if block["out_channels"] == width]
            off = [0] * (4 - len(stage))
            depths.append(len(stage))
            kernels += [block["kernel_size"] for block in stage] + off
            expands += [block["expand_ratio"] for block in stage] + off

        # Some were trained at resolutions beyond those of the supernet's space.
        resolution = int(row["image_size"])
        space = dataclasses.replace(get_space(name), resolutions=(resolution,))
        plan = space.blueprint({"ks": kernels, "e": expands, "d": depths, "r": resolution})
        middle = [block["mid_channels"] for block in blocks]
        assert [block.mid_channels for block in plan.elastic_blocks] == middle, row["id"]
        assert abs(plan.params / 1e6 - float(row["published_params_m"])) < 0.051, row["id"]
        if row["id"].startswith("note10_lat-8ms"):
            # The one row whose published MACs are not those of its network.
            assert plan.macs == 75_802_880
        else:
            assert abs(plan.macs / 1e6 - float(row["published_macs_m"])) < 1, row["id"]
