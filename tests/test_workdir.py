"""Workdir: a job's settings are recorded once, and another job's are refused by name."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import append_json
from ofa_tf.workdir import Workdir

PHASES = [{"name": "largest", "epochs": 1.0}, {"name": "kernel", "epochs": 0.5}]
CONFIG_DATA = {"dataset": "ofa_doodles", "flip": None, "seed": 0}
CONFIG = {
    "space": "a",
    "data": CONFIG_DATA,
    "class_names": ["cat", "dog"],
    "eval_crop": 1.0,
    "calibration_images": 100,
    "init": None,
    "recipe": {
        "batch_size": 64,
        "phases": PHASES,
        "augmentation": {"flip": True},
        "seed": 0,
    },
}


def changed(**recipe) -> dict:
    return CONFIG | {"recipe": CONFIG["recipe"] | recipe}


@pytest.fixture
def workdir(tmp_path) -> Workdir:
    workdir = Workdir(tmp_path / "job")
    workdir.start(CONFIG)
    return workdir


def test_start_records_the_settings(workdir):
    assert workdir.config() == CONFIG


def test_settings_without_a_key_are_damaged(workdir):
    workdir.config_file.write_text(json.dumps({"space": "a"}))
    with pytest.raises(FailureError, match=r"is damaged: .*data, eval_crop, recipe are missing"):
        workdir.config()


def test_start_again_with_the_same_settings_goes_on(workdir):
    before = os.stat(workdir.config_file).st_mtime_ns
    workdir.start(CONFIG | {"class_names": ("cat", "dog")})  # a tuple is a list in JSON
    assert os.stat(workdir.config_file).st_mtime_ns == before


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CONFIG | {"space": "b"}, "--space was a, is b"),
        (changed(batch_size=32), "--batch_size was 64, is 32"),
        (changed(phases=[PHASES[0] | {"epochs": 2.0}, PHASES[1]]), "--epochs was 1,0.5, is 2,0.5"),
        (
            changed(phases=PHASES[:1]),
            "--epochs was 1,0.5, is 1; --phases was largest,kernel, is largest",
        ),
        (CONFIG | {"class_names": ["cat", "cow"]}, "--class_names was cat,dog, is cat,cow"),
        (CONFIG | {"init": "a.npz"}, "--init was not given, is a.npz"),
        (CONFIG | {"data": CONFIG["data"] | {"flip": True}}, "--flip was not given, is True"),
        (CONFIG | {"data": CONFIG["data"] | {"seed": 1}}, "--seed was 0, is 1"),
    ],
)
def test_other_settings_are_refused_by_their_flags(workdir, config, expected):
    with pytest.raises(UsageError) as error:
        workdir.start(config)
    assert str(error.value) == (
        f"{workdir.path} holds a job with other settings: {expected}. Give another --workdir, or "
        "the same settings to go on with it; in ofa-train the recipe may change with "
        "--allow_recipe_change."
    )
    with pytest.raises(UsageError):
        workdir.check(config)
    assert workdir.config() == CONFIG


def test_the_recipe_may_change_where_it_is_allowed(workdir):
    new = changed(batch_size=32, phases=[PHASES[0] | {"epochs": 2.0}])
    workdir.start(new, allow_recipe_change=True)
    assert workdir.config() == new


@pytest.mark.parametrize(
    "others",
    [
        {"space": "b"},
        {"data": CONFIG_DATA | {"dataset": "cifar10"}},
        # Of the recipe too, but it decides which images are held out.
        {"data": CONFIG_DATA | {"seed": 1}},
        {"class_names": ["cat", "cow"]},
        {"init": "a.npz"},
    ],
)
def test_nothing_else_may_change(workdir, others):
    new = changed(batch_size=32, seed=others.get("data", {}).get("seed", 0)) | others
    with pytest.raises(UsageError, match="holds a job with other settings: --") as error:
        workdir.start(new, allow_recipe_change=True)
    assert "batch_size" not in str(error.value)
    assert workdir.config() == CONFIG


def test_check_writes_nothing(tmp_path):
    workdir = Workdir(tmp_path / "job")
    workdir.check(CONFIG)
    assert not workdir.path.exists()


def test_many_differences_are_cut_short(workdir):
    with pytest.raises(UsageError) as error:
        workdir.start(CONFIG | {f"setting_{i:02d}": i for i in range(20)})
    message = str(error.value)
    assert "--setting_07 was not given, is 7; 12 more." in message
    assert "setting_08" not in message


def test_a_long_setting_is_cut_short(workdir):
    with pytest.raises(UsageError, match=r"is x{57}\.\.\.\. Give another"):
        workdir.start(CONFIG | {"space": "x" * 99})


def test_no_job_says_what_to_run(tmp_path):
    with pytest.raises(UsageError, match=r"holds no job\. Run ofa-train or ofa-import with this"):
        Workdir(tmp_path / "nothing").config()


def test_damaged_settings_are_a_failure(workdir):
    workdir.config_file.write_text('{"space": ')
    with pytest.raises(FailureError, match=r"config\.json could not be read as JSON"):
        workdir.config()


def test_append_adds_lines(workdir):
    append_json(workdir.metrics, {"a": 1})
    append_json(workdir.metrics, {"b": [2]})
    lines = workdir.metrics.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"b": [2]}]


def test_append_to_a_full_disk_is_one_failure(workdir):
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(FailureError, match=r"^/dev/full could not be written: No space left"):
        append_json(full, {"a": 1})


def test_nothing_is_written_by_looking(tmp_path):
    workdir = Workdir(tmp_path / "job")
    assert workdir.latency_table("host", 2, "float32").name == "latency_host_float32_2t.json"
    assert not workdir.path.exists()
