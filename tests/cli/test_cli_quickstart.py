"""The whole road with ofa-quickstart, small; then again, when nothing is left to do."""

from __future__ import annotations

import json
import pathlib

import pytest
from cli_helpers import Ended, run

SMALL = (
    "--epochs=4",
    "--warmup_epochs=0",
    "--num_archs=16",
    "--arch_images=200",
    "--latency_min_secs=0.002",
    "--latency_rounds=1",
    "--fit_subnets=4",
    "--check_subnets=4",
    "--latency_resolutions=24,32",
    "--num_budgets=2",
    "--int8_images=50",
    "--test_images=300",
    "--min_agreement=0.5",  # it is hardly trained
    "--bench_min_secs=0.05",
)
SUBNET_FILES = {
    "arch.json",
    "card.json",
    "labels.txt",
    "model.keras",
    "model_float32.tflite",
    "model_int8.tflite",
    "net.config",
    "run.config",
}


def quickstart(workdir: pathlib.Path) -> Ended:
    ended = run("quickstart", f"--workdir={workdir}", *SMALL)
    assert ended.code == 0, ended.err
    return ended


def files(folder: pathlib.Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_quickstart_and_again(tmp_path):
    workdir = tmp_path / "q[u]ick *?,\nstart"  # signs that mean something in patterns and lists
    first = quickstart(workdir)

    expected = {
        "config.json",
        "metrics.jsonl",
        "accuracy_rows.jsonl",
        "accuracy_predictor.npz",
        "accuracy_report.json",
        "latency_host_float32_1t.json",
        "search.json",
        "measurements.jsonl",
        "results.json",
        "report.html",
        "checkpoints/phase_growing.npz",
    }
    left = files(workdir)
    assert expected <= left.keys()
    pictures = [content for name, content in left.items() if name.startswith("pictures/")]
    assert [content[1:4] for content in pictures] == [b"PNG"] * 3
    assert [name for name in left if name.startswith("checkpoints/step_")]
    assert len(left["accuracy_rows.jsonl"].splitlines()) >= 16
    assert not [name for name in left if name.endswith(".tmp")]

    rows = json.loads(left["results.json"])
    assert len(rows) == 2
    assert {row["name"] for row in rows} == {path.name for path in (workdir / "subnets").iterdir()}
    for row in rows:
        folder = workdir / "subnets" / row["name"]
        assert {path.name for path in folder.iterdir()} == SUBNET_FILES
        assert row["predicted_latency_ms"] <= row["budget_ms"]
        assert set(row["accuracy"]) >= {"keras", "tflite_float32", "tflite_int8"}
        # Of 300 images, one may fall on the other side of a tie.
        keras_accuracy = row["accuracy"]["keras"]
        assert keras_accuracy == pytest.approx(row["accuracy"]["tflite_float32"], abs=0.005)
        assert row["delegate_partitions"]["float32"] == 1
        for precision, name in (("float32", "tflite_float32"), ("int8", "tflite_int8")):
            assert row["measured_latency_ms"][precision] > 0
            size = (folder / f"model_{precision}.tflite").stat().st_size
            assert row["file_bytes"][name] == size
        assert row["macs"] > 0
        assert row["params"] > 0
        assert row["resolution"] == row["arch"]["r"]
        assert row["name"] in first.out

    times = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    second = quickstart(workdir)
    # The table comes last; before it stand what TFDS and mobile-bench print.
    assert second.out.splitlines()[-len(rows) :] == first.out.splitlines()[-len(rows) :]
    assert "is there already; remove it to measure anew" in second.err
    assert "The search is done already" in second.err
    assert second.err.count("is exported already") == 2
    redone = {
        path.relative_to(workdir).parts[0]
        for path, time in times.items()
        if path.stat().st_mtime_ns != time
    }
    assert redone <= {
        "results.json",
        "pictures",
        "report.html",
    }  # made anew from what is there, in seconds
    assert files(workdir)["results.json"] == left["results.json"]
    assert files(workdir)["report.html"] == left["report.html"]
    for ended in (first, second):
        assert ended.err.splitlines()[-1].endswith(f"browser: {(workdir / 'report.html').as_uri()}")
