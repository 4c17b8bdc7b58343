"""SearchSpace: codes, restriction, sampling, mutation and crossover."""

from __future__ import annotations

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from spaces_helpers import FIELDS, OFF, SEEDS, any_space, assert_in_space, every_arch, small_space

from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch, get_space


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_sample_encode_decode_round_trip(space, seed):
    codes = space.sample_codes(5, np.random.default_rng(seed))
    assert_in_space(space, codes)
    archs = space.decode(codes)
    np.testing.assert_array_equal(space.encode(archs), codes)
    np.testing.assert_array_equal(space.encode(arch.to_dict() for arch in archs), codes)
    assert [space.arch(arch) for arch in archs] == archs


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_equal_archs_are_those_that_differ_only_where_switched_off(space, seed):
    rng = np.random.default_rng(seed)
    code = space.sample_codes(1, rng)
    noisy = code.copy()
    noisy[code == OFF] = rng.integers(0, 3, (code == OFF).sum())
    np.testing.assert_array_equal(space.canonical(noisy), code)
    assert space.decode(noisy) == space.decode(code)


@hypothesis.given(space=any_space(), seed=SEEDS, prob=st.floats(0, 1))
def test_mutants_stay_in_the_space(space, seed, prob):
    rng = np.random.default_rng(seed)
    codes = space.sample_codes(10, rng)
    before = codes.copy()
    mutants = space.mutate(codes, rng, prob, prob)
    assert_in_space(space, mutants)
    np.testing.assert_array_equal(codes, before)
    np.testing.assert_array_equal(space.mutate(codes, rng, 0.0, 0.0), codes)


def test_mutation_redraws_with_the_given_chance():
    space = get_space("ofa_mbv3_tiny").restrict(depths=[2])  # every position active
    rng = np.random.default_rng(0)
    codes = space.sample_codes(6000, rng)
    changed = space.mutate(codes, rng, 0.3, 0.6) != codes
    # A redraw among three leaves the choice as it was once in three.
    kernel, expand = changed[:, space.columns["kernel"]], changed[:, space.columns["expand"]]
    np.testing.assert_allclose(kernel.mean(axis=0), 0.3 * 2 / 3, atol=0.025)
    np.testing.assert_allclose(expand.mean(axis=0), 0.3 * 2 / 3, atol=0.025)
    # Kernel and expand ratio of a block are redrawn together.
    np.testing.assert_allclose((kernel & expand).mean(axis=0), 0.3 * 4 / 9, atol=0.025)
    assert changed[:, -1].mean() == pytest.approx(0.6 * 2 / 3, abs=0.025)


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_children_take_each_choice_from_a_parent(space, seed):
    rng = np.random.default_rng(seed)
    a, b = space.sample_codes(10, rng), space.sample_codes(10, rng)
    children = space.crossover(a, b, rng)
    assert_in_space(space, children)
    from_parent = (children == a) | (children == b)
    assert from_parent[children != OFF].all()
    np.testing.assert_array_equal(space.crossover(a, a, rng), a)


def test_crossover_takes_from_both_parents_alike():
    space = get_space("ofa_mbv3_tiny")
    a, b = space.encode([space.min(), space.max()]).repeat(4000, axis=0).reshape(2, 4000, -1)
    children = space.crossover(a, b, np.random.default_rng(0))
    always = [*range(space.num_stages), space.code_length - 1]  # depths and resolution
    np.testing.assert_allclose((children == b)[:, always].mean(axis=0), 0.5, atol=0.04)


def chi_square(values: np.ndarray, choices: int) -> float:
    counts = np.bincount(values, minlength=choices)
    expected = len(values) / choices
    return float(((counts - expected) ** 2 / expected).sum())


def test_sampling_is_uniform_over_each_choice():
    space = get_space("ofa_mbv3_w1.0")
    codes = space.sample_codes(20_000, np.random.default_rng(1))
    columns = space.columns
    # The bounds are passed by a fair draw but once in 100,000 (2, 8 and 24 degrees of freedom).
    for stage in range(5):
        assert chi_square(codes[:, columns["depth"]][:, stage], 3) < 23
    kernels, expands = codes[:, columns["kernel"]], codes[:, columns["expand"]]
    for position in range(20):
        active = kernels[:, position] != OFF
        together = 3 * kernels[active, position] + expands[active, position]
        assert chi_square(together, 9) < 38
    assert chi_square(codes[:, -1], 25) < 65


def test_sampling_depends_on_the_seed_only():
    space = get_space("ofa_mbv3_cifar")
    draws = [space.sample_codes(50, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    assert space.sample(np.random.default_rng(3)) == space.sample(np.random.default_rng(3))


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_restriction_keeps_what_codes_mean(space, seed):
    arch = space.sample(np.random.default_rng(seed))
    root = get_space(space.name)
    assert space.root is root
    np.testing.assert_array_equal(space.encode([arch]), root.encode([arch]))
    assert root.decode(space.encode([arch])) == [arch]
    again = space.restrict(resolutions=[arch.resolution])
    assert again.root is root
    assert again.arch(arch) == arch


@hypothesis.given(space=any_space())
def test_largest_and_smallest_are_the_last_and_first_choice_everywhere(space):
    for arch, pick in ((space.max(), max), (space.min(), min)):
        depth, resolution = pick(space.depths), pick(space.resolutions)
        rows = {
            "kernel_sizes": pick(space.kernel_sizes),
            "expand_ratios": pick(space.expand_ratios),
        }
        assert arch.depths == (depth,) * len(space.family.stage_depths)
        assert arch.resolution == resolution
        for field, value in rows.items():
            per_stage = [[value] * depth + [0] * (m - depth) for m in space.family.stage_depths]
            assert getattr(arch, field) == tuple(itertools.chain(*per_stage))
        assert_in_space(space, space.encode([arch]))


@pytest.mark.parametrize("field", FIELDS)
def test_restriction_refuses_what_is_not_in_the_space(field):
    space = get_space("ofa_mbv3_tiny")
    for values in ([], [99]):
        with pytest.raises(UsageError) as caught:
            space.restrict(**{field: values})
        assert field in str(caught.value)
        assert str(list(getattr(space, field))) in str(caught.value)
        assert str(values) in str(caught.value)
    narrow = space.restrict(**{field: getattr(space, field)[:1]})
    with pytest.raises(UsageError, match=field):
        narrow.restrict(**{field: getattr(space, field)[1:]})


def test_num_subnets_equals_brute_force():
    space = small_space()
    archs = every_arch(space)
    assert len(set(archs)) == len(archs) == space.num_subnets == 2 * 6**3
    # Every spelling of every code leads to one of them, and to all of them.
    choices = [space.allowed("depth", s) for s in range(3)]
    choices += [space.allowed("kernel")] * 6 + [space.allowed("expand")] * 6
    choices.append(space.allowed("resolution"))
    codes = np.array(list(itertools.product(*choices)), np.int32)
    assert set(space.decode(codes)) == set(archs)


def test_one_hot():
    space = get_space("ofa_mbv3_tiny").restrict(kernel_sizes=(5, 7))
    archs = [space.sample(np.random.default_rng(seed)) for seed in range(20)]
    rows = []
    for arch in archs:
        row = [float(kernel == k) for kernel in arch.kernel_sizes for k in (3, 5, 7)]
        row += [float(expand == e) for expand in arch.expand_ratios for e in (2, 3, 4)]
        row += [float(arch.resolution == r) for r in get_space("ofa_mbv3_tiny").resolutions]
        rows.append(row)
    features = space.one_hot(space.encode(archs))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, rows)


def test_sizes_are_those_of_the_blueprint():
    space = get_space("ofa_mbv3_tiny")
    arch = Arch((1, 2, 1), (7, 0, 3, 5, 5, 0), (4, 0, 2, 3, 4, 0), 24)
    # Widths in and out: 8-16-16, 16-24-24, 24-40-40; squeeze-excite is a quarter, rounded to 8.
    expected = [
        (1, 7, 32, 0),
        (0, 0, 0, 0),
        (1, 3, 32, 8),
        (1, 5, 72, 24),
        (1, 5, 96, 24),
        (0, 0, 0, 0),
    ]
    np.testing.assert_array_equal(space.sizes(arch), expected)
    assert space.sizes(arch).dtype == np.int32
    assert space.always_active == (True, False) * 3
