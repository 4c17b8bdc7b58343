"""Curriculum: what grows in the course of a phase, and the clock of what its steps cost."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from one_stage import TINY
from training_helpers import recipe

from ofa_tf.errors import UsageError
from ofa_tf.spaces import get_space
from ofa_tf.training.curriculum import Curriculum
from ofa_tf.training.phases import GROWING, PHASE_NAMES, SINGLE, Phase

GROWS = {"low_resolution_first": True, "small_subnets_first": True}
CIFAR = get_space("ofa_mbv3_cifar")


def curriculum(space, made, steps_per_epoch=100):
    return Curriculum(made.phases[0], made, space, 10, steps_per_epoch)


def growing(space=CIFAR, epochs=10.0, **changes):
    """Of a space at all of its resolutions."""
    phase = Phase(GROWING, epochs, 0.1)
    return recipe(phase, resolutions=space.resolutions, **(GROWS | changes))


def stages(made, of) -> list[tuple]:
    """For each stage: pixels, and the open depths, expand ratios and kernels."""
    spaces = [of.space(start) for start, _ in of.resolutions()]
    pixels = [choices for _, choices in of.resolutions()]
    return [
        (*each, s.depths, s.expand_ratios, s.kernel_sizes)
        for each, s in zip(zip(pixels), spaces, strict=True)
    ]


def test_small_subnets_and_low_resolutions_come_first():
    made = growing()
    assert stages(made, curriculum(CIFAR, made)) == [
        ((16,), (1,), (2, 3), (3,)),
        ((16,), (1, 2), (2, 3, 4), (3, 5)),
        ((20,), (1, 2), (2, 3, 4), (3, 5, 7)),
        ((20,), (1, 2, 3), (2, 3, 4), (3, 5, 7)),
        ((24, 28, 32), (1, 2, 3), (2, 3, 4), (3, 5, 7)),
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"small_subnets_first": False},
            [((16,), (1, 2, 3)), ((20,), (1, 2, 3)), ((24, 28, 32), (1, 2, 3))],
        ),
        (
            {"low_resolution_first": False},
            [((24, 28, 32), depths) for depths in ((1,), (1, 2), (1, 2), (1, 2, 3))],
        ),
        (
            {"low_resolution_first": False, "small_subnets_first": False},
            [((24, 28, 32), (1, 2, 3))],
        ),
    ],
)
def test_each_kind_of_growth_can_be_left_out(changes, expected):
    made = growing(**changes)
    assert [each[:2] for each in stages(made, curriculum(CIFAR, made))] == expected


def test_width_multipliers_grow_with_the_expand_ratios():
    resnet = get_space("ofa_resnet50")
    made = growing(resnet)
    of = curriculum(resnet, made)
    assert [of.space(start).widths for start, _ in of.resolutions()] == [
        (0, 1),
        *[(0, 1, 2)] * 4,
    ]


@hypothesis.given(
    epochs=st.floats(0.01, 50),
    low=st.booleans(),
    small=st.booleans(),
    batch_size=st.sampled_from([1, 16, 128]),
    space=st.sampled_from([TINY, CIFAR]),
)
@hypothesis.settings(max_examples=30)
def test_the_clock_runs_from_the_first_step_to_the_last(epochs, low, small, batch_size, space):
    made = growing(
        space,
        epochs,
        low_resolution_first=low,
        small_subnets_first=small,
        batch_size=batch_size,
    )
    of = curriculum(space, made)
    assert of.num_steps == made.phases[0].num_steps(100)
    clock = np.array([of.clock(step) for step in range(of.num_steps + 1)])
    assert clock[0] == 0
    assert clock[-1] == pytest.approx(of.num_steps)
    assert np.all(np.diff(clock) > 0)
    starts = [start for start, _ in of.resolutions(7)]
    assert starts == sorted(starts)
    assert starts[0] == 7


def test_the_clock_goes_by_what_is_computed():
    """Against the mean MACs of other subnets, drawn here, and the cost of updating the weights."""
    made = growing(epochs=100, batch_size=128)
    of = curriculum(CIFAR, made)
    rng, costs = np.random.default_rng(7), []
    for start, pixels in of.resolutions():
        archs = of.space(start).decode(of.space(start).sample_codes(200, rng))
        macs = [
            CIFAR.family.blueprint(type(arch)(**{**vars(arch), "resolution": side}), 10).macs
            for arch in archs
            for side in pixels
        ]
        costs.append(128 * np.mean(macs) + 170 * CIFAR.blueprint(CIFAR.max(), 10).params)
    pace = [of.clock(start + 1) - of.clock(start) for start, _ in of.resolutions()]
    assert np.array(pace) / pace[-1] == pytest.approx(np.array(costs) / costs[-1], rel=0.1)
    begins = np.array([of.clock(start) for start, _ in of.resolutions()]) / of.num_steps
    assert begins == pytest.approx([0, 0.2, 0.4, 0.45, 0.6], abs=0.001)


def test_one_learning_rate_schedule_without_resets():
    made = growing(epochs=20)
    of = curriculum(CIFAR, made)
    phase = Phase(GROWING, 20, 0.1, warmup_epochs=0.4)
    rates = [phase.learning_rate(of.clock(step), 100, 64) for step in range(of.num_steps)]
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(0.1, rel=0.03)
    assert np.all(np.diff(rates[:peak]) > 0)
    assert np.all(np.diff(rates[peak:]) <= 0)
    assert np.abs(np.diff(rates[peak:])).max() < 0.001
    assert rates[-1] < 1e-5


@pytest.mark.parametrize("name", PHASE_NAMES)
def test_phases_of_progressive_shrinking_do_not_grow(name):
    phase = Phase(name, 2, 0.1)
    of = curriculum(TINY, recipe(phase))
    for step in (0, 1, 77, 199):
        assert of.space(step) == phase.restrict(TINY)
        assert of.clock(step) == step  # exactly: the rates of older jobs are what they were
    assert of.resolutions(300) == ((300, (24, 32)),)


def test_a_single_subnet_may_begin_with_low_resolutions():
    arch = CIFAR.restrict(resolutions=[28]).min()
    made = recipe(Phase(SINGLE, 1, 0.1), resolutions=(28,), arch=arch, low_resolution_first=True)
    of = curriculum(CIFAR, made)
    assert [pixels for _, pixels in of.resolutions()] == [(20,), (24,), (28,)]


@pytest.mark.parametrize(
    ("name", "field", "known"),
    [
        ("largest", "low_resolution_first", "growing or single"),
        ("kernel", "small_subnets_first", "growing"),
    ],
)
def test_what_does_not_grow_is_refused(name, field, known):
    with pytest.raises(UsageError, match=f"{field} goes with phase {known}, not with {name}."):
        recipe(Phase(name, 1, 0.1), **{field: True})


def work(*phases, space=CIFAR, **changes):
    made = recipe(*phases, resolutions=space.resolutions, batch_size=64, **changes)
    return [Curriculum(phase, made, space, 10, 100).work() for phase in phases]


def macs(arch, space=CIFAR):
    """The mean over the space's resolutions."""
    each = (space.restrict(resolutions=[side]) for side in space.resolutions)
    archs = [type(arch)(**{**vars(arch), "resolution": own.resolutions[0]}) for own in each]
    return np.mean([space.blueprint(own, 10).macs for own in archs])


def test_work_is_counted_for_all_images_of_a_phase():
    first, second = work(Phase("largest", 2, 0.1), Phase("kernel", 1, 0.1, subnets_per_step=2))
    largest = 64 * 100 * macs(CIFAR.max())
    # 100 subnets do not share out equally to three resolutions.
    assert first.subnets == pytest.approx(2 * largest, rel=0.01)
    assert first.teacher == 0
    step = 170 * CIFAR.blueprint(CIFAR.max(), 10).params
    assert first.steps == 200 * step
    assert second.teacher == pytest.approx(largest)
    assert 0.8 < second.subnets / (2 * largest) < 0.95
    assert second.steps == 200 * step  # two subnets in each of 100 steps
    assert first.cost == first.subnets + first.steps
    assert second.cost == pytest.approx(second.subnets + largest / 3 + 200 * step)
    assert second.flops == pytest.approx(6 * second.subnets + 2 * largest)


def test_work_of_an_untaught_phase_and_of_the_sandwich():
    phase = Phase("kernel", 1, 0.1)
    (untaught,) = work(phase, kd_ratio=0.0)
    assert untaught.teacher == 0
    (both,) = work(Phase("sandwich", 1, 0.1, subnets_per_step=2))
    ends = 64 * 100 * (macs(CIFAR.max()) + macs(CIFAR.min()))
    assert both.subnets == pytest.approx(ends)
    assert both.teacher == 0  # it is one of the step's subnets
    (more,) = work(Phase("sandwich", 1, 0.1, subnets_per_step=4))
    (open_to_all,) = work(Phase("expand2", 1, 0.1, subnets_per_step=2), kd_ratio=0.0)
    assert more.subnets == pytest.approx(ends + open_to_all.subnets)


def test_the_work_of_a_phase_that_grows_goes_by_its_clock():
    """A step of its last stage, in which all is open, costs as a step of a phase without growth."""
    (grows,) = work(Phase(GROWING, 10, 0.1), **GROWS)
    (does_not,) = work(Phase(GROWING, 10, 0.1))
    of = curriculum(CIFAR, growing(epochs=10, batch_size=64))
    pace = of.clock(of.num_steps) - of.clock(of.num_steps - 1)
    assert pace > 1.5
    assert does_not.cost / grows.cost == pytest.approx(pace)
