"""A program in place of the Python runtime on this host: a script that prints what such prints."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest
from bench_helpers import (
    check_that_closing_ends_a_run_of_another_thread,
    children,
    is_running,
)

import mobile_bench
from mobile_bench.errors import FailureError, MeasureError, UsageError
from mobile_bench.host.tool import HostToolTarget
from mobile_bench.models import ModelFile
from mobile_bench.results import Settings
from mobile_bench.scratch import temporary_folder
from mobile_bench.target import TargetOptions

ROOT = Path(__file__).resolve().parents[2]

# The lines that matter, as a current build prints them. A model's name says what goes wrong.
PROGRAM = r"""#!/bin/sh
for word in "$@"; do
case "$word" in
--help) cat "$0.help" >&2; exit 1 ;;
--graph=*crash*) echo 'INFO: STARTING!'; kill -SEGV $$ ;;
--graph=*hang*) sleep 1000 ;;
--graph=*flood*) exec yes ;;
--graph=*rubbish*) head -c 10000 /dev/urandom; exit 0 ;;
--op_profiling_output_file=*) cat "$0.csv" >"${word#*=}" ;;
esac
done
echo 'INFO: Created TensorFlow Lite XNNPACK delegate for CPU.' >&2
cat "$0.out"
"""
HELP = "ERROR: usage: benchmark_model <flags>\nFlags:\n" + "".join(
    f"\t--{name}=0\t{kind}\toptional\tit\n"
    for name, kind in {
        "graph": "string",
        "num_runs": "int32",
        "min_secs": "float",
        "max_secs": "float",
        "warmup_runs": "int32",
        "warmup_min_secs": "float",
        "num_threads": "int32",
        "use_xnnpack": "bool",
        "enable_op_profiling": "bool",
        "op_profiling_output_mode": "string",
        "op_profiling_output_file": "string",
    }.items()
)
OUTPUT = """\
INFO: STARTING!
INFO: Min num runs: [50]
INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the \
delegate.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if \
exceeding 60 seconds.
INFO: count=47 first=11503 curr=10511 min=10159 max=11503 avg=10722 std=294 p5=10343 median=10703 \
p95=11238
INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if \
exceeding 60 seconds.
INFO: count=93 first=10606 curr=11129 min=10239 max=11568 avg=10750.6 std=247 p5=10320 \
median=10753 p95=11198
INFO: Inference timings in us: Init: 10479, First inference: 11503, Warmup (avg): 10722, \
Inference (avg): 10750.6
INFO: Memory footprint delta from the start of the tool (MB): init=11.457 overall=13.582
"""
CSV = """\
Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
Convolution (NHWC, F32) IGEMM, 0.183, 0.16199, 100%, 100%, 0, 1, Delegate/Convolution:2

============================== Summary by node type ==============================
node type, count, avg_ms, avg %, cdf %, mem KB, times called
Convolution (NHWC, F32) IGEMM, 1, 0.161, 100%, 100%, 0, 1

Timings (microseconds): count=417 first=2186 curr=2073 min=1682 max=2863 avg=2064.18 std=206
Memory (bytes): count=0
1 nodes observed
"""


@pytest.fixture
def program(tmp_path) -> Path:
    path = tmp_path / "the tool" / "benchmark_model"
    path.parent.mkdir()
    for suffix, text in (("", PROGRAM), (".help", HELP), (".out", OUTPUT), (".csv", CSV)):
        Path(f"{path}{suffix}").write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def named(tmp_path):
    """Makes a file of a name, as the program never reads it."""

    def make(name: str) -> str:
        path = tmp_path / f"{name}.tflite"
        path.write_text(name)
        return str(path)

    return make


def test_the_program_is_run_and_read(program, named):
    path = named("a $(touch x);'b'")
    (row,) = mobile_bench.measure([path], benchmark_binary=program, op_profile=True, rounds=1)
    assert (row.timings.count, row.timings.median_us, row.timings.init_us) == (93, 10753, 10479)
    assert (row.tool.name, row.tool.version) == ("benchmark_model", "2020")
    assert row.tool.sha256 == ModelFile.read(str(program)).sha256
    assert row.device.target == "host"
    assert shlex.split(row.command)[:2] == [str(program), f"--graph={path}"]
    assert (row.delegation.delegate, row.delegation.complete) == ("xnnpack", True)
    (op,) = row.profile
    assert (op.name, op.kind) == ("Delegate/Convolution:2", "Convolution (NHWC, F32) IGEMM")
    assert op.mean_us == pytest.approx(161.99)
    assert row.memory.overall_mb == 13.582
    assert row.before.date <= row.after.date
    assert row.verdict.valid, row.verdict.reasons


@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset")
def test_its_cores_are_read_back(program, named):
    core = max(os.sched_getaffinity(0))
    (row,) = mobile_bench.measure([named("a")], benchmark_binary=program, rounds=1, cpus=[core])
    assert (row.affinity.asked, row.affinity.granted) == ((core,), (core,))
    assert row.command.startswith(f"taskset {1 << core:x} ")


PLANNED = ("first", "crash", "hang", "rubbish", "flood", "last")


def test_a_bad_run_costs_one_model(program, named):
    before = children(os.getpid())
    paths = {name: named(name) for name in PLANNED}
    with pytest.raises(MeasureError) as caught:
        mobile_bench.measure(
            paths.values(),
            benchmark_binary=program,
            rounds=2,
            min_secs=0.0,
            max_secs=0.1,
            warmup_min_secs=0.0,
            timeout_secs=0.8,
        )
    measured = [row.model for row in caught.value.measurements]
    assert measured == 2 * [paths["first"], paths["last"]]
    failures = {name: caught.value.failures[paths[name]] for name in ("crash", "hang", "rubbish")}
    assert "SIGSEGV" in failures["crash"]
    assert failures["hang"] == f"{paths['hang']}: no end within 1 s; it hangs"
    flood = caught.value.failures[paths["flood"]]
    assert flood == f"{paths['flood']}: the tool printed without end, so it was ended"
    assert len(caught.value.failures) == 4
    assert children(os.getpid()) == before


def test_closing_ends_a_run(program, named):
    target = HostToolTarget(Settings(), TargetOptions(benchmark_binary=str(program)))
    check_that_closing_ends_a_run_of_another_thread(target, ModelFile.read(named("hang")))


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [pid for child in found for pid in descendants(child)]


SCRIPT = """
import sys, mobile_bench
mobile_bench.measure(sys.argv[2:], benchmark_binary=sys.argv[1], rounds=1,
    on_result=lambda row: print('one', flush=True))
"""


def test_the_program_ends_with_a_killed_parent_and_its_files_with_the_next(
    program, named, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", SCRIPT, program, named("first"), named("hang")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"one\n"
        deadline = time.monotonic() + 20
        # A shell, its guard, the program, which is a shell as well, and its `sleep`.
        while len(started := descendants(process.pid)) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert len(started) == 4
    while any(map(is_running, started)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (left,) = scratch.iterdir()
    other = scratch / left.name.replace("mobile_bench.", "mobile_bench.elsewhere-")
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with temporary_folder() as folder:
        assert sorted(scratch.iterdir()) == sorted([other, Path(folder)])
        with temporary_folder():
            assert Path(folder).exists()  # its process lives


def test_a_folder_is_made_where_nobody_may_look_around(tmp_path, monkeypatch):
    """As in a shared folder for temporary files whose names only their owners know."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("os.scandir", mock.Mock(side_effect=PermissionError))
    folder = temporary_folder()
    monkeypatch.undo()
    folder.cleanup()


def test_what_is_no_program_is_refused(program, named):
    with pytest.raises(UsageError, match="benchmark_binary: the host needs a program"):
        mobile_bench.measure([named("a")], benchmark_binary=named("no_program"))
    Path(f"{program}.help").write_text("what?\n")
    with pytest.raises(FailureError, match=r"benchmark_model: .*expected its list of flags"):
        mobile_bench.measure([named("a")], benchmark_binary=program)
    program.write_bytes(b"\x7fELF of another machine")
    with pytest.raises(FailureError, match="does not run on this machine: Exec format error"):
        mobile_bench.measure([named("a")], benchmark_binary=program)


def test_a_delegate_that_the_build_lacks_is_told(program, named):
    with pytest.raises(FailureError, match="without"):
        mobile_bench.measure([named("a")], benchmark_binary=program, delegate="gpu")
