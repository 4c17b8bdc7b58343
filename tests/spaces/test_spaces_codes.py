"""SearchSpace: codes, restriction, sampling, mutation and crossover."""

from __future__ import annotations

import dataclasses
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from spaces_helpers import (
    FIELDS,
    OFF,
    SEEDS,
    allowed_depths,
    any_space,
    assert_in_space,
    every_arch,
    own_spaces,
    small_resnet,
    small_space,
)

from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch, get_space, list_spaces


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_sample_encode_decode_round_trip(space, seed):
    codes = space.sample_codes(5, np.random.default_rng(seed))
    assert_in_space(space, codes)
    archs = space.decode(codes)
    np.testing.assert_array_equal(space.encode(archs), codes)
    np.testing.assert_array_equal(space.encode(arch.to_dict() for arch in archs), codes)
    assert [space.arch(arch) for arch in archs] == archs


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_coupled_choices_are_alike_throughout(space, seed):
    """Each stage takes the same place among the depths that it may have, and so on."""
    codes = space.sample_codes(20, np.random.default_rng(seed), coupling=1.0)
    assert_in_space(space, codes)
    for axis in ("kernel", "expand", "width"):
        for row in codes[:, space.columns[axis]]:
            assert len(set(row) - {OFF}) <= 1
    fixed = [space.allowed("depth", stage) for stage in range(space.num_stages)]
    if len({len(allowed) for allowed in fixed}) == 1:
        ranks = [
            [list(allowed).index(depth) for allowed, depth in zip(fixed, row, strict=True)]
            for row in codes[:, space.columns["depth"]]
        ]
        assert all(len(set(row)) == 1 for row in ranks)


def test_coupling_is_a_chance_of_each_axis():
    space = get_space("ofa_mbv3_w1.0")
    codes = space.sample_codes(4000, np.random.default_rng(0), coupling=0.5)
    alike = np.array(
        [
            [len(set(row[space.columns[axis]]) - {OFF}) == 1 for row in codes]
            for axis in ("depth", "kernel", "expand")
        ]
    )
    # By chance alone five stages are alike in 1 of 81 archs, and ten blocks or more hardly ever.
    assert alike.mean(1) == pytest.approx([0.506, 0.5, 0.5], abs=0.03)
    assert alike.all(0).mean() == pytest.approx(0.125, abs=0.02)
    # All choices stay about equally likely.
    kernels = codes[:, space.columns["kernel"]]
    shares = [np.mean(kernels[kernels != OFF] == choice) for choice in range(3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)


def test_without_coupling_codes_are_as_before():
    """Steps of jobs that were begun before are drawn alike."""
    space = get_space("ofa_mbv3_cifar")
    uncoupled = space.sample_codes(3, np.random.default_rng((3, 5)), coupling=0.0)
    np.testing.assert_array_equal(uncoupled, space.sample_codes(3, np.random.default_rng((3, 5))))
    assert uncoupled[:, :12].tolist() == [
        [0, 2, 0, 2, OFF, OFF, 2, 1, 0, 2, OFF, OFF],
        [0, 2, 1, 0, OFF, OFF, 1, 1, 2, 0, 1, OFF],
        [0, 2, 1, 0, OFF, OFF, 2, 0, 2, 1, 2, OFF],
    ]


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


def test_mutation_redraws_each_width_on_its_own():
    space = get_space("ofa_resnet50")
    rng = np.random.default_rng(0)
    codes = space.sample_codes(6000, rng)
    changed = (space.mutate(codes, rng, 0.3, 0.0) != codes)[:, space.columns["width"]]
    np.testing.assert_allclose(changed.mean(axis=0), 0.3 * 2 / 3, atol=0.025)
    assert (changed[:, 0] & changed[:, 1]).mean() == pytest.approx((0.3 * 2 / 3) ** 2, abs=0.015)


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_children_take_each_choice_from_a_parent(space, seed):
    rng = np.random.default_rng(seed)
    a, b = space.sample_codes(10, rng), space.sample_codes(10, rng)
    children = space.crossover(a, b, rng)
    assert_in_space(space, children)
    from_parent = (children == a) | (children == b)
    assert from_parent[children != OFF].all()
    np.testing.assert_array_equal(space.crossover(a, a, rng), a)


@pytest.mark.parametrize("name", ["ofa_mbv3_tiny", "ofa_resnet_tiny"])
def test_crossover_takes_from_both_parents_alike(name):
    space = get_space(name)
    a, b = space.encode([space.min(), space.max()]).repeat(4000, axis=0).reshape(2, 4000, -1)
    children = space.crossover(a, b, np.random.default_rng(0))
    columns = np.arange(space.code_length)
    always = [*columns[: space.num_stages], *columns[space.columns["width"].start :]]
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


def test_sampling_of_a_resnet_is_uniform_too():
    space = get_space("ofa_resnet50")
    codes = space.sample_codes(20_000, np.random.default_rng(1))
    assert chi_square(codes[:, 0], 2) < 20  # the stem's flag
    for stage in range(1, 5):
        assert chi_square(codes[:, stage], 3) < 23
    for place in range(6):
        assert chi_square(codes[:, space.columns["width"]][:, place], 3) < 23


def test_sampling_depends_on_the_seed_only():
    space = get_space("ofa_mbv3_cifar")
    draws = [space.sample_codes(50, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    assert space.sample(np.random.default_rng(3)) == space.sample(np.random.default_rng(3))


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_restriction_keeps_what_codes_mean(space, seed):
    arch = space.sample(np.random.default_rng(seed))
    root = space.root
    assert root in (*map(get_space, list_spaces()), *own_spaces())
    np.testing.assert_array_equal(space.encode([arch]), root.encode([arch]))
    assert root.decode(space.encode([arch])) == [arch]
    again = space.restrict(resolutions=[arch.resolution])
    assert again.root is root
    assert again.arch(arch) == arch


@hypothesis.given(space=any_space())
def test_largest_and_smallest_are_the_last_and_first_choice_everywhere(space):
    for arch, pick in ((space.max(), max), (space.min(), min)):
        depths = [pick(allowed_depths(space, runs)) for runs in space.stage_runs]
        assert arch.depths == tuple(depths)
        assert arch.resolution == pick(space.resolutions)
        assert arch.widths == (pick(space.widths, default=0),) * space.family.num_widths
        for field in ("kernel_sizes", "expand_ratios"):
            value, expected = pick(getattr(space, field)), []
            for depth, runs in zip(depths, space.stage_runs, strict=True):
                expected += [value] * runs[depth] + [0] * (max(runs.values()) - runs[depth])
            assert getattr(arch, field) == tuple(expected)
        assert_in_space(space, space.encode([arch]))


@pytest.mark.parametrize("field", FIELDS)
def test_restriction_refuses_what_is_not_in_the_space(field):
    space = get_space("ofa_resnet_tiny" if field == "widths" else "ofa_mbv3_tiny")
    for values in ([], [99]):
        with pytest.raises(UsageError) as caught:
            space.restrict(**{field: values})
        assert field in str(caught.value)
        assert str(list(getattr(space, field))) in str(caught.value)
        assert str(values) in str(caught.value)
    narrow = space.restrict(**{field: getattr(space, field)[:1]})
    with pytest.raises(UsageError, match=field):
        narrow.restrict(**{field: getattr(space, field)[1:]})


def test_widths_are_refused_where_the_family_has_none():
    with pytest.raises(UsageError, match=r"widths of ofa_mbv3_tiny .* some of \[\], not to \[0\]"):
        get_space("ofa_mbv3_tiny").restrict(widths=[0])


def test_num_subnets_equals_brute_force():
    space = small_space()
    archs = every_arch(space)
    assert len(set(archs)) == len(archs) == space.num_subnets == 2 * 6**3
    assert set(space.decode(every_code(space))) == set(archs)


def test_num_subnets_of_a_resnet_equals_brute_force():
    space = small_resnet()
    archs = every_arch(space)
    # Resolutions, widths, the stem's flag, one block and two blocks of two expand ratios.
    assert len(set(archs)) == len(archs) == space.num_subnets == 2 * 2**4 * 2 * (2 + 4) ** 2
    assert set(space.decode(every_code(space))) == set(archs)


def every_code(space) -> np.ndarray:
    """Every spelling of every code: archs that do not read a position have several."""
    choices = [space.allowed("depth", stage) for stage in range(space.num_stages)]
    choices += [space.allowed("kernel")] * space.num_positions
    choices += [space.allowed("expand")] * space.num_positions
    choices += [space.allowed("width")] * space.family.num_widths + [space.allowed("resolution")]
    return np.array(list(itertools.product(*choices)), np.int32)


@pytest.mark.parametrize(
    ("name", "restriction", "stem"),
    [
        ("ofa_resnet50", {"depths": [1]}, (2,)),  # the stem has no depth 1, so it stays
        ("ofa_resnet50", {"depths": [0, 1]}, (0,)),
        ("ofa_resnet50", {"depths": [1, 2]}, (2,)),
        ("ofa_resnet50", {}, (0, 2)),
    ],
)
def test_depths_of_the_stem_under_restrictions(name, restriction, stem):
    space = get_space(name).restrict(**restriction)
    codes = space.sample_codes(50, np.random.default_rng(0))
    assert {arch.depths[0] for arch in space.decode(codes)} == set(stem)


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


def test_one_hot_of_a_resnet():
    """No features for the one kernel; the stem's flag, which no position shows, has its own."""
    space = get_space("ofa_resnet50").restrict(widths=(0, 2))
    archs = [space.sample(np.random.default_rng(seed)) for seed in range(20)]
    rows = []
    for arch in archs:
        row = [float(expand == e) for expand in arch.expand_ratios for e in (0.2, 0.25, 0.35)]
        row += [float(arch.depths[0] == d) for d in (0, 2)]
        row += [float(width == w) for width in arch.widths for w in (0, 1, 2)]
        row += [float(arch.resolution == r) for r in range(128, 225, 4)]
        rows.append(row)
    np.testing.assert_array_equal(space.one_hot(space.encode(archs)), rows)


@hypothesis.given(space=any_space(), seed=SEEDS)
def test_one_hot_tells_different_archs_apart(space, seed):
    codes = np.unique(space.sample_codes(30, np.random.default_rng(seed)), axis=0)
    features = space.one_hot(codes)
    assert len(np.unique(features, axis=0)) == len(codes)
    assert set(np.unique(features)) <= {0.0, 1.0}


def test_sizes_are_those_of_the_blueprint():
    space = get_space("ofa_mbv3_tiny")
    arch = Arch((1, 2, 1), (7, 0, 3, 5, 5, 0), (4, 0, 2, 3, 4, 0), 24)
    # Widths in and out: 8-16-16, 16-24-24, 24-40-40; squeeze-excite is a quarter, rounded to 8.
    expected = {
        "stage0_block0": (1, 7, 32, 0, 16),
        "stage0_block1": (0, 0, 0, 0, 0),
        "stage1_block0": (1, 3, 32, 8, 24),
        "stage1_block1": (1, 5, 72, 24, 24),
        "stage2_block0": (1, 5, 96, 24, 40),
        "stage2_block1": (0, 0, 0, 0, 0),
    }
    assert list(space.elastic_rows) == list(expected)
    np.testing.assert_array_equal(space.sizes(arch), list(expected.values()))
    assert space.sizes(arch).dtype == np.int32
    assert space.sizes_shape == (6, 5)


def test_sizes_of_a_resnet():
    """What varies has a row, fixed blocks too; the pools and the classifier follow their inputs."""
    space = get_space("ofa_resnet_tiny")
    choices = {"d": [0, 1, 0], "e": [0.5, 0.25, 0.5, 0.5], "w": [0, 1, 0, 1], "r": 24}
    # Half of the stem's 16, and its 32; stage widths 48 * 0.5 and 96; middle 24 * e and 96 * e,
    # all rounded to multiples of 8, at least 8.
    expected = {
        "stem0": (1, 3, 0, 0, 8),
        "stem1": (0, 0, 0, 0, 0),
        "stem2": (1, 3, 0, 0, 32),
        "stage0_block0": (1, 3, 16, 0, 24),
        "stage0_block1": (1, 3, 8, 0, 24),
        "stage1_block0": (1, 3, 48, 0, 96),
        "stage1_block1": (0, 0, 0, 0, 0),
    }
    assert list(space.elastic_rows) == list(expected)
    np.testing.assert_array_equal(space.sizes(choices), list(expected.values()))


VARYING = {
    "ofa_mbv3_tiny": {
        "first": set(),
        "stage0_block0": {"kernel_size", "mid_channels"},
        "stage0_block1": {"active", "kernel_size", "mid_channels"},
        "stage1_block1": {"active", "kernel_size", "mid_channels", "se_channels"},
        "final_expand": set(),
    },
    "ofa_resnet_tiny": {
        "stem0": {"out_channels"},
        "stem1": {"active", "out_channels"},
        "max_pool": set(),
        "stage1_block0": {"mid_channels", "out_channels"},
        "stage1_block1": {"active", "mid_channels", "out_channels"},
        "classifier": set(),
    },
    "ofa_proxyless_w1.3": {
        "stage0_block1": {"kernel_size", "mid_channels"},
        "stage0_block2": {"active", "kernel_size", "mid_channels"},
        "stage5_block0": {"kernel_size", "mid_channels"},
    },
}


@pytest.mark.parametrize("name", VARYING)
def test_what_varies_of_a_block(name):
    space = get_space(name)
    for restricted in (space, space.restrict(depths=space.depths[-1:])):
        for block, fields in VARYING[name].items():
            varies = restricted.varies(block)
            assert {field for field, several in varies.items() if several} == fields, block


# In ofa_resnet50, as published, two of the stem's inner widths round to the same.
@pytest.mark.parametrize("name", [name for name in list_spaces() if name != "ofa_resnet50"])
def test_each_choice_makes_another_network(name):
    space = get_space(name)
    for codes in (space.encode([space.max()]), space.encode([space.min()])):
        plan = space.blueprint(space.decode(codes)[0])
        for column in range(space.code_length):
            if codes[0, column] == OFF:
                continue
            others = np.repeat(codes, space.num_choices[column], axis=0)
            others[:, column] = np.arange(len(others))
            # What a deeper stage switches on needs a choice.
            others = space.canonical(np.where(others == OFF, 0, others))
            plans = {space.blueprint(arch) for arch in space.decode(others)}
            assert len(plans) == len(others), space.decode(others)
            assert plan in plans


@hypothesis.settings(max_examples=20)
@hypothesis.given(space=any_space(), seed=SEEDS)
def test_what_does_not_vary_is_the_same_in_every_arch(space, seed):
    rng = np.random.default_rng(seed)
    largest = {block.name: block for block in space.root.blueprint(space.root.max()).blocks}
    plan = space.blueprint(space.sample(rng))
    for name, block in largest.items():
        varies = space.varies(name)
        found = next((b for b in plan.blocks if b.name == name), None)
        assert found is not None or varies["active"]
        for field, value in dataclasses.asdict(block.sizes).items():
            if found is not None and block.weighted_layers and not varies[field]:
                assert getattr(found.sizes, field) == value, (name, field)
