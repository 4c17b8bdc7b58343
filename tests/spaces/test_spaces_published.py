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
PROXYLESS_WIDTHS = (32, 56, 104, 128, 248, 416)  # 1.3 times 24 40 80 96 192 320


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


def test_published_proxyless_plan():
    plan = get_space("ofa_proxyless_w1.3").blueprint(get_space("ofa_proxyless_w1.3").max())
    stem, first, *blocks, mix, pool, classifier = plan.blocks
    assert plan.bn_momentum == 0.9
    assert plan.bn_epsilon == 1e-3
    # 1.3 times 32 and 16: 41.6 and 20.8, to the nearest multiple of 8.
    assert (stem.out_channels, stem.kernel_size, stem.stride) == (40, 3, 2)
    assert (first.in_channels, first.mid_channels, first.out_channels) == (40, 40, 24)
    assert (first.kernel_size, first.stride, first.expand, first.shortcut) == (3, 1, False, False)
    assert {block.activation for block in (stem, first, *blocks, mix)} == {"relu6"}

    strides = (2, 2, 2, 1, 2, 1)
    opened = (0, 4, 8, 12, 16, 20)
    assert [block.position for block in blocks] == list(range(21))
    width, size = 24, 112
    for block in blocks:
        stage = min(block.position // 4, 5)
        stride = strides[stage] if block.position in opened else 1
        mid, out = make_divisible(6 * width), PROXYLESS_WIDTHS[stage]
        assert (block.in_channels, block.mid_channels, block.out_channels) == (width, mid, out)
        assert (block.in_size, block.stride, block.kernel_size) == (size, stride, 7)
        assert block.shortcut == (block.position not in opened)
        assert block.expand
        assert block.se_channels == 0
        width, size = out, size // stride

    assert (mix.in_size, mix.out_channels, mix.kernel_size, mix.batch_norm) == (7, 1664, 1, True)
    assert (pool.in_size, pool.out_channels) == (7, 1664)
    assert (classifier.in_channels, classifier.out_channels) == (1664, 1000)
    assert classifier.dropout == 0.1


# By the width multipliers 0.65, 0.8 and 1: half of the stem, the stem, and the stages.
RESNET_WIDTHS = {
    0: (24, 40, 168, 336, 664, 1328),  # 20, 41.6, 166.4, 332.8, 665.6, 1331.2
    1: (24, 48, 208, 408, 816, 1640),  # 24, 51.2, 204.8, 409.6, 819.2, 1638.4
    2: (32, 64, 256, 512, 1024, 2048),
}


@pytest.mark.parametrize("index", RESNET_WIDTHS)
@pytest.mark.parametrize(
    ("depth", "runs"), [(0, (2, 2, 4, 2)), (1, (3, 3, 5, 3)), (2, (4, 4, 6, 4))]
)
def test_published_resnet_plan(index, depth, runs):
    space = get_space("ofa_resnet50")
    half, full, *stage_widths = RESNET_WIDTHS[index]
    skips = depth != 2
    choices = {
        "d": [0 if skips else 2] + [depth] * 4,
        "e": [0.25] * 18,
        "w": [index] * 6,
        "r": 224,
    }
    plan = space.blueprint(choices)
    assert (plan.bn_momentum, plan.bn_epsilon) == (0.9, 1e-5)
    stem, (max_pool, *blocks, pool, classifier) = plan.blocks[: 3 - skips], plan.blocks[3 - skips :]
    shapes = [(3, half, 2, False), (half, half, 1, True), (half, full, 1, False)]
    shapes = [shapes[0], shapes[2]] if skips else shapes
    for block, (width, out, stride, shortcut) in zip(stem, shapes, strict=True):
        assert (block.in_channels, block.out_channels, block.stride) == (width, out, stride)
        assert (block.shortcut, block.kernel_size, block.batch_norm) == (shortcut, 3, True)
        assert block.activation == "relu"
    assert (max_pool.in_size, max_pool.out_size, max_pool.kernel_size) == (112, 56, 3)
    assert (max_pool.in_channels, max_pool.stride) == (full, 2)

    assert len(blocks) == sum(runs)
    width, size, remaining = full, 56, iter(blocks)
    for stage, (count, out) in enumerate(zip(runs, stage_widths, strict=True)):
        for b in range(count):
            block = next(remaining)
            stride = 2 if stage and b == 0 else 1
            mid = make_divisible(round(out * 0.25))
            assert (block.in_channels, block.mid_channels, block.out_channels) == (width, mid, out)
            assert (block.in_size, block.stride, block.kernel_size) == (size, stride, 3)
            assert block.shortcut == ("identity" if b else "avg_pool_conv")
            assert block.activation == "relu"
            width, size = out, size // stride
    assert (pool.in_size, pool.out_channels) == (7, stage_widths[-1])
    assert (classifier.in_channels, classifier.dropout) == (stage_widths[-1], 0)


def test_a_resnet50_is_among_its_subnets():
    """The common ResNet-50 has 25,557,032 parameters and a stem of one 7x7 convolution.

    In its place are two of 3x3 here, and a batch norm between them; 3, 4, 6, 3 blocks are 1, 2, 2,
    1 beyond the base.
    """
    choices = {"d": [0, 1, 2, 2, 1], "e": [0.25] * 18, "w": [2] * 6, "r": 224}
    plan = get_space("ofa_resnet50").blueprint(choices)
    seven = 49 * 3 * 64
    stem = 27 * 32 + 9 * 32 * 64 + 2 * 32
    assert plan.params == 25_557_032 - seven + stem


def test_widths_of_a_resnet_follow_their_places():
    """The stem's halves, its output, and each stage, one by one."""
    space = get_space("ofa_resnet50")
    plan = space.blueprint({**space.max().to_dict(), "w": [0, 1, 2, 0, 1, 2]})
    places = ["stem0", "stem1", "stem2", "max_pool"]
    places += [f"stage{stage}_block{block}" for stage in range(4) for block in (0, 1)]
    widths = {block.name: block.out_channels for block in plan.blocks}
    assert [widths[name] for name in places] == [
        *(24, 24, 48, 48),
        *(256, 256, 336, 336, 816, 816, 2048, 2048),
    ]
    mids = {block.name: block.mid_channels for block in plan.elastic_blocks}
    assert mids["stage1_block0"] == make_divisible(round(336 * 0.35))


def test_published_choices_of_the_other_families():
    proxyless, resnet = get_space("ofa_proxyless_w1.3"), get_space("ofa_resnet50")
    assert proxyless.kernel_sizes == (3, 5, 7)
    assert proxyless.expand_ratios == (3, 4, 6)
    assert resnet.depths == (0, 1, 2)
    assert resnet.expand_ratios == (0.2, 0.25, 0.35)
    assert proxyless.resolutions == resnet.resolutions == tuple(range(128, 225, 4))
    assert proxyless.stage_runs == (*[{2: 2, 3: 3, 4: 4}] * 5, {1: 1})
    assert resnet.stage_runs == (
        {0: 0, 2: 0},
        *({0: base, 1: base + 1, 2: base + 2} for base in (2, 2, 4, 2)),
    )
    # The last stage of Proxyless has one block; of ResNets, the stem has 2 depths, 3 ** 6 widths.
    assert proxyless.restrict(resolutions=[224]).num_subnets == 7371**5 * 9
    stages = (3**2 + 3**3 + 3**4) ** 3 * (3**4 + 3**5 + 3**6)
    assert resnet.restrict(resolutions=[224]).num_subnets == 2 * 3**6 * stages
    assert list(proxyless.max().to_dict()["d"]) == [4, 4, 4, 4, 4, 1]


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
    assert {"ofa_mbv3_w1.0", "ofa_mbv3_w1.2", "ofa_proxyless_w1.3", "ofa_resnet50"} <= {
        *list_spaces()
    }
    assert all(get_space(name).name == name for name in list_spaces())


@pytest.mark.parametrize(
    ("published", "name"),
    [
        ("ofa_mbv3_d234_e346_k357_w1.0", "ofa_mbv3_w1.0"),
        ("ofa_mbv3_d234_e346_k357_w1.2", "ofa_mbv3_w1.2"),
        ("ofa_proxyless_d234_e346_k357_w1.3", "ofa_proxyless_w1.3"),
        ("ofa_resnet50", "ofa_resnet50"),
        ("ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0", "ofa_resnet50"),
    ],
)
def test_published_ids_are_known_too(published, name):
    assert get_space(published) is get_space(name)
    assert get_space(published).name == name


def test_published_networks_cost_what_was_published():
    """MACs, parameters and middle widths of the authors' own specialized networks."""
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the published networks are not at hand")
    published = pathlib.Path(os.environ["OFA_SHARED"], "data", "published")
    with open(published / "specialized.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    for row in rows:
        config = json.loads((published / "specialized" / row["id"] / "net.config").read_text())
        stem_width = config["first_conv"]["out_channels"]
        widths = {16: WIDTHS["ofa_mbv3_w1.0"][1], 24: WIDTHS["ofa_mbv3_w1.2"][1]}
        names = {16: "ofa_mbv3_w1.0", 24: "ofa_mbv3_w1.2", 40: "ofa_proxyless_w1.3"}
        space, stage_widths = get_space(names[stem_width]), widths.get(stem_width, PROXYLESS_WIDTHS)
        blocks = [block["mobile_inverted_conv"] for block in config["blocks"][1:]]
        kernels, expands, depths = [], [], []
        for width, positions in zip(stage_widths, space.stage_positions, strict=True):
            stage = [block for block in blocks if block["out_channels"] == width]
            off = [0] * (positions - len(stage))
            depths.append(len(stage))
            kernels += [block["kernel_size"] for block in stage] + off
            expands += [block["expand_ratio"] for block in stage] + off

        # Some were trained at resolutions beyond those of the supernet's space.
        resolution = int(row["image_size"])
        space = dataclasses.replace(space, resolutions=(resolution,))
        plan = space.blueprint({"ks": kernels, "e": expands, "d": depths, "r": resolution})
        middle = [block["mid_channels"] for block in blocks]
        assert [block.mid_channels for block in plan.elastic_blocks] == middle, row["id"]
        assert abs(plan.params / 1e6 - float(row["published_params_m"])) < 0.051, row["id"]
        if row["id"].startswith("note10_lat-8ms"):
            # The one row whose published MACs are not those of its network.
            assert plan.macs == 75_802_880
        else:
            assert abs(plan.macs / 1e6 - float(row["published_macs_m"])) < 1, row["id"]
