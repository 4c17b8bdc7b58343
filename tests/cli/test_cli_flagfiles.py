"""Every flagfile is read and makes a valid recipe; ImageNet's are the published ones."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from absl import flags
from cli_helpers import ROOT, own_flags

from ofa_tf.cli import common, quickstart, train
from ofa_tf.spaces import get_space
from ofa_tf.training.phases import PHASE_NAMES, SCHEDULES, Phase
from ofa_tf.training.recipe import Recipe
from ofa_tf.workdir import _as_flags

FLAGFILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("flags/**/*.flags"))


@contextlib.contextmanager
def read(flagfile: str, command=train):
    """FLAGS as a command has them with a flagfile."""
    with own_flags():
        command.define_flags()
        if command is train:
            common.define_workdir()
        common.parse_flags(["x", "--workdir=unused", f"--flagfile={flagfile}"])
        yield flags.FLAGS


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_there_are_flagfiles():
    assert {"flags/quickstart.flags", "flags/imagenet/ofa_mbv3_w1.0/all.flags"} <= set(FLAGFILES)


@pytest.mark.parametrize("flagfile", FLAGFILES)
def test_flagfile_makes_a_recipe_and_begins_with_its_command(flagfile):
    first = (ROOT / flagfile).read_text().splitlines()[0]
    assert first.startswith("# ofa-")
    preset = flagfile.removeprefix("flags/").removesuffix(".flags")
    assert f"--preset={preset}" in first.split()
    command = quickstart if first.startswith("# ofa-quickstart ") else train
    with read(flagfile, command) as values:
        space = get_space(values.space)
        recipe = train._recipe(space)
        begins_anew = (
            recipe.phases[0].name in ("growing", "largest", "sandwich") or not recipe.kd_ratio
        )
        # A phase alone needs the weights of the one before, whose file its comment names.
        assert begins_anew or "--init=" in (ROOT / flagfile).read_text()
    assert set(recipe.resolutions) <= set(space.resolutions)


def test_imagenet_is_the_published_recipe():
    """arXiv 1908.09791: epochs with their warm-up, learning rates for 64 images a step."""
    with read("flags/imagenet/ofa_mbv3_w1.0/all.flags") as values:
        assert values.dataset == "imagenet2012"
        assert values.space == "ofa_mbv3_w1.0"
        assert values.eval_crop == 0.875
        assert values.calibration_images == 2000
        recipe = train._recipe(get_space(values.space))
    rows = [
        (p.name, p.epochs - p.warmup_epochs, p.warmup_epochs, p.base_lr, p.subnets_per_step)
        for p in recipe.phases
    ]
    assert rows[0] == ("largest", 175, 5, 2.6 / 32, 1)  # 180 in all
    assert rows[1:] == [
        ("kernel", 120, 5, 3e-2, 1),
        ("depth1", 25, 0, 2.5e-3, 2),
        ("depth2", 120, 5, 7.5e-3, 2),
        ("expand1", 25, 0, 2.5e-3, 4),
        ("expand2", 120, 5, 7.5e-3, 4),
    ]
    assert recipe.batch_size == 64 * 32
    assert recipe.resolutions == tuple(range(128, 225, 4))
    assert recipe.momentum == 0.9
    assert recipe.weight_decay == 3e-5
    assert recipe.label_smoothing == 0.1
    assert recipe.kd_ratio == 1.0
    assert recipe.augmentation.crop_scale_min == 0.08
    assert recipe.augmentation.flip
    assert recipe.augmentation.brightness == pytest.approx(32 / 255, abs=1e-5)
    assert recipe.augmentation.saturation == 0.5


def test_defaults_are_the_published_ones():
    with own_flags():
        train.define_flags()
        flags.FLAGS(["x"])
        values = flags.FLAGS.flag_values_dict()
    with read("flags/imagenet/ofa_mbv3_w1.0/all.flags") as written:
        for name in ("momentum", "weight_decay", "label_smoothing", "kd_ratio", "eval_crop"):
            assert values[name] == written[name].value
        recipe = train._recipe(get_space("ofa_mbv3_w1.0"))
        assert tuple(phase.name for phase in recipe.phases) == SCHEDULES["progressive"]


@pytest.mark.parametrize("name", PHASE_NAMES)
def test_an_imagenet_phase_alone_is_that_of_the_whole(name):
    with read("flags/imagenet/ofa_mbv3_w1.0/all.flags") as values:
        whole = train._recipe(get_space(values.space))
    with read(f"flags/imagenet/ofa_mbv3_w1.0/{name}.flags") as values:
        alone = train._recipe(get_space(values.space))
    (phase,) = alone.phases
    assert phase == whole.phases[PHASE_NAMES.index(name)]
    assert dataclasses.replace(alone, phases=whole.phases) == whole


def test_by_default_all_choices_grow_open_in_one_phase():
    with own_flags():
        train.define_flags()
        flags.FLAGS(["x", "--epochs=2", "--base_lr=0.1"])
        recipe = train._recipe(get_space("ofa_mbv3_tiny"))
        assert [phase.name for phase in recipe.phases] == ["growing"]
        grows = recipe.low_resolution_first, recipe.small_subnets_first, recipe.zero_last_gamma
        assert (*grows, recipe.coupling) == (True, True, True, 0.5)
        flags.FLAGS(["x", "--epochs=2", "--base_lr=0.1", "--nosmall_subnets_first", "--coupling=0"])
        recipe = train._recipe(get_space("ofa_mbv3_tiny"))
        grows = recipe.low_resolution_first, recipe.small_subnets_first, recipe.zero_last_gamma
        assert (*grows, recipe.coupling) == (True, False, True, 0.0)


def test_the_phases_say_of_which_schedule_they_are():
    """And none of what the schedule growing does: older command lines mean what they meant."""
    for phases in ("largest,kernel", "sandwich"):
        count = phases.count(",") + 1
        numbers = (f"--{flag}={','.join(['1'] * count)}" for flag in ("epochs", "base_lr"))
        with own_flags():
            train.define_flags()
            flags.FLAGS(["x", f"--phases={phases}", *numbers])
            recipe = train._recipe(get_space("ofa_mbv3_tiny"))
        assert ",".join(phase.name for phase in recipe.phases) == phases
        grows = recipe.low_resolution_first, recipe.small_subnets_first, recipe.zero_last_gamma
        assert (*grows, recipe.coupling) == (False, False, False, 0.0)
        assert recipe.clip_norm == (1.0 if phases == "sandwich" else 0.0)


def test_the_sandwich_has_its_own_defaults():
    """Four subnets a step, gradients clipped at 1 (arXiv 2003.11142)."""
    with own_flags():
        train.define_flags()
        flags.FLAGS(["x", "--schedule=sandwich", "--epochs=2", "--base_lr=0.1"])
        recipe = train._recipe(get_space("ofa_mbv3_tiny"))
    (phase,) = recipe.phases
    assert (phase.name, phase.subnets_per_step, recipe.clip_norm) == ("sandwich", 4, 1.0)
    with own_flags():
        train.define_flags()
        flags.FLAGS(["x", "--phases=largest,kernel", "--epochs=2,1", "--base_lr=0.1,0.1"])
        recipe = train._recipe(get_space("ofa_mbv3_tiny"))
    assert [phase.subnets_per_step for phase in recipe.phases] == [1, 1]
    assert recipe.clip_norm == 0.0


def test_differences_of_recipes_are_told_by_flags_that_exist():
    recipe = Recipe(phases=(Phase("largest", 1, 0.1),), batch_size=1, resolutions=(24,))
    with own_flags():
        train.define_flags()
        assert set(_as_flags(recipe.to_dict())) <= set(flags.FLAGS)
