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
        UsageError, match=r"latency_host_int8_2t\.json is missing\. Run this first: ofa-latency"
    ):
        job.latency_table(threads=2, precision="int8")
    with pytest.raises(UsageError, match=r"search\.json is missing\. Run ofa-search first"):
        job.chosen_subnets()
    job.workdir.search_result.write_text("[]")
    with pytest.raises(FailureError, match=r"search\.json could not be read as JSON: exp"):
        job.chosen_subnets()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, r"subnets\[1\].name is missing"),
        ({"predicted_accuracy": None}, r"subnets\[1\].predicted_accuracy is missing"),
        ({"predicted_accuracy": "high"}, r"subnets\[1\].predicted_accuracy is no number but 'hi"),
        ({"arch": None}, r"subnets\[1\].arch is missing"),
        ({"arch": []}, r"subnets\[1\].arch is no object but \[\]"),
        ({"arch": {"d": [2]}}, r"subnets\[1\].arch: An arch has the keys ks, e, d and r .*sing: "),
        (
            {"arch": SUBNET["arch"] | {"r": 31}},
            r"subnets\[1\].arch: resolution of ofa_mbv3_tiny",
        ),
    ],
)
def test_a_subnet_that_lacks_what_is_read_is_named(job, changes, said):
    changed = {key: value for key, value in (SUBNET | changes).items() if value is not None}
    write_json(job.workdir.search_result, {"subnets": [SUBNET, changed]})
    with pytest.raises(FailureError, match=rf"search\.json is damaged: {said}.*run ofa-search aga"):
        job.chosen_subnets()


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../evil",
        "a/b",
        "",
        " ",
        ".hidden",
        "-rf",
        "a\0b",
        "a\x1b[31mb",
        "a\u202eb",
        "x" * 300,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(job, name):
    """It becomes a folder of ofa-export and of ofa-finetune, and is printed."""
    write_json(job.workdir.search_result, {"subnets": [SUBNET | {"name": name}]})
    for read in (job.chosen_subnets, lambda: job.chosen_subnet(name), lambda: job.finetuned(name)):
        with pytest.raises(
            FailureError, match=r"subnets\[0\].name is called .*, but a name "
        ) as error:
            read()
        assert str(error.value).isprintable()


def test_an_arch_may_be_spelled_otherwise(job):
    spelled = {("image_size" if key == "r" else key): v for key, v in SUBNET["arch"].items()}
    write_json(job.workdir.search_result, {"subnets": [SUBNET | {"arch": spelled}]})
    assert job.chosen_subnets() == [SUBNET]


def test_two_subnets_of_one_name(job):
    write_json(job.workdir.search_result, {"subnets": [SUBNET, SUBNET]})
    with pytest.raises(FailureError, match="it has two subnets of one name"):
        job.chosen_subnets()


def test_a_subnet_that_is_none(job):
    write_json(job.workdir.search_result, {"subnets": [SUBNET]})
    assert job.chosen_subnets() == [SUBNET]
    write_json(job.workdir.search_result, {"subnets": [3]})
    with pytest.raises(FailureError, match=r"damaged: subnets\[0\] is no object but 3\."):
        job.chosen_subnets()
