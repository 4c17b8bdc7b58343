"""ofa-report: what it makes of a job's files, and one message where one of them cannot serve."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest
from cli_helpers import assert_one_message, run
from search_helpers import measurement

from mobile_bench.results import Device, Settings
from ofa_tf.files import append_json, read_json, write_json
from ofa_tf.search import LatencyTable
from ofa_tf.search.latency import distinct_blocks
from ofa_tf.spaces import get_space

TINY = get_space("ofa_mbv3_tiny")
CARD = pathlib.Path("subnets", "small", "card.json")
MODEL = CARD.with_name("model_float32.tflite")


@pytest.fixture
def reported(tmp_path) -> pathlib.Path:
    """A job of which one subnet was searched with a given predictor, exported and measured."""
    config = {
        "space": TINY.name,
        "data": None,
        "class_names": ["cat", "dog"],
        "eval_crop": 1.0,
        "calibration_images": 8,
        "recipe": {},
    }
    write_json(tmp_path / "config.json", config)
    arch = TINY.min().to_dict()
    subnet = {"name": "small", "arch": arch, "predicted_accuracy": 0.7}
    write_json(tmp_path / "search.json", {"settings": {}, "subnets": [subnet]})
    blocks = dict.fromkeys(distinct_blocks(TINY, 2, TINY.resolutions), 0.1)
    table = LatencyTable(TINY, 2, TINY.resolutions, blocks, overhead_ms=0.0)
    table.save(tmp_path / "latency_host_float32_1t.json")
    file = {"file": MODEL.name, "bytes": 5, "accuracy": 0.625}
    write_json(tmp_path / CARD, {"arch": arch, "files": {"tflite_float32": file}})
    (tmp_path / MODEL).write_bytes(b"model")
    sha256 = hashlib.sha256(b"model").hexdigest()
    for index, median_us in enumerate((240.0, 250.0, 252.0)):
        row = measurement(MODEL.name, median_us, sha256=sha256, round=index).to_dict()
        append_json(tmp_path / "measurements.jsonl", row)
    return tmp_path


def test_without_a_predictor_of_the_job_there_is_no_cloud(reported):
    ended = run("report", f"--workdir={reported}")
    assert ended.code == 0, ended.err
    assert "accuracy_predictor.npz is missing, so the picture has the chosen subnets" in ended.err
    assert {path.name for path in (reported / "pictures").iterdir()} == {
        "architectures.png",
        "pareto.png",
    }
    (row,) = read_json(reported / "results.json")
    assert row["accuracy"] == {"tflite_float32": 0.625}
    assert row["file_bytes"] == {"tflite_float32": 5}
    assert row["measured_latency_ms"] == {"float32": 0.25}
    blocks = TINY.blueprint(TINY.min(), 2).blocks
    assert row["predicted_latency_ms"] == pytest.approx(0.1 * len(blocks))
    assert "small" in ended.out
    assert "62.5" in ended.out


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"arch": {}, "files": 3}', '{"arch": {}, "files": {"keras": {"file": 3}}}'],
)
def test_a_damaged_card(reported, content):
    (reported / CARD).write_text(content)
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 1, f"{CARD} is damaged: ", "Run ofa-export again.")


def test_a_file_without_its_accuracy(reported):
    card = read_json(reported / CARD)
    del card["files"]["tflite_float32"]["accuracy"]
    (reported / CARD).write_text(json.dumps(card))
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 1, f"{CARD} is damaged: it does not tell the arch, or name, bytes")


def test_what_is_not_exported(reported):
    (reported / MODEL).unlink()
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 1, f"{MODEL} could not be read: ", "Run ofa-export again.")
    (reported / CARD).unlink()
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 2, f"{CARD} is missing. Run ofa-export first.")


def test_what_was_exported_before_another_search(reported):
    found = read_json(reported / "search.json")
    found["subnets"][0]["arch"] = TINY.max().to_dict()
    write_json(reported / "search.json", found)
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 2, f"{CARD} is of another arch than ", "search.json has now. Run of")
    assert not (reported / "results.json").exists()


def test_another_file_than_was_measured(reported):
    (reported / MODEL).write_bytes(b"other")
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 2, f"{MODEL} is not measured in ", "Run mobile-bench on it first.")


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": Settings(threads=2)},
        {"settings": Settings(cpus="big")},
        {"settings": Settings(delegate="cpu")},
        {"device": Device("R58", "R58", "", "", "", "", "", (), ())},
        {"date": "2024-12-31T00:00:00+00:00"},
    ],
)
def test_rows_of_other_devices_flags_and_days_do_not_count(reported, changes):
    sha256 = hashlib.sha256(b"model").hexdigest()
    row = measurement("other.tflite", 999.0, sha256=sha256, **changes)
    append_json(reported / "measurements.jsonl", row.to_dict())
    ended = run("report", f"--workdir={reported}")
    assert ended.code == 0, ended.err
    (row,) = read_json(reported / "results.json")
    assert row["measured_latency_ms"] == {"float32": 0.25}
