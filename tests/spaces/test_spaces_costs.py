"""Blueprint counts by hand, and BlockCosts against the Blueprint and brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from spaces_helpers import every_arch, small_space

from ofa_tf.spaces import BlockCosts, get_space
from ofa_tf.spaces.blueprint import Conv, InvertedResidual


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


@pytest.mark.parametrize(("size", "stride", "out"), [(7, 1, 7), (7, 2, 4), (8, 2, 4), (1, 2, 1)])
def test_sizes_of_padded_convolutions(size, stride, out):
    assert Conv("c", size, 3, 8, 3, stride, "relu").out_size == out
    # Symmetric padding p = k // 2: floor((size + 2 p - k) / stride) + 1.
    assert out == (size + 2 * 1 - 3) // stride + 1


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_mbv3_cifar"])
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


@pytest.mark.parametrize("name", ["ofa_mbv3_tiny", "ofa_mbv3_cifar", "ofa_mbv3_w1.2"])
@pytest.mark.parametrize("measure", ["macs", "params"])
def test_block_costs_equal_the_blueprint(name, measure):
    space = get_space(name)
    space = space.restrict(resolutions=space.resolutions[::4])
    codes = space.sample_codes(100, np.random.default_rng(0))
    costs = BlockCosts(space, lambda block: getattr(block, measure), num_classes=7)
    expected = [getattr(space.blueprint(a, 7), measure) for a in space.decode(codes)]
    np.testing.assert_array_equal(costs(codes), expected)
    assert len(set(expected)) > 50


@pytest.mark.parametrize("seed", range(5))
def test_minimum_equals_brute_force(seed):
    """Under costs that no order of the choices explains, some of which a deeper stage lowers."""
    space, rng = small_space(), np.random.default_rng(seed)
    known: dict[str, float] = {}

    def cost(block):
        return known.setdefault(block.key, rng.uniform(-0.5, 1))

    costs = BlockCosts(space, cost)
    archs = every_arch(space)
    totals = [sum(cost(block) for block in space.blueprint(arch).blocks) for arch in archs]
    np.testing.assert_allclose(costs(space.encode(archs)), totals, rtol=0, atol=1e-12)
    least, code = costs.minimum()
    assert least == pytest.approx(min(totals), abs=1e-12)
    assert space.decode(code[None])[0] == archs[int(np.argmin(totals))]


def test_minimum_of_macs_is_the_smallest_net():
    for space in (get_space("ofa_mbv3_tiny"), small_space(), get_space("ofa_mbv3_cifar")):
        least, code = BlockCosts(space, lambda block: block.macs).minimum()
        assert space.decode(code[None]) == [space.min()]
        assert least == space.blueprint(space.min()).macs


def test_elastic_blocks_know_their_position():
    space = get_space("ofa_mbv3_w1.0")
    blocks = space.blueprint(space.min()).elastic_blocks
    assert [block.position for block in blocks] == [0, 1, 4, 5, 8, 9, 12, 13, 16, 17]
    assert all(isinstance(block, InvertedResidual) for block in blocks)
