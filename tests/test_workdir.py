"""Workdir: a job's settings are recorded once, and another job's are refused by name."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import append_json
from ofa_tf.workdir import Workdir

CONFIG = {
    "space": "a",
    "data": {"dataset": "ofa_doodles"},
    "class_names": ["cat", "dog"],
    "eval_crop": 1.0,
    "calibration_images": 100,
    "recipe": {"batch_size": 64, "phases": [{"name": "largest", "epochs": 1.0}]},
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
        (CONFIG | {"space": "b"}, 'space was "a", is "b"'),
        (changed(batch_size=32), "recipe.batch_size was 64, is 32"),
        (
            changed(phases=[{"name": "largest", "epochs": 2.0}]),
            "recipe.phases[0].epochs was 1.0, is 2.0",
        ),
        (changed(phases=[]), 'recipe.phases was [{"name": "largest", "epochs": 1.0}], is []'),
        (CONFIG | {"class_names": ["cat", "cow"]}, 'class_names[1] was "dog", is "cow"'),
        (CONFIG | {"new": True}, "new was null, is true"),
    ],
)
def test_other_settings_are_refused_by_name(workdir, config, expected):
    with pytest.raises(UsageError) as error:
        workdir.start(config)
    assert str(error.value) == (
        f"{workdir.path} holds a job with other settings: {expected}. "
        "Give another --workdir, or the same settings to go on with it."
    )
    assert workdir.config() == CONFIG


def test_many_differences_are_cut_short(workdir):
    with pytest.raises(UsageError) as error:
        workdir.start(CONFIG | {f"setting_{i:02d}": i for i in range(20)})
    message = str(error.value)
    assert "setting_07 was null, is 7; 12 more." in message
    assert "setting_08" not in message


def test_no_job_says_what_to_run(tmp_path):
    with pytest.raises(UsageError, match=r"holds no job\. Run ofa-train with this --workdir first"):
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
    assert workdir.latency_table("host", 2).name == "latency_host_float32_2t.json"
    assert not workdir.path.exists()
