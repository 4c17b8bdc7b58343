"""The scripts run to their end and record what they are for; the numbers do not matter."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
from records import Record, from_json

from ofa_tf.files import read_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ("--resolution=32", "--batch_size=8", "--repeats=2")

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    """Runs a script with flags and gives its records, by case and unit."""

    def run_script(script: str, *args: str) -> dict[tuple[str, str], Record]:
        table = tmp_path / "records.json"
        ended = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / script), *args, f"--records={table}"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        records = [from_json(row) for row in read_json(table)]
        assert all(record.case in ended.stdout for record in records)
        return {(record.case, record.unit): record for record in records}

    return run_script


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        ("ofa_mbv3_tiny", "float32"),
        ("ofa_mbv3_tiny", "bfloat16"),
        ("ofa_resnet_tiny", "float32"),
    ],
)
def test_train_step(run, space, dtype):
    args = [f"--space={space}", "--archs=2", f"--dtype={dtype}"]
    has_reference = all(map(importlib.util.find_spec, ("torch", "ofa")))
    if has_reference:
        args.append("--reference")
    found = run("train_step.py", *SMALL, *args)
    assert found["traces of the step", ""].ours == (1,)
    for case in ("largest", "smallest", "2 random archs"):
        record = found[f"train step, {case}", "images/s"]
        assert len(record.ours) == 2
        assert min(record.ours) > 0
        assert len(record.ratios) == (2 if has_reference else 0)
    # A pair for each arch, of seconds.
    assert len(found["train step, random arch", "s"].ratios) == 2
    assert bool(found["peak memory", "MB"].ratios) == has_reference


@pytest.mark.parametrize("space", ["ofa_mbv3_tiny", "ofa_resnet_tiny"])
def test_elastic_forms(run, space):
    found = run("elastic_forms.py", f"--space={space}", *SMALL)
    assert list(found) == [
        (f"train step, {case}, {form}", "images/s")
        for case in ("largest", "random", "smallest")
        for form in ("mask", "mask, XLA")
    ]
    assert all(record.against == "slice" for record in found.values())


def test_input_pipeline(run):
    spaces = ("--photo_space=ofa_mbv3_tiny", "--small_space=ofa_mbv3_tiny")
    flags = ("--train_step", "--photos=40", "--batches=1", "--repeats=2")
    found = run("input_pipeline.py", *spaces, *flags)
    for threads in ("one thread", "all threads"):
        record = found[f"pipeline, {threads}", "images/s"]  # the last of small images
        assert record.setting.startswith("small images at 32 px, batch 128")
        assert record.against == "train step, random"
        assert min(record.ratios) > 0


def published() -> pathlib.Path:
    """The folder of the published predictors, where the reference is there to compare with."""
    pytest.importorskip("torch")
    pytest.importorskip("ofa")
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the published networks are not at hand")
    return pathlib.Path(os.environ["OFA_SHARED"], "data", "published")


@pytest.mark.reference
def test_predictors(run):
    found = run("predictors.py", f"--published={published()}", "--archs=50", "--repeats=2")
    assert list(found) == [
        (f"{name} of {form}", "archs/s")
        for name in ("accuracy", "latency")
        for form in ("codes", "Arch objects")
    ]
    assert all(min(record.ratios) > 0 for record in found.values())


@pytest.mark.reference
def test_search(run):
    folder = f"--published={published()}"
    options = ("--budgets=25,45", "--seeds=1", "--many=3", "--repeats=1")
    found = run("search.py", folder, *options)
    assert len(found["latency and accuracy together", "archs/s"].ours) == 7
    for effort in ("normal", "high"):
        both = [found[f"{budget} ms, effort={effort}", "% predicted"] for budget in (25, 45)]
        for record in both:
            assert all(70 < value < 90 for value in (*record.ours, *record.reference))
            assert len(record.ratios) == 1
        means = found[f"means of the seeds, effort={effort}", "% predicted"]
        assert means.ours == tuple(record.ours[0] for record in both)  # of one seed
        assert means.of == "budgets"
    assert found["3 budgets in a fresh process", "s"].ours[0] > 0


def test_export_formats(run, tmp_path):
    args = [f"--output={tmp_path}", "--spaces=ofa_mbv3_tiny", "--random=0", "--rounds=1"]
    found = run("export_formats.py", *args, "--files=float32-cpu,int8-cpu", "--no-keras")
    for which in ("largest", "smallest"):
        base = found[f"ofa_mbv3_tiny.{which}, float32-cpu", "ms"]
        int8 = found[f"ofa_mbv3_tiny.{which}, int8-cpu", "ms"]
        assert int8.reference == base.ours
        assert (tmp_path / f"ofa_mbv3_tiny.{which}-int8-cpu.tflite").exists()
        assert not base.reference
    for precision in ("float32", "int8"):
        case = f"all subnets, {precision}-cpu"
        assert found[case, "delegate partitions"].ours == (1, 1)
    ratios = found["all subnets, int8-cpu", "kB"].ratios
    assert len(ratios) == 2
    assert max(ratios) < 1
    assert len(found["materialize a subnet and write its .keras file", "s"].ours) == 2
