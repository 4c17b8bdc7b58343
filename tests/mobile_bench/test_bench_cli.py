"""The command from outside: exit codes, what is printed where, and what is left behind."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest
from bench_helpers import HOST, QUICK_FLAGS, children, is_running, make_measurement
from stand_in.phones import OLD

import mobile_bench
from mobile_bench import cli
from mobile_bench.errors import MeasureError
from mobile_bench.results import OpTime, Settings
from mobile_bench.rows import RowWriter, read_rows
from mobile_bench.signals import interrupted_by_signals

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "mobile_bench"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Runs the command in a process of its own."""
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
        "--rounds=2",
        "--output=rows.jsonl",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    rows = read_rows(folder / "rows.jsonl").measurements
    expected = ["subnets/a/model_float32.tflite", "subnets/a/model_int8.tflite", str(outside)]
    assert [row.model for row in rows] == 2 * expected  # interleaved
    assert [row.round for row in rows] == [0] * 3 + [1] * 3
    assert {row.settings.threads for row in rows} == {2}
    head, _, *table = done.stdout.splitlines()
    assert head.startswith("| model ")
    assert [line.split()[1] for line in table] == expected
    assert done.stderr.endswith("6 rows appended to rows.jsonl\n")


def test_resume_measures_only_what_is_missing(folder):
    flags = [*QUICK_FLAGS, "--models=subnets/*/*.tflite", "--output=rows.jsonl", "--resume"]
    output = folder / "rows.jsonl"
    assert run(*flags, "--rounds=2", cwd=folder).returncode == 0
    whole = output.read_bytes()
    done = run(*flags, "--rounds=2", cwd=folder)
    assert (done.returncode, output.read_bytes()) == (0, whole)
    assert done.stderr.endswith("no new row in rows.jsonl\n")
    assert len(done.stdout.splitlines()) == 4  # the results are told all the same

    output.write_bytes(whole[:-20])  # the process was killed in its last row
    done = run(*flags, "--rounds=3", cwd=folder)
    assert done.returncode == 0
    assert "line 4: the unfinished last row is left out" in done.stderr
    assert done.stderr.endswith("3 rows appended to rows.jsonl\n")
    rows = read_rows(output).measurements
    assert sorted((row.round, row.model[-9:]) for row in rows) == sorted(
        (index, name) for index in range(3) for name in ("32.tflite", "t8.tflite")
    )
    assert len({row.session for row in rows}) == 1

    done = run(*flags, "--rounds=1", "--threads=2", cwd=folder)  # other settings, other rows
    assert len(read_rows(output).measurements) == 8
    assert "settings" not in done.stdout  # what is told is what was asked for


def test_a_corrupt_model_costs_only_itself(folder, corrupt):
    flags = [*QUICK_FLAGS, "--rounds=1", "--models=subnets/*/*", "--output=rows.jsonl"]
    done = run(*flags, corrupt, cwd=folder)
    assert done.returncode == 1
    assert "2 rows appended to rows.jsonl\nmobile-bench: failures: 1, runs me" in done.stderr
    assert f"{corrupt}: the runtime refuses the file" in done.stderr.splitlines()[-1]
    assert len(read_rows(folder / "rows.jsonl").measurements) == 2
    assert len(done.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "Unknown command line flag 'bogus'"),
        (["--threads=many", "a"], "--threads=many"),
        (["--threads=0", "a"], "threads: expected 1 to 64, got 0"),
        (["--min_secs=nan", "a"], "min_secs: expected 0 to 60.0, got nan"),
        (["--cpus=fast", "a"], "cpus: expected big, little, auto, core numbers"),
        (["--cpus=999", "a"], "cpus: "),
        (["--delegate=none", "a"], "delegate: expected one of xnnpack, cpu, gpu"),
        (["--delegate=gpu", "a"], "delegate: the host"),
        (["--target=host,,host", "a"], "target: expected host, all, serials"),
        (["--runner=app", "a"], "runner: expected one of binary, apk, got 'app'"),
        (["--batch=0", "a"], "batch: expected 1 to"),
        (["--rounds=0", "a"], "rounds: expected 1 to"),
        (["--cooldown=-1", "a"], "cooldown_secs: expected 0 or more, got -1"),
        (["--format=html", "a"], "markdown|csv"),
        (["--timeout_secs=-1", "a"], "timeout_secs: expected more than 0"),
        (["--models=no/such/*.tflite"], "no file matches no/such/*.tflite"),
        ([], "no models: give .tflite files or patterns"),
        (["--resume", "a"], "--resume needs --output=FILE"),
        (["a", "--output=."], ".: expected a file to append rows to"),
        (["--flagfile=no_such.flags"], "no_such.flags"),
        (["run"], "no models: give .tflite files or patterns"),
        (["devices", "--threads=2"], "Unknown command line flag 'threads'"),
        (["devices", "R58"], "devices: expected flags only, got 'R58'"),
        (["devices", "--adb_path=no/adb"], "no/adb"),
        (["clean", "R58"], "clean: expected flags only, got 'R58'"),
        (["table"], "table: expected one file of rows, got 0"),
        (["compare", "a.jsonl"], "compare: expected two files of rows, A and B, got 1"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code = cli.main(["mobile-bench", *arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("mobile-bench: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


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
    assert f"{output}, line 1: not a measurement: this is a row of version 1" in done.stderr
    assert output.read_text() == "{}\n"


def test_flags_come_from_a_file(models, tmp_path):
    preset = tmp_path / "quick.flags"
    preset.write_text("# quick\n" + "\n".join([*QUICK_FLAGS, "--rounds=1"]))
    done = run(f"--flagfile={preset}", models["float32"], f"--output={tmp_path}/rows.jsonl")
    assert done.returncode == 0, done.stderr
    (row,) = read_rows(tmp_path / "rows.jsonl").measurements
    assert (row.round, row.settings.num_runs, row.timings.count) == (0, 20, 20)


def test_strange_names_are_measured_and_printed(models, tmp_path):
    name = "-a[1] $(x);\u00e9\n.tflite"
    (tmp_path / "odd").mkdir()
    shutil.copy(models["float32"], tmp_path / "odd" / name)
    output = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [*COMMAND, *QUICK_FLAGS, "--rounds=1", f"odd/{name}", f"--output={output}"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert r"| `odd/-a[1] $(x);\xe9\n.tflite` |" in done.stdout
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
    time.sleep(0.2)  # a row is on the disk a moment before it is in the table
    yield process, worker, output
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_keeps_the_rows_and_ends_the_worker(long_run, number):
    process, worker, output = long_run
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    assert stderr.endswith(f"1 row appended to {output}\nmobile-bench: interrupted\n")
    assert len(stdout.splitlines()) == 3
    assert len(read_rows(output).measurements) == 1
    assert not is_running(worker)


def test_a_command_under_nohup_outlives_its_terminal():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, former)


def wait_until_gone(pid: int, secs: float = 10.0) -> None:
    deadline = time.monotonic() + secs
    while is_running(pid):
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.05)


def test_the_worker_of_a_killed_command_ends_in_the_middle_of_its_run(long_run):
    process, worker, output = long_run
    process.kill()
    wait_until_gone(worker)
    assert len(read_rows(output).measurements) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_worker_of_a_script_ends_with_it(models, number):
    code = (
        "import sys, mobile_bench\n"
        "mobile_bench.measure(sys.argv[1:], num_runs=10000, max_secs=60,\n"
        "    on_result=lambda row: print('one', flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, models["float32"], models["slow"]],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout.readline() == b"one\n"
        (worker,) = children(process.pid)
        process.send_signal(number)
        assert process.wait(10) == -number
    wait_until_gone(worker)


def shell(line: str, *arguments: object, **changes: str) -> subprocess.CompletedProcess:
    """Runs the command within a line of a shell, where it is "$@"."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", *COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT | changes,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@pytest.fixture
def rows_file(tmp_path) -> Path:
    with RowWriter(tmp_path / "rows.jsonl") as writer:
        writer.write(make_measurement())
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize("arguments", [["table"], ["compare"], ["--help"]], ids=" ".join)
def test_a_reader_that_leaves_and_a_full_disk_are_told_in_a_line_at_most(rows_file, arguments):
    files = {"table": [rows_file], "compare": 2 * [rows_file]}.get(arguments[0], [])
    done = shell('"$@" | true', *arguments, *files)
    assert (done.returncode, done.stderr) == (1, "")
    done = shell('"$@" > /dev/full', *arguments, *files)
    assert done.returncode == 1
    assert done.stderr == "mobile-bench: standard output: No space left on device\n"
    assert shell('"$@" >&-', *arguments, *files).returncode == 0


@pytest.mark.parametrize("line", ['"$@" 2>&-', '"$@" 2>/dev/full', '"$@" 2>&1 >/dev/null | true'])
def test_what_nobody_is_told_is_measured_all_the_same(models, tmp_path, line):
    output = tmp_path / "rows.jsonl"
    done = shell(line, models["float32"], *QUICK_FLAGS, "--rounds=1", f"--output={output}")
    assert done.returncode == 0
    assert len(read_rows(output).measurements) == 1


def test_an_error_that_nobody_can_be_told(tmp_path):
    assert shell('"$@" 2> /dev/full', "table", tmp_path / "missing").returncode == 1


@pytest.mark.parametrize("flags", [[], ["--benchmark_binary=/bin/true"]], ids=["worker", "program"])
def test_without_a_temporary_folder(models, flags, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/such/folder"])
    monkeypatch.setattr("mobile_bench.host.tool._ask_help", lambda path: mock.MagicMock())
    monkeypatch.setattr("mobile_bench.host.tool.HostToolTarget._words", lambda *_: [])
    assert cli.main(["mobile-bench", str(models["float32"]), *flags]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "no temporary file can be made (No usable temporary directory found in" in last
    assert "; name a folder with room for one in TMPDIR" in last


@pytest.mark.parametrize("megabytes", [60, 120])
def test_without_memory(models, megabytes):
    done = shell(f'ulimit -v {1024 * megabytes}; "$@"', "--rounds=1", models["float32"])
    assert done.returncode == 1
    assert "mobile-bench: failures: 1, runs measured: 0\nhost: " in done.stderr


def test_a_command_without_memory(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_read", mock.Mock(side_effect=MemoryError))
    assert cli.main(["mobile-bench", "table", "rows.jsonl"]) == 1
    assert capsys.readouterr().err.startswith("mobile-bench: there is not enough memory; give")


def test_a_second_command_does_not_append_to_the_same_file(recorded, tmp_path, capsys):
    """It is refused before a target is opened, and does not measure what the first one does."""
    output = tmp_path / "rows.jsonl"
    asked = recorded([make_measurement()])
    with RowWriter(output) as writer:
        assert cli.main(["mobile-bench", "a.tflite", f"--output={output}", "--resume"]) == 1
        writer.write(make_measurement())
        assert cli.main(["mobile-bench", "table", str(output)]) == 0
    line = f"mobile-bench: {output}: process {os.getpid()} on {platform.node()} appends to it"
    assert line in capsys.readouterr().err
    assert not hasattr(asked, "names")


def test_no_name_reaches_the_terminal_unwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = "x\x1b[31m\u202e\nmobile-bench: all is well"
    for arguments in (
        ["table", evil],
        ["compare", evil, evil],
        [f"--models={evil}*"],
        [evil],
        ["a.tflite", f"--output={evil}{'x' * 300}"],
        [f"--{evil}"],
        [f"--threads={evil}", "a"],
        [f"--target={evil}", "a"],
        [f"--cpus={evil}", "a"],
        [f"--benchmark_binary={evil}", "a"],
        [f"--adb_path={evil}", "--target=all", "a"],
        ["devices", evil],
        ["clean", f"--adb_path={evil}"],
    ):
        assert cli.main(["mobile-bench", *arguments]) in (1, 2)
        told = "".join(capsys.readouterr())
        assert "all is well" in told, arguments
        for line in told.splitlines():
            assert "all is well" not in line or not line.startswith("mobile-bench: all")
            assert line.replace("\r", "").replace("\t", "").isprintable()


ODD_FOLDERS = ["a[1]", "*", "what?", "two,words", "two\nlines", "[", "a[!b]*?,c"]


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_what_exists_is_no_pattern(recorded, tmp_path, monkeypatch, name):
    """Files, folders and results whose names hold what has a meaning in patterns and lists."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name / "subnets"
    folder.mkdir(parents=True)
    (tmp_path / "a1" / "subnets").mkdir(parents=True)  # what a[1] would match
    for path in (folder / "x.tflite", folder / f"{name}.tflite", tmp_path / "a1/subnets/y.tflite"):
        path.write_bytes(b"model")
    asked = recorded([make_measurement()])
    both = sorted([f"{name}/subnets/{name}.tflite", f"{name}/subnets/x.tflite"])
    for given, expected in (
        (f"{name}/subnets/{name}.tflite", [f"{name}/subnets/{name}.tflite"]),
        (f"{name}/subnets/?*.tflite", both),
        (f"{name}/*/x.tfl?te", [f"{name}/subnets/x.tflite"]),
        (f"{name}/**/x.tflite", [f"{name}/subnets/x.tflite"]),
        (f"{tmp_path}/{name}/*/x.tflite", [f"{tmp_path}/{name}/subnets/x.tflite"]),
    ):
        for arguments in ([given], [f"--models={given}"]):
            output = f"{name}/rows,[1]*.jsonl"
            assert cli.main(["mobile-bench", *arguments, f"--output={output}"]) == 0
            assert asked.paths == expected, given
    assert len(read_rows(tmp_path / name / "rows,[1]*.jsonl").measurements) == 10


def test_a_list_of_names_with_and_without_commas(recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tflite", "b,c.tflite", "d,e,f.tflite", "b"):
        (tmp_path / name).write_bytes(b"model")
    asked = recorded()
    (tmp_path / "d").mkdir()  # a folder is no model
    models = "--models=a.tflite,d,e,f.tflite,[a].tflite, missing.tflite,b"
    assert cli.main(["mobile-bench", models, "b,c.tflite"]) == 0
    assert asked.paths == ["a.tflite", "d,e,f.tflite", "missing.tflite", "b", "b,c.tflite"]
    assert cli.main(["mobile-bench", "--models=b,c.tflite"]) == 0
    assert asked.paths == ["b,c.tflite"]
    assert cli.main(["mobile-bench", "--models=", "b"]) == 0
    assert asked.paths == ["b"]
    assert cli.main(["mobile-bench", "--models=a.tflite,"]) == 2


class Recorded:
    """In the place of real targets: keeps what was asked for, gives rows, then may fail."""

    def __init__(self, rows=(), error: Exception | None = None) -> None:
        self.rows, self.error, self.closed = rows, error, 0

    def open_targets(self, names, settings, options, stop):
        self.names, self.settings, self.options = names, settings, options
        return [self]

    def measure_on(self, targets, paths, settings, *, on_result, **others):
        self.paths, self.others = paths, others
        for row in self.rows:
            on_result(row)
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def recorded(monkeypatch):
    """Replaces the targets by a `Recorded` with the rows and the error given."""

    def replace(*args) -> Recorded:
        made = Recorded(*args)
        monkeypatch.setattr("mobile_bench.session.open_targets", made.open_targets)
        monkeypatch.setattr("mobile_bench.session.measure_on", made.measure_on)
        return made

    return replace


PHONE = dataclasses.replace(HOST, target="R58", serial="R58", model="Phone 9")


def test_flags_reach_the_session(recorded, monkeypatch):
    monkeypatch.setenv("ANDROID_HOME", "somewhere")
    asked = recorded()
    settings = {
        "threads": 4,
        "cpus": "big",
        "delegate": "gpu",
        "num_runs": 7,
        "min_secs": 0.5,
        "max_secs": 9.0,
        "warmup_runs": 3,
        "warmup_min_secs": 0.25,
        "require_full_delegation": True,
        "memory": True,
        "op_profile": True,
        "screen": "on",
        "max_spread": 0.2,
        "max_celsius": 35.0,
    }
    options = {
        "timeout_secs": 5.0,
        "benchmark_binary": "tools/",
        "benchmark_version": "2.19",
        "runner": "apk",
        "adb_path": "adb",
        "batch": 8,
    }
    others = {"rounds": 5, "cooldown": 60.0}
    assert settings.keys() == {field.name for field in dataclasses.fields(Settings)}
    flags = [f"--{name}={value}" for name, value in (settings | options | others).items()]
    code = cli.main(["mobile-bench", "run", "a.tflite", "--target=R58,R59", *flags])
    assert (code, asked.names, asked.paths) == (0, "R58,R59", ["a.tflite"])
    assert asked.settings == Settings(**settings)
    assert asked.settings != Settings()
    found = dataclasses.asdict(asked.options)
    assert found.pop("environ")["ANDROID_HOME"] == "somewhere"
    assert found == options
    assert (asked.others["rounds"], asked.others["cooldown_secs"]) == (5, 60.0)
    assert asked.closed == 1


def test_without_flags_the_library_and_the_command_ask_for_the_same(recorded, monkeypatch):
    asked = recorded()
    assert cli.main(["mobile-bench", "a.tflite"]) == 0
    seen = {}
    monkeypatch.setattr("mobile_bench.session.run", lambda *args, **named: seen.update(named))
    mobile_bench.measure(["a.tflite"])
    assert seen["options"] == asked.options
    assert {name: seen[name] for name in ("rounds", "cooldown_secs")} == {
        name: asked.others[name] for name in ("rounds", "cooldown_secs")
    }


def test_failures_come_after_the_table_and_cost_the_exit_code(recorded, capsys, tmp_path):
    row = make_measurement(device=PHONE)
    error = MeasureError([row], {"R59": "R59: is offline (1 of 1 models left)"})
    asked = recorded([row, make_measurement()], error)
    code = cli.main(["mobile-bench", "a.tflite", f"--output={tmp_path}/rows.jsonl"])
    out, err = capsys.readouterr()
    assert code == 1
    assert [line.split(" | ")[1].strip() for line in out.splitlines()[2:]] == [
        "R58 Phone 9",
        "host",
    ]
    assert err.splitlines()[-3:] == [
        f"2 rows appended to {tmp_path}/rows.jsonl",
        "mobile-bench: failures: 1, runs measured: 1",
        "R59: is offline (1 of 1 models left)",
    ]
    assert asked.closed == 1


@pytest.mark.parametrize(
    ("target", "rounds", "there", "code"),
    [
        ("all", 2, HOST, 1),
        ("all", 1, HOST, 0),  # it has what is asked for
        ("all", 2, PHONE, 0),
        ("all", 2, dataclasses.replace(PHONE, target="192.0.2.20:5555"), 0),  # now by Wi-Fi
        ("R59", 2, HOST, 0),  # only that one is asked for
    ],
)
def test_resume_tells_of_a_phone_that_did_not_come_back(
    recorded, tmp_path, capsys, target, rounds, there, code
):
    output = tmp_path / "rows.jsonl"
    with RowWriter(output) as writer:
        for device in (HOST, PHONE):
            writer.write(make_measurement(device=device))
    recorded().device = there
    flags = [f"--target={target}", f"--rounds={rounds}", f"--output={output}", "--resume"]
    assert cli.main(["mobile-bench", "a.tflite", *flags]) == code
    last = "R58: not connected, and 1 of its 2 runs are missing; connect it and resume"
    assert capsys.readouterr().err.endswith(f"failures: 1\n{last}\n") == bool(code)


def test_csv_on_stdout_is_csv_only(recorded, capsys, tmp_path):
    recorded([make_measurement(), make_measurement(round=1)])
    flags = ["--format=csv", f"--output={tmp_path}/rows.jsonl"]
    assert cli.main(["mobile-bench", "a.tflite", *flags]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["model"], row["rounds"], row["runs"]) == ("a.tflite", "2", "200")


def test_op_times_are_printed_below_the_table(recorded, capsys):
    profile = (OpTime("model/conv", "CONV_2D", 10.0, 1, 100.0),)
    recorded([make_measurement(profile=profile)])
    assert cli.main(["mobile-bench", "a.tflite", "--op_profile"]) == 0
    table, head, ops = capsys.readouterr().out.split("\n\n")
    assert table.startswith("| model ")
    assert head == "Ops of a.tflite on host:"
    assert "| model/conv | CONV_2D |" in ops


@pytest.fixture
def two_files(tmp_path) -> list[str]:
    """Rows before and after a change that made it twice as slow, with op times."""
    paths = [f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"]
    for path, median_us in zip(paths, (10.0, 20.0), strict=True):
        with RowWriter(path) as writer:
            for index in range(3):
                profile = (OpTime("model/conv", "CONV_2D", median_us, 1, 100.0),)
                writer.write(make_measurement(round=index, median_us=median_us, profile=profile))
    return paths


def test_two_files_are_compared(two_files, capsys):
    assert cli.main(["mobile-bench", "compare", *two_files]) == 0
    line = capsys.readouterr().out.splitlines()[2]
    assert "2.000 [2.000, 2.000] | slower" in line


def test_the_tables_of_a_file(two_files, capsys):
    assert cli.main(["mobile-bench", "table", two_files[0]]) == 0
    assert "| 10.0 [10.0, 10.0] |" in capsys.readouterr().out
    assert cli.main(["mobile-bench", "table", two_files[0], "--format=csv"]) == 0
    assert capsys.readouterr().out.startswith("model,sha256,")
    assert cli.main(["mobile-bench", "table", two_files[0], "--profile"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Ops of a.tflite on host:\n\n| op ")
    assert told.count("CONV_2D") == 1
    assert cli.main(["mobile-bench", "table", two_files[0], "--profile", "--format=csv"]) == 0
    (op,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (op["model"], op["name"], op["mean_us"]) == ("a.tflite", "model/conv", "10.0")


def test_several_devices_are_compared_one_after_the_other(tmp_path, capsys):
    path = f"{tmp_path}/rows.jsonl"
    with RowWriter(path) as writer:  # as they come from two phones at once
        for model in ("a.tflite", "b.tflite"):
            for target in ("R59", "R58"):
                device = dataclasses.replace(PHONE, target=target, serial=target)
                writer.write(make_measurement(device=device, model=model))
    assert cli.main(["mobile-bench", "compare", path, path]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    found = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines]
    assert found == [(m, t) for t in ("R58", "R59") for m in ("a.tflite", "b.tflite")]


@pytest.mark.parametrize("content", ["", "somebody's text"])
def test_a_file_without_rows_is_told(two_files, tmp_path, capsys, content):
    empty = tmp_path / "empty.jsonl"
    empty.write_text(content)
    for arguments in (
        ["table", empty],
        ["compare", two_files[0], empty],
        ["compare", empty, empty],
    ):
        assert cli.main(["mobile-bench", *map(str, arguments)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith(f"mobile-bench: {empty}: there is no measurement in it\n")


def test_a_file_without_op_times_is_told(tmp_path, capsys):
    with RowWriter(tmp_path / "rows.jsonl") as writer:
        writer.write(make_measurement())
    assert cli.main(["mobile-bench", "table", f"{tmp_path}/rows.jsonl", "--profile"]) == 2
    assert "no row has op times; measure with --op_profile" in capsys.readouterr().err


def test_an_unfinished_last_row_is_told_by_each_command(two_files, capsys):
    with open(two_files[1], "a") as file:
        file.write('{"version": 2, "sess')
    assert cli.main(["mobile-bench", "compare", *two_files]) == 0
    assert f"{two_files[1]}, line 4: the unfinished last row" in capsys.readouterr().err


def test_a_file_that_is_called_like_a_command(recorded):
    asked = recorded()
    assert cli.main(["mobile-bench", "./table", "compare"]) == 0
    assert asked.paths == ["./table", "compare"]


def test_two_phones_end_to_end(make_phone, own_adb, tool_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(own_adb.port))
    phones = [make_phone(connect=False), make_phone(OLD, connect=False)]
    for phone in phones:
        own_adb.connect(phone)
        phone.tool.instant = True
    assert cli.main(["mobile-bench", "devices"]) == 0
    devices = capsys.readouterr().out
    assert all(phone.serial in devices for phone in phones)
    assert "4x1.80 + 3x2.42 + 1x2.84" in devices

    model = tmp_path / "a b.tflite"
    model.write_bytes(b"the instant tool does not look")
    flags = ["--target=all", f"--benchmark_binary={tool_path}", "--cpus=big", "--rounds=1"]
    output = tmp_path / "rows.jsonl"
    code = cli.main(["mobile-bench", str(model), *flags, f"--output={output}"])
    told = capsys.readouterr()
    assert code == 0, told.err
    rows = read_rows(output).measurements
    assert {row.device.target for row in rows} == {phone.serial for phone in phones}
    assert {row.affinity.granted for row in rows} == {(4, 5, 6, 7), (6, 7)}
    serials = sorted(phone.serial for phone in phones)
    assert [line.split(" | ")[1].split()[0] for line in told.out.splitlines()[2:]] == serials

    assert cli.main(["mobile-bench", "clean"]) == 0
    assert capsys.readouterr().out.count(": clean\n") == 2
    assert not any((phone.root / "data/local/tmp/mobile_bench").exists() for phone in phones)


def test_clean_tells_of_each_phone(monkeypatch, capsys):
    asked = []

    def clean(names, options):
        asked.append((names, options.adb_path))
        return {"R58": "", "R59": "measured by another session"}

    monkeypatch.setattr("mobile_bench.phone.target.clean", clean)
    assert cli.main(["mobile-bench", "clean", "--target=R58,R59", "--adb_path=adb"]) == 1
    assert asked == [(["R58", "R59"], "adb")]
    out, err = capsys.readouterr()
    assert out == "R58: clean\n"
    assert err == "mobile-bench: failures: 1\nR59: measured by another session\n"


def test_help_lists_the_flags_of_each_command():
    done = run("--help")
    assert run("-h").stdout == done.stdout
    assert done.returncode == 0
    for flag in ("models", "target", "threads", "num_runs", "rounds", "output", "resume"):
        assert f"  --{flag}: " in done.stdout
    assert "  --adb_path: " in run("devices", "--help").stdout
    assert "  --threads: " not in run("devices", "--help").stdout


def test_the_walls_hold():
    """The command imports nothing slow, and measuring brings in neither TensorFlow nor ofa_tf."""
    code = (
        "import sys, mobile_bench.cli\n"
        "slow = {'numpy', 'ai_edge_litert', 'tqdm', 'adbutils', 'google'} & sys.modules.keys()\n"
        "import mobile_bench.session, mobile_bench.phone.target, mobile_bench.host.worker\n"
        "import ai_edge_litert.interpreter\n"
        "print(sorted(slow | ({'tensorflow', 'ofa_tf', 'keras'} & sys.modules.keys())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
