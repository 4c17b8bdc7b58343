"""Blueprint counts by hand, and BlockCosts against the Blueprint and brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from spaces_helpers import every_arch, small_resnet, small_space

from ofa_tf.spaces import BlockCosts, get_space, list_spaces
from ofa_tf.spaces.blueprint import Bottleneck, Conv, InvertedResidual, MaxPool


def smallest_tiny():
    """Depth 1, kernel 3, expand ratio 2 at 24 pixels; ten classes."""
    space = get_space("ofa_mbv3_tiny").restrict(resolutions=[24])
    return space.blueprint(space.min(), num_classes=10)


def test_macs_by_hand():
    expected = [
        144 * 27 * 8,  # stem: 3x3 from 3 to 8 channels, 24 -> 12 pixels
        144 * (9 * 8 + 8 * 8),  # first: depthwise, project
        144 * (8 * 16 + 9 * 16 + 16 * 16),  # stage 0
        144 * 16 * 32 + 36 * (9 * 32 + 32 * 24) + 2 * 32 * 8,  # stage 1: 12 -> 6 pixels, SE of 8
        36 * 24 * 48 + 9 * (9 * 48 + 48 * 40) + 2 * 48 * 16,  # stage 2: 6 -> 3 pixels, SE of 16
        9 * 40 * 128,  # final expand
        0,  # pool
        128 * 160,  # feature mix
        160 * 10,  # classifier
    ]
    plan = smallest_tiny()
    assert [block.macs for block in plan.blocks] == expected
    assert plan.macs == sum(expected)


def test_params_by_hand():
    expected = [
        27 * 8 + 16,
        9 * 8 + 16 + 8 * 8 + 16,
        8 * 16 + 32 + 9 * 16 + 32 + 16 * 16 + 32,
        16 * 32 + 64 + 9 * 32 + 64 + (32 * 8 + 8) + (8 * 32 + 32) + 32 * 24 + 48,
        24 * 48 + 96 + 9 * 48 + 96 + (48 * 16 + 16) + (16 * 48 + 48) + 48 * 40 + 80,
        40 * 128 + 256,
        0,
        128 * 160,
        160 * 10 + 10,
    ]
    plan = smallest_tiny()
    assert [block.params for block in plan.blocks] == expected
    assert plan.params == sum(expected)


def test_peak_activations_by_hand():
    stem, _, stage0, *_ = smallest_tiny().blocks
    assert stem.peak_activations == 24 * 24 * 3 + 144 * 8
    # Without a shortcut the input is gone while the depthwise convolution runs.
    assert stage0.peak_activations == 144 * (16 + 16)
    kept = dataclasses.replace(stage0, out_channels=8, shortcut=True)
    assert kept.peak_activations == 144 * (8 + 16 + 16)
    # A stride of 2 leaves a quarter after the depthwise convolution.
    strided = dataclasses.replace(stage0, stride=2)
    assert strided.peak_activations == max(144 * (16 + 8), 144 * 16 + 36 * 16)
    assert smallest_tiny().peak_activations == 144 * (32 + 16)  # expansion of stage 1


# 8 x 8 x 24 to 4 x 4 x 40 channels, with 16 in the middle.
BOTTLENECK = Bottleneck("b", 0, 8, 24, 16, 40, 3, 2, "relu", "avg_pool_conv")


def test_bottleneck_by_hand():
    reduce, spatial, widen = 64 * 24 * 16, 16 * 9 * 16 * 16, 16 * 16 * 40
    assert BOTTLENECK.macs == reduce + spatial + widen + 16 * 24 * 40
    expected = (24 * 16 + 32) + (9 * 16 * 16 + 32) + (16 * 40 + 80) + (24 * 40 + 80)
    assert BOTTLENECK.params == expected
    plain = dataclasses.replace(BOTTLENECK, out_channels=24, stride=1, shortcut="identity")
    assert plain.macs == 64 * (24 * 16 + 9 * 16 * 16 + 16 * 24)
    assert plain.params == (24 * 16 + 32) + (9 * 16 * 16 + 32) + (16 * 24 + 48)


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        # Image, two inner maps and output, each step's inputs and outputs and what has to wait;
        # then the shortcut's pool and convolution, then the sum.
        (
            {},
            [
                64 * 24 + 64 * 16 + 16 * 16,
                64 * 24 + 16 * 16 + 16 * 40,
                64 * 24 + 16 * 40 + 16 * 24,
                16 * 24 + 2 * 16 * 40,
                3 * 16 * 40,
            ],
        ),
        ({"mid_channels": 8, "out_channels": 96}, [3 * 16 * 96]),
        ({"mid_channels": 8}, [64 * 24 + 16 * 40 + 16 * 24]),
        ({"shortcut": "conv", "mid_channels": 8}, [64 * 24 + 2 * 16 * 40]),
        ({"stride": 1}, [3 * 64 * 40]),
        ({"stride": 1, "in_channels": 80}, [64 * (80 + 2 * 40)]),
        ({"stride": 1, "in_channels": 40, "shortcut": "identity"}, [3 * 64 * 40]),
        (
            {"stride": 1, "in_channels": 40, "mid_channels": 64, "shortcut": "identity"},
            [64 * (40 + 64 + 64)],
        ),
    ],
)
def test_peak_activations_of_a_bottleneck(fields, steps):
    assert dataclasses.replace(BOTTLENECK, **fields).peak_activations == max(steps)


def test_peak_activations_of_a_residual_convolution():
    conv = Conv("c", 12, 8, 8, 3, 1, "relu")
    assert conv.peak_activations == 144 * 2 * 8
    assert dataclasses.replace(conv, shortcut=True).peak_activations == 144 * 3 * 8


def test_costs_of_the_tiny_resnet_by_hand():
    """Its largest at 24 pixels, ten classes: widths 16-16-32-48-48-96-96."""
    space = get_space("ofa_resnet_tiny").restrict(resolutions=[24])
    plan = space.blueprint(space.max(), num_classes=10)
    mids = (24, 48)  # half of 48 and of 96
    expected = {
        "stem0": 576 * 27 * 16,
        "stem1": 576 * 9 * 16 * 16,
        "stem2": 576 * 9 * 16 * 32,
        "max_pool": 0,
        "stage0_block0": 144 * (32 * mids[0] + 9 * mids[0] ** 2 + mids[0] * 48 + 32 * 48),
        "stage0_block1": 144 * (48 * mids[0] + 9 * mids[0] ** 2 + mids[0] * 48),
        "stage1_block0": 144 * 48 * mids[1] + 36 * (9 * mids[1] ** 2 + mids[1] * 96 + 48 * 96),
        "stage1_block1": 36 * (96 * mids[1] + 9 * mids[1] ** 2 + mids[1] * 96),
        "pool": 0,
        "classifier": 96 * 10,
    }
    assert {block.name: block.macs for block in plan.blocks} == expected
    assert plan.macs == sum(expected.values())
    assert plan.peak_activations == 576 * 3 * 16  # stem1 and stem2


@pytest.mark.parametrize(("size", "stride", "out"), [(7, 1, 7), (7, 2, 4), (8, 2, 4), (1, 2, 1)])
def test_sizes_of_padded_convolutions(size, stride, out):
    assert Conv("c", size, 3, 8, 3, stride, "relu").out_size == out
    # Symmetric padding p = k // 2: floor((size + 2 p - k) / stride) + 1.
    assert MaxPool("m", size, 3, 3, stride).out_size == out
    assert out == (size + 2 * 1 - 3) // stride + 1


@pytest.mark.parametrize(
    "name", ["ofa_mbv3_w1.0", "ofa_mbv3_cifar", "ofa_proxyless_w1.3", "ofa_resnet50"]
)
def test_equal_keys_mean_equal_blocks(name):
    space = get_space(name)
    archs = space.decode(space.sample_codes(60, np.random.default_rng(0)))
    by_key, by_fields = {}, {}
    for arch in archs:
        for block in space.blueprint(arch).blocks:
            fields = dataclasses.asdict(block)
            # Where a block stands, and dropout, which does nothing at inference, cost nothing.
            identity = tuple(
                (type(block).__name__, key, value)
                for key, value in fields.items()
                if key not in ("name", "position", "dropout")
            )
            assert by_key.setdefault(block.key, identity) == identity
            assert by_fields.setdefault(identity, block.key) == block.key
    assert len(by_key) > 100


@pytest.mark.parametrize("name", list_spaces())
@pytest.mark.parametrize("measure", ["macs", "params"])
def test_block_costs_equal_the_blueprint(name, measure):
    space = get_space(name)
    space = space.restrict(resolutions=space.resolutions[::4])
    codes = space.sample_codes(100, np.random.default_rng(0))
    costs = BlockCosts(space, lambda block, resolution: getattr(block, measure), num_classes=7)
    expected = [getattr(space.blueprint(a, 7), measure) for a in space.decode(codes)]
    np.testing.assert_array_equal(costs(codes), expected)
    assert len(set(expected)) > 50


RESTRICTIONS = [
    {"depths": [0]},
    {"depths": [1], "expand_ratios": [0.25]},
    {"widths": [1], "expand_ratios": [0.2, 0.35]},
    {"widths": [0, 2], "depths": [1, 2]},
]


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_block_costs_of_a_restricted_resnet(restriction):
    space = get_space("ofa_resnet50").restrict(resolutions=[132, 224], **restriction)
    codes = space.sample_codes(60, np.random.default_rng(0))
    costs = BlockCosts(space, lambda block, resolution: block.params + resolution)
    plans = [space.blueprint(arch) for arch in space.decode(codes)]
    expected = [plan.params + plan.resolution * len(plan.blocks) for plan in plans]
    np.testing.assert_array_equal(costs(codes), expected)


def random_costs(seed: int, low: float = -0.5):
    """Costs that no order of the choices explains, some of which a deeper stage lowers."""
    known: dict[tuple[str, int], float] = {}
    rng = np.random.default_rng(seed)

    def cost(block, resolution):
        return known.setdefault((block.key, resolution), rng.uniform(low, 1))

    return cost


SMALL = {
    "mbv3": small_space(),
    "resnet": small_resnet(),
    "resnet_deepest": small_resnet().restrict(depths=[1], widths=[1]),
    "resnet_of_one_expand_ratio": small_resnet().restrict(expand_ratios=[0.5]),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SMALL)
def test_minimum_equals_brute_force(name, seed):
    space, cost = SMALL[name], random_costs(seed)
    costs = BlockCosts(space, cost)
    archs = every_arch(space)
    plans = [space.blueprint(arch) for arch in archs]
    totals = [sum(cost(block, plan.resolution) for block in plan.blocks) for plan in plans]
    np.testing.assert_allclose(costs(space.encode(archs)), totals, rtol=0, atol=1e-12)
    least, code = costs.minimum()
    assert least == pytest.approx(min(totals), abs=1e-12)
    assert space.decode(code[None])[0] == archs[int(np.argmin(totals))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SMALL)
def test_least_of_the_largest_equals_brute_force(name, seed):
    """Many archs share the dearest block, so that only the value is one."""
    space, cost = SMALL[name], random_costs(seed, low=0)
    costs = BlockCosts(space, cost, largest=True)
    archs = every_arch(space)
    plans = [space.blueprint(arch) for arch in archs]
    peaks = [max(cost(block, plan.resolution) for block in plan.blocks) for plan in plans]
    np.testing.assert_array_equal(costs(space.encode(archs)), peaks)
    least, code = costs.minimum()
    assert least == min(peaks)
    assert costs(code[None]) == least


def test_minimum_of_macs_is_the_smallest_net():
    for space in (small_space(), *(get_space(name) for name in list_spaces())):
        least, code = BlockCosts(space, lambda block, resolution: block.macs).minimum()
        assert space.decode(code[None]) == [space.min()]
        assert least == space.blueprint(space.min()).macs


def test_what_is_outside_the_space_has_no_cost():
    """Not even a low one."""
    costs = BlockCosts(small_resnet().restrict(widths=[1]), lambda block, resolution: block.macs)
    assert np.isnan(costs(costs.space.root.encode([costs.space.root.min()]))).all()


def test_elastic_blocks_know_their_position():
    space = get_space("ofa_mbv3_w1.0")
    blocks = space.blueprint(space.min()).elastic_blocks
    assert [block.position for block in blocks] == [0, 1, 4, 5, 8, 9, 12, 13, 16, 17]
    assert all(isinstance(block, InvertedResidual) for block in blocks)
    # The last of Proxyless's six stages has one block, whatever the depths are.
    space = get_space("ofa_proxyless_w1.3")
    blocks = space.blueprint(space.min()).elastic_blocks
    assert [block.position for block in blocks] == [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20]
    # A ResNet's stages have 2, 2, 4, 2 blocks, and room for two more each.
    space = get_space("ofa_resnet50")
    blocks = space.blueprint(space.min()).elastic_blocks
    assert [block.position for block in blocks] == [0, 1, 4, 5, 8, 9, 10, 11, 14, 15]
    assert all(isinstance(block, Bottleneck) for block in blocks)
