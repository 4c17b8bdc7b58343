"""The job of a workdir, from a script; what it loads is tested with the commands."""

from __future__ import annotations

import pytest

import ofa_tf
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_json

CONFIG = {
    "space": "ofa_mbv3_tiny",
    "data": None,
    "class_names": ["cat", "dog"],
    "eval_crop": 1.0,
    "calibration_images": 8,
    "recipe": {},
}


@pytest.fixture
def job(tmp_path):
    write_json(tmp_path / "config.json", CONFIG)
    return ofa_tf.load_job(tmp_path)


def test_what_needs_no_files(job, tmp_path):
    assert job.space == ofa_tf.get_space("ofa_mbv3_tiny")
    assert job.class_names == ("cat", "dog")
    assert job.workdir.path == tmp_path


def test_a_folder_without_a_job(tmp_path):
    with pytest.raises(UsageError, match="holds no job"):
        ofa_tf.load_job(tmp_path)


def test_what_is_missing_is_named(job):
    with pytest.raises(UsageError, match="has no images, which this command needs"):
        _ = job.data
    with pytest.raises(
        UsageError, match=r"latency_host_int8_2t\.json is missing\. Run ofa-latency"
    ):
        job.latency_table(threads=2, precision="int8")
    with pytest.raises(UsageError, match=r"search\.json is missing\. Run ofa-search first"):
        job.chosen_subnets()
    job.workdir.search_result.write_text("[]")
    with pytest.raises(FailureError, match=r"search\.json is damaged"):
        job.chosen_subnets()
