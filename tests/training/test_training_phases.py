"""Phases and recipes: learning rates, what each phase opens, and what is refused."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from one_stage import TINY
from training_helpers import PLAIN, recipe

from ofa_tf.errors import UsageError
from ofa_tf.spaces import get_space
from ofa_tf.training.corners import corner_archs, watched_archs
from ofa_tf.training.phases import (
    FINETUNE,
    PHASE_NAMES,
    SANDWICH,
    SCHEDULES,
    SINGLE,
    Phase,
    Teacher,
)
from ofa_tf.training.recipe import Recipe
from ofa_tf.training.sampler import step_archs

W1 = get_space("ofa_mbv3_w1.0")
OPEN = {  # depths, kernel sizes, expand ratios: the table of arXiv 1908.09791
    "largest": ((4,), (7,), (6,)),
    "kernel": ((4,), (3, 5, 7), (6,)),
    "depth1": ((3, 4), (3, 5, 7), (6,)),
    "depth2": ((2, 3, 4), (3, 5, 7), (6,)),
    "expand1": ((2, 3, 4), (3, 5, 7), (4, 6)),
    "expand2": ((2, 3, 4), (3, 5, 7), (3, 4, 6)),
}


@pytest.mark.parametrize("name", OPEN)
def test_phase_opens_the_published_choices(name):
    restricted = Phase(name, 1, 0.1).restrict(W1)
    choices = (restricted.depths, restricted.kernel_sizes, restricted.expand_ratios)
    assert choices == OPEN[name]
    assert restricted.resolutions == W1.resolutions
    assert restricted.max() == W1.max()


RESNET = get_space("ofa_resnet50")
OPEN_RESNET = {  # depths, expand ratios, indices of widths
    "largest": ((2,), (0.35,), (2,)),
    "kernel": ((2,), (0.35,), (2,)),
    "depth1": ((1, 2), (0.35,), (2,)),
    "depth2": ((0, 1, 2), (0.35,), (2,)),
    "expand1": ((0, 1, 2), (0.25, 0.35), (1, 2)),
    "expand2": ((0, 1, 2), (0.2, 0.25, 0.35), (0, 1, 2)),
}


@pytest.mark.parametrize("name", OPEN_RESNET)
def test_widths_open_with_the_expand_ratios(name):
    restricted = Phase(name, 1, 0.1).restrict(RESNET)
    choices = (restricted.depths, restricted.expand_ratios, restricted.widths)
    assert choices == OPEN_RESNET[name]
    assert restricted.max() == RESNET.max()
    # The stem can only be skipped where the least depth is open.
    skips = restricted.min().depths[0] == 0
    assert skips == (0 in restricted.depths)
    # W1 has no widths to restrict.
    assert Phase(name, 1, 0.1).restrict(W1).widths == ()


def test_phases_are_the_published_ones_in_order():
    assert tuple(OPEN) == PHASE_NAMES


def test_each_phase_contains_the_one_before():
    spaces = [Phase(name, 1, 0.1).restrict(W1) for name in PHASE_NAMES]
    for inner, outer in itertools.pairwise(spaces):
        assert outer.arch(inner.min()) == inner.min()
        assert outer.num_subnets > inner.num_subnets
    assert spaces[-1].num_subnets == W1.num_subnets


def test_sorting_and_distillation_by_phase():
    phases = [Phase(name, 1, 0.1, subnets_per_step=2) for name in (*PHASE_NAMES, SANDWICH)]
    assert [p.name for p in phases if p.widens] == ["expand1", "expand2"]
    assert [p.teacher for p in phases] == [
        Teacher.NONE,
        *[Teacher.LARGEST] * 5,
        Teacher.IN_PLACE,
    ]


def test_fine_tuning_is_of_one_subnet_that_learns_from_the_largest():
    phase = Phase(FINETUNE, 1, 0.1)
    assert (phase.teacher, phase.widens) == (Teacher.LARGEST, False)
    arch = TINY.restrict(resolutions=[28]).min()
    made = recipe(phase, resolutions=(28,), arch=arch)
    for step in range(3):
        assert step_archs(phase, TINY, 0, step, made.arch) == [arch]
    assert watched_archs(made, phase, TINY, (28,)) == {"subnet": arch}
    other = recipe(Phase("kernel", 1, 0.1))
    found = watched_archs(other, other.phases[0], TINY, (24,))
    assert found == corner_archs(Phase("kernel", 1, 0.1).restrict(TINY), (24,))


def test_a_single_subnet_has_no_teacher():
    phase, arch = Phase(SINGLE, 1, 0.1), TINY.restrict(resolutions=[28]).min()
    made = recipe(phase, resolutions=(28,), arch=arch)
    assert (made.teacher(phase), phase.widens) == (Teacher.NONE, False)
    assert step_archs(phase, TINY, 0, 3, made.arch) == [arch]
    assert watched_archs(made, phase, TINY, (28,)) == {"subnet": arch}


@pytest.mark.parametrize("name", ["expand2", SANDWICH])
def test_without_distillation_there_is_no_teacher(name):
    phase = Phase(name, 1, 0.1, subnets_per_step=2)
    assert recipe(phase).teacher(phase) is phase.teacher
    assert recipe(phase, kd_ratio=0.0).teacher(phase) is Teacher.NONE


def test_sorting_is_part_of_a_recipe_where_it_is_off():
    phase = Phase("expand2", 1, 0.1)
    assert "sort_channels" not in recipe(phase).to_dict()  # as in those of older jobs
    assert recipe(phase, sort_channels=False).to_dict()["sort_channels"] is False


def test_the_arch_is_part_of_a_recipe_where_there_is_one():
    arch = TINY.restrict(resolutions=[28]).min()
    made = recipe(Phase(FINETUNE, 1, 0.1), resolutions=(28,), arch=arch)
    assert json.loads(json.dumps(made.to_dict()))["arch"] == arch.to_dict()
    assert "arch" not in recipe(Phase("kernel", 1, 0.1)).to_dict()  # as those of older jobs


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        (FINETUNE, {}, "with phase finetune or single, which trains it; got the arch None with"),
        (SINGLE, {}, "with phase finetune or single, which trains it; got the arch None with"),
        ("kernel", {"arch": TINY.min()}, "with phase kernel."),
        (FINETUNE, {"arch": TINY.min()}, "resolutions is the arch's own, 24, not 24, 32."),
    ],
)
def test_an_arch_that_does_not_fit_is_refused(name, changes, expected):
    with pytest.raises(UsageError) as error:
        recipe(Phase(name, 1, 0.1), **changes)
    assert expected in str(error.value)


def test_the_sandwich_opens_all():
    assert Phase(SANDWICH, 1, 0.1, subnets_per_step=2).restrict(W1).num_subnets == W1.num_subnets
    names = {name: (name,) for name in ("growing", "sandwich", "single")}
    assert {"progressive": PHASE_NAMES, **names} == SCHEDULES


@pytest.mark.parametrize("batch_size", [64, 128, 2048])
@pytest.mark.parametrize(("epochs", "warmup"), [(25, 0), (125, 5), (2.5, 0.5)])
def test_learning_rate_is_warmup_then_cosine(batch_size, epochs, warmup):
    steps_per_epoch, base = 20, 0.03
    phase = Phase("kernel", epochs, base, warmup)
    steps = np.arange(phase.num_steps(steps_per_epoch))
    ramp, total = warmup * steps_per_epoch, epochs * steps_per_epoch
    peak = base * batch_size / 64
    cosine = 0.5 * (1 + np.cos(np.pi * (steps - ramp) / (total - ramp)))
    expected = peak * np.where(steps < ramp, (steps + 1) / max(ramp, 1), cosine)
    rates = [phase.learning_rate(int(step), steps_per_epoch, batch_size) for step in steps]
    assert len(steps) == total
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert max(rates) == pytest.approx(peak)
    assert 0 < rates[-1] < 0.02 * peak


def test_warmup_may_take_the_whole_phase():
    rates = [Phase("kernel", 2, 0.1, 2).learning_rate(step, 5, 64) for step in range(10)]
    np.testing.assert_allclose(rates, 0.1 * np.arange(1, 11) / 10)


def test_a_phase_has_at_least_one_step():
    assert Phase("kernel", 0.01, 0.1).num_steps(3) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "width"}, "no phase 'width'; known: largest, kernel, depth1"),
        ({"epochs": 0}, "Phase kernel needs positive epochs"),
        ({"epochs": float("nan")}, "Phase kernel needs positive epochs"),
        ({"epochs": float("inf")}, "not inf"),
        ({"base_lr": -0.1}, "not 5, -0.1"),
        ({"subnets_per_step": 0}, "subnets_per_step, not 5, 0.1 and 0"),
        ({"name": "sandwich"}, "subnets_per_step is at least 2, not 1"),
        ({"name": "finetune", "subnets_per_step": 2}, "subnets_per_step is 1, not 2"),
        ({"warmup_epochs": 6}, "warmup_epochs is from 0 to its 5 epochs, not 6"),
        ({"warmup_epochs": -1}, "not -1"),
        ({"warmup_epochs": float("nan")}, "not nan"),
    ],
)
def test_bad_phase_is_refused(changes, expected):
    fields = {"name": "kernel", "epochs": 5, "base_lr": 0.1} | changes
    with pytest.raises(UsageError) as error:
        Phase(**fields)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["largest", "depth1", "kernel"],
        ["largest", "kernel", "kernel"],
        ["largest", "sandwich"],
        ["sandwich", "sandwich"],
        ["expand2", "finetune"],
    ],
)
def test_bad_order_of_phases_is_refused(names):
    with pytest.raises(UsageError) as error:
        recipe(*(Phase(name, 1, 0.1, subnets_per_step=1 + (name == SANDWICH)) for name in names))
    message = str(error.value)
    assert message.startswith("phases keep the order largest, kernel, depth1, depth2, expand1,")
    assert message.endswith(
        f"or are growing, sandwich, finetune or single alone; got {', '.join(names) or 'none'}."
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kd_loss": "cosine"}, "kd_loss is one of cross_entropy, mse, not 'cosine'."),
        ({"precision": "int8"}, "precision is one of float32, bfloat16, float16, not 'int8'."),
        ({"batch_size": 0}, "batch_size and accumulation_steps are at least 1, not 0 and 1."),
        ({"accumulation_steps": 0}, "not 16 and 0."),
        ({"momentum": 1.0}, "momentum is from 0 to below 1, not 1.0."),
        ({"label_smoothing": -0.1}, "label_smoothing is from 0 to below 1, not -0.1."),
        ({"ema_decay": 1.5}, "ema_decay is from 0 to below 1, not 1.5."),
        ({"weight_decay": -1.0}, "weight_decay is 0 or more, not -1.0."),
        ({"kd_ratio": float("nan")}, "kd_ratio is 0 or more, not nan."),
        ({"clip_norm": float("inf")}, "clip_norm is 0 or more, not inf."),
        ({"mixup_alpha": -0.2}, "mixup_alpha is 0 or more, not -0.2."),
    ],
)
def test_bad_settings_are_refused(changes, expected):
    with pytest.raises(UsageError) as error:
        recipe(Phase("largest", 1, 0.1), **changes)
    assert expected in str(error.value)


def test_precision_names_the_policy():
    policies = [
        recipe(Phase("largest", 1, 0.1), precision=precision).dtype_policy
        for precision in ("float32", "bfloat16", "float16")
    ]
    assert policies == ["float32", "mixed_bfloat16", "mixed_float16"]


CORNERS = [("largest", 1), ("kernel", 2), ("depth1", 4), ("depth2", 4), ("expand1", 8)]


@pytest.mark.parametrize(("name", "per_resolution"), [*CORNERS, ("expand2", 8), ("sandwich", 8)])
@pytest.mark.parametrize("resolutions", [(128, 224), (160,)])
def test_corners_are_the_ends_of_each_open_choice(name, per_resolution, resolutions):
    space = Phase(name, 1, 0.1, subnets_per_step=2).restrict(W1)
    corners = corner_archs(space, resolutions)
    assert len(corners) == per_resolution * len(resolutions)
    for corner, arch in corners.items():
        side, depth, expand, kernel = (part[1:] for part in corner.split("_"))
        assert space.arch(arch) == arch
        uniform = W1.restrict(
            depths=[int(depth)],
            expand_ratios=[int(expand)],
            kernel_sizes=[int(kernel)],
            resolutions=[int(side)],
        )
        assert arch == uniform.max() == uniform.min()
    depths = (space.depths[0], space.depths[-1])
    assert {int(corner.split("_")[1][1:]) for corner in corners} == set(depths)


def test_corners_of_the_published_space_by_name():
    names = [
        f"r{side}_d{depth}_e{expand}_k{kernel}"
        for side in (128, 224)
        for depth in (2, 4)
        for expand in (3, 6)
        for kernel in (3, 7)
    ]
    corners = corner_archs(W1, (224, 128))
    assert list(corners) == names  # from the smallest to the largest
    assert corners[names[-1]] == W1.max()
    assert corners[names[0]] == W1.min()


def test_corners_of_the_tiny_space():
    corners = corner_archs(TINY, (24, 32))
    assert len(corners) == len(set(corners.values())) == 16
    assert TINY.max() in corners.values()
    assert TINY.min() in corners.values()


def test_phases_may_be_left_out():
    names = ("largest", "depth2", "expand2")
    made = Recipe(tuple(Phase(name, 1, 0.1) for name in names), 64, (24,))
    assert [phase.name for phase in made.phases] == list(names)


def test_recipe_is_json():
    made = Recipe((Phase("largest", 1, 0.1),), 64, (24, 32), augmentation=PLAIN)
    read = json.loads(json.dumps(made.to_dict()))
    assert read["phases"][0]["name"] == "largest"
    assert read["augmentation"]["crop_scale_min"] == PLAIN.crop_scale_min
    assert read["resolutions"] == [24, 32]
