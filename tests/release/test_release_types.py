"""A program that uses the installed packages: mypy knows their types, and finds wrong uses."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

RIGHT = """\
import mobile_bench
import numpy as np
import ofa_tf
from ofa_tf.search import AccuracyPredictor, LatencyTable, SearchResult, evolve

space: ofa_tf.SearchSpace = ofa_tf.get_space(ofa_tf.list_spaces()[0])
arch: ofa_tf.Arch = space.sample(np.random.default_rng(0))
plan: ofa_tf.Blueprint = space.blueprint(arch)
millions: float = plan.macs / 1e6 + plan.params / 1e6
supernet = ofa_tf.Supernet(space, num_classes=10)
ofa_tf.interop.load_checkpoint(supernet, "checkpoint.pth")
published: ofa_tf.Blueprint = ofa_tf.interop.read_net_config("net.config")
table: LatencyTable = ofa_tf.search.LatencyTable.load("latency.json")
predictor: AccuracyPredictor = AccuracyPredictor.load("accuracy_predictor.npz", space)
result: SearchResult = evolve(space, predictor, {"latency_ms": (table, 25.0)}, seed=0)
best: ofa_tf.Arch = result.candidates[0].arch
job_space: ofa_tf.SearchSpace = ofa_tf.load_job("runs/quickstart").space
rows: list[mobile_bench.Measurement] = mobile_bench.measure(["a.tflite"], target="host")
medians: list[float] = [summary.median_us for summary in mobile_bench.summarize(rows)]
ok: bool = mobile_bench.read_run("", "", 0).ok
version: str = ofa_tf.__version__
"""
WRONG = {
    "ofa_tf.get_space(3)": "arg-type",
    "ofa_tf.Supernet(num_classes=10)": "call-arg",
    "ofa_tf.load_job('runs/quickstart').weights": "attr-defined",
    "ofa_tf.interop.load_checkpoint(space, 'checkpoint.pth')": "arg-type",
    "mobile_bench.measure(['a.tflite'], rounds='three')": "arg-type",
}


def test_mypy_knows_the_public_face(programs, tmp_path):
    """It takes what is right, in its strict mode, and names what is wrong, by line."""
    first = len(RIGHT.splitlines()) + 1
    (tmp_path / "program.py").write_text(RIGHT + "\n".join(WRONG) + "\n")
    options = ["--strict", "--python-executable", programs / "python", "--cache-dir=cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, options), "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    found = re.findall(r"^program\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    expected = [(str(line), code) for line, code in enumerate(WRONG.values(), first)]
    assert found == expected, done.stdout + done.stderr
