"""ofa-report: what it makes of a job's files, and what it says where one of them cannot serve."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from unittest import mock

import pytest
from cli_helpers import Ended, assert_one_message, run
from job_helpers import make_config
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
    imported = {"checkpoint": "ab12", "new_head": False}
    write_json(tmp_path / "config.json", make_config(TINY.name, recipe=imported))
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


@pytest.fixture
def undrawn():
    """No pictures, which take a second."""
    with mock.patch.multiple(
        "ofa_tf.report", tradeoff_picture=mock.DEFAULT, architectures_picture=mock.DEFAULT
    ):
        yield


def assert_nothing_written(folder: pathlib.Path) -> None:
    assert not {"results.json", "pictures", "report.html"} & {p.name for p in folder.iterdir()}


def assert_page_only(ended: Ended, folder: pathlib.Path, *parts: str) -> None:
    """It wrote the page, and said in a line why there is no table."""
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("There is no table of")]
    assert all(part in line for part in parts), line
    assert (folder / "report.html").read_text().endswith("</html>\n")
    assert not (folder / "results.json").exists()


def test_without_a_predictor_of_the_job_there_is_no_cloud(reported):
    ended = run("report", f"--workdir={reported}")
    assert ended.code == 0, ended.err
    assert "accuracy_predictor.npz is missing, so the pictures have the chosen subnets" in ended.err
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
    page = (reported / "report.html").read_text()
    assert ">62.50<" in page
    assert ended.err.splitlines()[-1] == f"Report: {(reported / 'report.html').as_uri()}"


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"arch": {}, "files": 3}', '{"arch": {}, "files": {"keras": {"file": 3}}}'],
)
def test_a_damaged_card(reported, content):
    (reported / CARD).write_text(content)
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 1, f"{CARD} ", "Run ofa-export again.")
    assert_nothing_written(reported)


def test_a_file_without_its_accuracy(reported):
    card = read_json(reported / CARD)
    del card["files"]["tflite_float32"]["accuracy"]
    (reported / CARD).write_text(json.dumps(card))
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 1, f"{CARD} is damaged: files.tflite_float32.accuracy is missi")
    assert_nothing_written(reported)


def test_a_file_that_is_gone(reported):
    (reported / MODEL).unlink()
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 1, f"{MODEL} is missing. ", "Run ofa-export again.")
    assert_nothing_written(reported)


def test_what_is_not_exported(reported):
    (reported / CARD).unlink()
    ended = run("report", f"--workdir={reported}")
    assert_page_only(ended, reported, f"{CARD} is missing. Run ofa-export first.")


def test_what_was_exported_before_another_search(reported):
    found = read_json(reported / "search.json")
    found["subnets"][0]["arch"] = TINY.max().to_dict()
    write_json(reported / "search.json", found)
    ended = run("report", f"--workdir={reported}")
    assert_page_only(ended, reported, f"{CARD} is of another arch than ", "json has now. Run of")


def test_another_file_than_was_measured(reported):
    (reported / MODEL).write_bytes(b"other")
    ended = run("report", f"--workdir={reported}")
    assert_page_only(ended, reported, f"{MODEL} is not measured in ", "Run mobile-bench on it ")


def search_for(folder: pathlib.Path, table: str) -> None:
    """What ofa-search leaves that was given a budget on the device of a table."""
    found = read_json(folder / "search.json")
    found["settings"] = {"tables": {"latency_ms": {table: "ab"}}}
    found["subnets"][0] |= {"predicted_latency_ms": 99.0, "budget_ms": 100.0}
    found["subnets"][0]["precision"] = "int8"
    write_json(folder / "search.json", found)


@pytest.mark.parametrize(
    ("table", "budget"),
    [("latency_host_float32_1t.json", 100.0), ("latency_R58_int8_2t.json", None)],
)
def test_predictions_are_of_the_device_that_was_measured(reported, undrawn, table, budget):
    search_for(reported, table)
    assert run("report", f"--workdir={reported}").code == 0
    (row,) = read_json(reported / "results.json")
    blocks = TINY.blueprint(TINY.min(), 2).blocks
    assert row["predicted_latency_ms"] == pytest.approx(0.1 * len(blocks))
    assert row["precision"] == "float32"
    assert row.get("budget_ms") == budget


@pytest.mark.parametrize("watched", ["op_profile", "memory"])
def test_what_was_slowed_by_watching_does_not_count(reported, undrawn, watched):
    settings, sha256 = Settings(**{watched: True}), hashlib.sha256(b"model").hexdigest()
    row = measurement(MODEL.name, 900.0, sha256=sha256, settings=settings, date="2026-01-01")
    append_json(reported / "measurements.jsonl", row.to_dict())
    assert run("report", f"--workdir={reported}").code == 0
    (row,) = read_json(reported / "results.json")
    assert row["measured_latency_ms"] == {"float32": 0.25}


def test_a_job_that_was_only_trained(reported):
    shutil.rmtree(reported / "subnets")
    for name in ("search.json", "measurements.jsonl", "latency_host_float32_1t.json"):
        (reported / name).unlink()
    ended = run("report", f"--workdir={reported}")
    assert_page_only(ended, reported, "search.json is missing. Run ofa-search first.")
    assert f"ofa-search --workdir={reported}" in (reported / "report.html").read_text()


def test_no_job(tmp_path):
    ended = run("report", f"--workdir={tmp_path}")
    assert_one_message(ended, 2, "holds no job. Run ofa-train or ofa-import")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("latency_host_float32_1t.json", "The latency table "),
        ("accuracy_predictor.npz", "is no accuracy predictor"),
        ("measurements.jsonl", "line 1: not a measurement"),
        ("search.json", "could not be read as JSON"),
    ],
)
def test_damaged_files_leave_everything_as_it_was(reported, name, told):
    for written in ("results.json", "report.html"):
        (reported / written).write_text("of an earlier run")
    (reported / name).write_text("damaged\n")
    before = {path: path.read_bytes() for path in reported.rglob("*") if path.is_file()}
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 1, told, name)
    assert {path: path.read_bytes() for path in reported.rglob("*") if path.is_file()} == before


def test_a_page_that_cannot_be_written(reported, undrawn):
    (reported / "report.html").mkdir()
    ended = run("report", f"--workdir={reported}")
    assert_one_message(ended, 1, "report.html could not be written: ")


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
def test_rows_of_other_devices_flags_and_days_do_not_count(reported, undrawn, changes):
    sha256 = hashlib.sha256(b"model").hexdigest()
    row = measurement("other.tflite", 999.0, sha256=sha256, **changes)
    append_json(reported / "measurements.jsonl", row.to_dict())
    ended = run("report", f"--workdir={reported}")
    assert ended.code == 0, ended.err
    (row,) = read_json(reported / "results.json")
    assert row["measured_latency_ms"] == {"float32": 0.25}
