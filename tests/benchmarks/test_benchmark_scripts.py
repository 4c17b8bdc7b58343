"""The benchmark scripts run to their end and print what they are for; the numbers do not matter."""

from __future__ import annotations

import csv
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ("--resolution=32", "--batch_size=8", "--repeats=2")

pytestmark = pytest.mark.slow


def run(script: str, *args: str) -> str:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *args],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        ("ofa_mbv3_tiny", "float32"),
        ("ofa_mbv3_tiny", "bfloat16"),
        ("ofa_resnet_tiny", "float32"),
    ],
)
def test_train_step(tmp_path, space, dtype):
    table = tmp_path / "rows.csv"
    args = [f"--space={space}", "--archs=2", f"--dtype={dtype}", f"--output={table}"]
    if importlib.util.find_spec("torch") and importlib.util.find_spec("ofa"):
        args.append("--reference")
    run("train_step.py", *SMALL, *args)
    with open(table, newline="") as file:
        rows = {row[0]: row[1:] for row in csv.reader(file)}
    assert rows["traces of the step"][0] == "1"
    speeds = [float(rows[f"{name}, images/s"][0].split()[0]) for name in ("largest", "smallest")]
    assert all(speed > 0 for speed in speeds)


@pytest.mark.parametrize("space", ["ofa_mbv3_tiny", "ofa_resnet_tiny"])
def test_elastic_forms(space):
    lines = run("elastic_forms.py", f"--space={space}", *SMALL).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["largest", "random", "smallest"]


def published() -> pathlib.Path:
    """The folder of the published predictors, where the reference is there to compare with."""
    pytest.importorskip("torch")
    pytest.importorskip("ofa")
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the published networks are not at hand")
    return pathlib.Path(os.environ["OFA_SHARED"], "data", "published")


@pytest.mark.reference
def test_predictors():
    lines = run("predictors.py", f"--published={published()}", "--archs=50", "--repeats=2")
    rows = [line.split() for line in lines.splitlines()[1:]]
    assert [row[0] for row in rows] == ["accuracy", "latency"]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)


@pytest.mark.reference
def test_search():
    folder = f"--published={published()}"
    options = ("--budgets=25,45", "--reference_budgets=45", "--seeds=1", "--many=3", "--repeats=1")
    speed, _, *rows, many = run("search.py", folder, *options).splitlines()
    assert float(speed.split()[-1]) > 0
    for row, budget in zip([row.split() for row in rows], ("25", "45"), strict=True):
        assert row[0] == budget
        accuracies = [float(value) for value in row[1:4]]
        assert np.isnan(accuracies[0]) == (budget == "25")
        assert all(0.7 < value < 0.9 for value in accuracies if not np.isnan(value))
    assert many.startswith("3 budgets in ")


def test_export_formats(tmp_path):
    args = [f"--output={tmp_path}", "--spaces=ofa_mbv3_tiny", "--random=0", "--rounds=1"]
    printed = run("export_formats.py", *args, "--files=float32-cpu,int8-cpu", "--no-keras")
    files, seconds = printed.split("\n\n")
    rows = [line.split(" | ") for line in files.splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [
        (f"| ofa_mbv3_tiny.{which}", precision)
        for which in ("largest", "smallest")
        for precision in ("float32", "int8")
    ]
    assert {row[5] for row in rows} == {"1"}  # one partition each
    rows = [line.strip("| ").split(" | ") for line in seconds.splitlines()[2:]]
    assert [row[0] for row in rows] == ["ofa_mbv3_tiny.largest", "ofa_mbv3_tiny.smallest"]
    for _, *parts, total in rows:
        assert sum(map(float, parts)) == pytest.approx(float(total), abs=0.02)
        assert float(total) > 0
