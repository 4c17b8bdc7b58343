"""The benchmark scripts run to their end and print what they are for; the numbers do not matter."""

from __future__ import annotations

import csv
import importlib.util
import os
import pathlib
import subprocess
import sys

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


@pytest.mark.reference
def test_predictors():
    pytest.importorskip("torch")
    pytest.importorskip("ofa")
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the published networks are not at hand")
    published = pathlib.Path(os.environ["OFA_SHARED"], "data", "published")
    lines = run("predictors.py", f"--published={published}", "--archs=50", "--repeats=2")
    rows = [line.split() for line in lines.splitlines()[1:]]
    assert [row[0] for row in rows] == ["accuracy", "latency"]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)
