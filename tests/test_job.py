"""The job of a workdir, from a script; what it loads is tested with the commands."""

from __future__ import annotations

import pytest
from job_helpers import make_config

import ofa_tf
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_json

SUBNET = {
    "name": "2ms",
    "arch": ofa_tf.get_space("ofa_mbv3_tiny").min().to_dict(),
    "predicted_accuracy": 0.7,
}


@pytest.fixture
def job(tmp_path):
    write_json(tmp_path / "config.json", make_config())
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, "subnet 2: name is missing"),
        ({"predicted_accuracy": None}, "subnet 2: predicted_accuracy is missing"),
        ({"predicted_accuracy": "high"}, "subnet 2: predicted_accuracy is 'high'"),
        ({"arch": None}, "subnet 2: arch is missing"),
        ({"arch": []}, r"subnet 2: arch is \[\]"),
        ({"arch": {"d": [2]}}, r"subnet 2: An arch has the keys ks, e, d and r .* missing: "),
        ({"arch": SUBNET["arch"] | {"r": 31}}, "subnet 2: resolution of ofa_mbv3_tiny at the inp"),
    ],
)
def test_a_subnet_that_lacks_what_is_read_is_named(job, changes, said):
    changed = {key: value for key, value in (SUBNET | changes).items() if value is not None}
    write_json(job.workdir.search_result, {"subnets": [SUBNET, changed]})
    with pytest.raises(FailureError, match=rf"search\.json is damaged: {said}.*run ofa-search aga"):
        job.chosen_subnets()


def test_a_subnet_that_is_none(job):
    write_json(job.workdir.search_result, {"subnets": [SUBNET]})
    assert job.chosen_subnets() == [SUBNET]
    write_json(job.workdir.search_result, {"subnets": [3]})
    with pytest.raises(FailureError, match=r"subnet 1: this is no subnet\."):
        job.chosen_subnets()
