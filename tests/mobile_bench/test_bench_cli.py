"""The command from outside: exit codes, what is printed where, and what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench_helpers import QUICK_FLAGS, children, is_running

from mobile_bench.rows import read_rows

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "mobile_bench"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        env=ENVIRONMENT,
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def folder(models, tmp_path) -> Path:
    """A folder laid out as exported subnets are."""
    for name in ("float32", "int8"):
        subnet = tmp_path / "subnets" / "a"
        subnet.mkdir(parents=True, exist_ok=True)
        shutil.copy(models[name], subnet / f"model_{name}.tflite")
    return tmp_path


def test_patterns_and_plain_paths_are_measured_once_each(folder, models):
    outside = models["dynamic_batch"]
    done = run(
        *QUICK_FLAGS,
        "--models=subnets/*/*.tflite",
        outside,
        "subnets/a/model_int8.tflite",
        "--threads=2",
        "--output=rows.jsonl",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    rows = read_rows(folder / "rows.jsonl").measurements
    expected = ["subnets/a/model_float32.tflite", "subnets/a/model_int8.tflite", str(outside)]
    assert [row.model for row in rows] == expected
    assert {row.settings.threads for row in rows} == {2}
    table = done.stdout.splitlines()
    assert table[0].startswith("| model ")
    assert [line.split()[1] for line in table[2:5]] == expected
    assert table[-1] == "3 rows appended to rows.jsonl"


def test_resume_measures_only_what_is_missing(folder):
    flags = [*QUICK_FLAGS, "--models=subnets/*/*.tflite", "--output=rows.jsonl", "--resume"]
    output = folder / "rows.jsonl"
    assert run(*flags, cwd=folder).returncode == 0
    whole = output.read_bytes()
    done = run(*flags, cwd=folder)
    assert (done.returncode, output.read_bytes()) == (0, whole)
    assert "all models are in rows.jsonl already" in done.stdout

    output.write_bytes(whole[:-20])  # the process was killed in its last row
    done = run(*flags, cwd=folder)
    assert done.returncode == 0
    assert "line 2: the unfinished last row is left out" in done.stderr
    assert "1 of 2 already in rows.jsonl" in done.stderr
    assert len(read_rows(output).measurements) == 2

    assert run(*flags, "--rounds=2", cwd=folder).returncode == 0  # other settings, other rows
    assert len(read_rows(output).measurements) == 4


def test_a_corrupt_model_costs_only_itself(folder, corrupt):
    done = run(*QUICK_FLAGS, corrupt, "--models=subnets/*/*", "--output=rows.jsonl", cwd=folder)
    assert done.returncode == 1
    assert f"{corrupt}: the runtime refuses the file" in done.stderr
    assert len(read_rows(folder / "rows.jsonl").measurements) == 2
    assert "2 rows appended to rows.jsonl" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "Unknown command line flag 'bogus'"),
        (["--threads=many", "a"], "--threads=many"),
        (["--threads=0", "a"], "threads: expected 1 to 64, got 0"),
        (["--min_secs=nan", "a"], "min_secs: expected 0 to 60.0, got nan"),
        (["--cpus=big", "a"], "cpus: expected core numbers, got big"),
        (["--cpus=999", "a"], "cpus: expected some of"),
        (["--target=pixel", "a"], "unknown target 'pixel'; known: host"),
        (["--timeout_secs=-1", "a"], "timeout_secs: expected more than 0"),
        (["--models=no/such/*.tflite"], "no file matches no/such/*.tflite"),
        ([], "no models: give .tflite files or patterns"),
        (["--resume", "a"], "--resume needs --output=FILE"),
        (["a", "--output=."], ".: expected a file to append rows to"),
        (["--flagfile=no_such.flags"], "no_such.flags"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_2(tmp_path, arguments, message):
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mobile-bench: ")
    assert message in line


def test_an_output_that_cannot_be_written_fails_before_measuring(models, tmp_path):
    (tmp_path / "file").touch()
    done = run(models["float32"], "--output=file/rows.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "mobile-bench: file/rows.jsonl: cannot be written" in done.stderr


def test_a_damaged_output_is_named_and_kept(models, tmp_path):
    output = tmp_path / "rows.jsonl"
    output.write_text("{}\n")
    done = run(models["float32"], f"--output={output}", "--resume")
    assert done.returncode == 1
    assert f"{output}, line 1: not a measurement: row: missing cpus" in done.stderr
    assert output.read_text() == "{}\n"


def test_flags_come_from_a_file(models, tmp_path):
    preset = tmp_path / "quick.flags"
    preset.write_text("# quick\n" + "\n".join([*QUICK_FLAGS, "--rounds=1"]))
    done = run(f"--flagfile={preset}", models["float32"], f"--output={tmp_path}/rows.jsonl")
    assert done.returncode == 0, done.stderr
    (row,) = read_rows(tmp_path / "rows.jsonl").measurements
    assert (row.settings.rounds, row.settings.num_runs, row.timings.count) == (1, 20, 20)


def test_strange_names_are_measured_and_printed(models, tmp_path):
    name = "-a[1] $(x);\u00e9\n.tflite"
    (tmp_path / "odd").mkdir()
    shutil.copy(models["float32"], tmp_path / "odd" / name)
    output = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [*COMMAND, *QUICK_FLAGS, f"odd/{name}", f"--output={output}"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert r"| odd/-a[1] $(x);\xe9\n.tflite |" in done.stdout
    assert [row.model for row in read_rows(output).measurements] == [f"odd/{name}"]


@pytest.fixture
def long_run(models, tmp_path):
    """A command that has written its first row and is far from done, its worker and the file."""
    output = tmp_path / "rows.jsonl"
    flags = [*QUICK_FLAGS, "--rounds=1", "--max_secs=60", f"--output={output}"]
    # The second model runs for a minute: its time is bounded by the number of its runs alone.
    slow = ["--num_runs=10000", models["float32"], models["slow"]]
    process = subprocess.Popen(
        [*COMMAND, *flags, *map(str, slow)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 60
    while not (output.exists() and output.read_bytes().endswith(b"\n")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    (worker,) = children(process.pid)
    yield process, worker, output
    process.kill()
    process.wait()


def test_ctrl_c_keeps_the_rows_and_ends_the_worker(long_run):
    process, worker, output = long_run
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.endswith("mobile-bench: interrupted\n")
    assert "1 row appended to" in stdout
    assert len(read_rows(output).measurements) == 1
    assert not is_running(worker)


def test_help_lists_the_flags():
    done = run("--help")
    assert done.returncode == 0
    for flag in ("models", "target", "threads", "num_runs", "rounds", "output", "resume"):
        assert f"  --{flag}: " in done.stdout


def test_the_walls_hold():
    """The command imports nothing slow, and measuring brings in neither TensorFlow nor ofa_tf."""
    code = (
        "import sys, mobile_bench.cli\n"
        "slow = {'numpy', 'ai_edge_litert', 'tqdm'} & sys.modules.keys()\n"
        "import mobile_bench.session, mobile_bench.host_worker, ai_edge_litert.interpreter\n"
        "print(sorted(slow | ({'tensorflow', 'ofa_tf', 'keras'} & sys.modules.keys())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
