"""Every fault of a phone, with the real adb: what was measured stays, the others go on."""

import hashlib
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from phone_helpers import SETTINGS, make_options, remote_files, run_session, write_models
from stand_in import OLD, Answer, Fault, make_tool

from mobile_bench.adb import device as adb_device
from mobile_bench.adb.server import Adb
from mobile_bench.cli import main
from mobile_bench.phone import target as phone_module
from mobile_bench.phone.batch import PACKAGE
from mobile_bench.phone.lock import DeviceLock
from mobile_bench.phone.target import clean

# A run is ended after twice `max_secs` and these.
TIMEOUT_SECS = 1.0


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(phone_module, "_BACK_SECS", 3.0)
    monkeypatch.setattr(phone_module, "_END_SECS", 3.0)
    monkeypatch.setattr(adb_device, "_ANSWER_SECS", 2.0)


@pytest.fixture
def options(adb, tool_path):
    return make_options(adb, tool_path, timeout_secs=TIMEOUT_SECS)


@pytest.fixture
def paths(tmp_path):
    return write_models(tmp_path, "abc")


def wait_until(condition, secs=5.0):
    deadline = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def model_runs(phone):
    """The runs of the tool, apart from those that ask it what it can do."""
    return [run for run in phone.runs if "--help" not in run.arguments]


def fault_of(path, kind, **values):
    """Returns a fault of the runs of one model."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Fault(kind, match=digest[:32], **values)


# What a user sees when a run goes wrong in one of these ways.
RUN_FAULTS = {
    "segv": ("crash", {"signal": 11}, "benchmark_model was ended by SIGSEGV: its last line was "),
    "abort": ("crash", {"signal": 6}, "benchmark_model was ended by SIGABRT: its last line was "),
    "exit": ("exit", {"code": 3}, "benchmark_model ended with exit code 3: its last line was "),
    "hang": ("hang", {}, "the tool did not end within 2 s, so it was ended"),
    "flood": ("flood", {}, "the tool printed without end, so it was ended"),
    "rubbish": ("rubbish", {}, "the output has no whole line of results "),
    "nothing": ("silent", {}, "the output has no whole line of results "),
    "truncated": ("truncate", {}, "the line 'count=5 first=1468 "),
}


def test_runs_that_fail_are_told_and_the_others_go_on(phone, options, tmp_path):
    paths = write_models(tmp_path, ["first", *RUN_FAULTS, "last"])
    for path, (kind, values, _) in zip(paths[1:-1], RUN_FAULTS.values(), strict=True):
        phone.faults.add(fault_of(path, kind, **values))
    outcome = run_session(paths, phone.serial, options)
    assert outcome.measured == ["first", "last"]
    assert [row.verdict.reasons for row in outcome.rows] == [(), ()]
    assert len(outcome.lines) == len(RUN_FAULTS)
    for line, path, (*_, expected) in zip(
        outcome.lines, paths[1:-1], RUN_FAULTS.values(), strict=True
    ):
        assert line.startswith(f"{path}: {expected}")
    assert len(model_runs(phone)) == len(paths)  # none was tried again
    wait_until(lambda: not phone.processes())  # what hung, and what flooded, was ended
    assert not [name for name in remote_files(phone) if name.startswith(("jobs", "lock"))]


def test_slow_services_are_no_hanging_tool(phone, options, paths):
    """Three of them take longer, together, than a run may."""
    phone.dumpsys_secs = 0.75
    outcome = run_session(paths[:1], phone.serial, options)
    assert (outcome.measured, outcome.lines) == (["a"], [])


@pytest.mark.slow
def test_a_phone_that_does_not_tell_its_state_is_not_the_tools_fault(
    phone, options, paths, monkeypatch
):
    monkeypatch.setattr(phone_module, "STATE_SECS", 1.0)
    phone.dumpsys_secs = 1.0
    line = run_session(paths[:1], phone.serial, options).line
    assert line.startswith(
        f"{paths[0]}: the phone was lost in this run, 2 times: no answer in time"
    )


@pytest.mark.parametrize("kind", ["unplug", pytest.param("reboot", marks=pytest.mark.slow)])
def test_a_lost_phone_that_comes_back_goes_on(kind, phone, options, paths):
    """The run that was on is made again, after what was left of it was ended."""
    phone.faults.add(fault_of(paths[1], kind))
    notices = []
    outcome = run_session(paths, phone.serial, options, notice=notices.append)
    assert (outcome.measured, outcome.lines) == (["a", "b", "c"], [])
    assert len(model_runs(phone)) == 4
    (notice,) = notices
    assert notice.startswith(f"{phone.serial}: ")
    assert "; waiting for it, " in notice
    wait_until(lambda: not phone.processes())
    assert not [name for name in remote_files(phone) if name.startswith(("jobs", "lock"))]


@pytest.mark.slow
def test_a_model_that_loses_the_phone_again_is_given_up(phone, options, paths):
    phone.faults.add(fault_of(paths[1], "reboot", times=None))
    outcome = run_session(paths, phone.serial, options)
    assert outcome.measured == ["a", "c"]
    assert outcome.line.startswith(f"{paths[1]}: the phone was lost in this run, 2 times: ")
    assert len(model_runs(phone)) == 4


def test_a_phone_that_stays_away_leaves_the_others(phone, make_phone, options, paths):
    other = make_phone(OLD)
    other.tool.instant = True
    phone.faults.add(fault_of(paths[1], "unplug", refuse=None))
    outcome = run_session(paths, f"{phone.serial},{other.serial}", options)
    assert sorted(row.device.target for row in outcome.rows) == sorted(
        [phone.serial, *[other.serial] * 3]
    )
    assert re.fullmatch(
        rf"{phone.serial}: .*; it did not come back within 3 s \(2 of 3 models are left; .*",
        outcome.line,
    )


@pytest.mark.slow
def test_a_phone_that_is_lost_too_often_is_given_up(phone, options, tmp_path):
    paths = write_models(tmp_path, "abcdef")
    phone.faults.add(Fault("reboot", match="--graph", skip=1, times=None))
    outcome = run_session(paths, phone.serial, options)
    assert outcome.measured == ["a"]
    assert [line.partition(": ")[0] for line in outcome.lines] == [paths[1], phone.serial]
    assert "lost 4 times in a row (4 of 6 models are left" in outcome.lines[1]


@pytest.mark.slow
def test_a_phone_that_stops_answering_is_lost(phone, options, paths, monkeypatch):
    for module, name in (
        (phone_module, "_END_SECS"),
        (phone_module, "_BACK_SECS"),
        (adb_device, "_ANSWER_SECS"),
    ):
        monkeypatch.setattr(module, name, 0.5)
    phone.faults.add(fault_of(paths[1], "freeze"))
    outcome = run_session(paths, phone.serial, options)
    phone.thaw()
    assert outcome.measured == ["a"]
    assert "2 of 3 models are left; resume to go on with them" in outcome.line


def test_a_session_with_adbd_before_android_9(phone, options, paths):
    phone.faults.add(Fault("late", on="shell", times=None))
    outcome = run_session(paths, phone.serial, options, settings=replace(SETTINGS, screen="on"))
    assert (outcome.measured, outcome.lines) == (["a", "b", "c"], [])
    assert clean([phone.serial], options) == {phone.serial: ""}


@pytest.mark.parametrize("call", ["getprop", "mkdir -p", "sha256sum", "--help"])
def test_an_answer_that_is_lost_while_a_phone_is_opened(call, phone, options, paths):
    """The exit code of one call is lost, after the call was made; the second time all is well."""
    phone.faults.add(Fault("drop", on="shell", match=call))
    outcome = run_session(paths, phone.serial, options)
    assert (outcome.measured, outcome.lines) == (["a", "b", "c"], [])
    assert not (phone.root / "data/local/tmp/mobile_bench/lock").exists()


def test_answers_that_are_lost_again_and_again_are_told(phone, options, paths):
    phone.faults.add(Fault("drop", on="shell", match="--help", times=None))
    outcome = run_session(paths, phone.serial, options)
    assert "the connection was lost" in outcome.line
    assert not (phone.root / "data/local/tmp/mobile_bench/lock").exists()


def test_an_unauthorized_phone_says_what_to_do(make_phone, adb, options, paths):
    phone = make_phone(connect=False)
    phone.authorized = False
    adb.connect(phone)
    outcome = run_session(paths, phone.serial, options)
    assert "unlock the phone and accept its dialog" in outcome.line


def test_a_phone_that_is_not_there(options, paths):
    outcome = run_session(paths, "R58M123ABC", options)
    assert outcome.line.startswith("R58M123ABC: ")
    assert "mobile-bench devices" in outcome.line


def test_the_adb_server_may_die(own_adb, tool_path, make_phone, paths, monkeypatch):
    for name, value in own_adb.environment.items():
        monkeypatch.setenv(name, value)  # for the server that takes its place
    phone = make_phone(connect=False)
    phone.tool.instant = True
    own_adb.connect(phone)

    def kill_once(device, run):
        if len(model_runs(phone)) == 2:
            own_adb.kill()

    phone.on_run = kill_once
    outcome = run_session(paths, phone.serial, make_options(own_adb, tool_path))
    assert (outcome.measured, outcome.lines) == (["a", "b", "c"], [])
    assert len(model_runs(phone)) == 4


def test_a_full_phone_still_runs_what_is_there(phone, options, tmp_path):
    small, big = write_models(tmp_path, ["small"]) + write_models(tmp_path, ["big"], 200_000)
    assert run_session([small], phone.serial, options).measured == ["small"]
    phone.free_bytes = 32 * 1024
    outcome = run_session([big, small], phone.serial, options)
    assert outcome.measured == ["small"]
    assert outcome.line.startswith(f"{big}: ")
    assert "No space left on device; free some space on the phone" in outcome.line


def test_a_tool_of_another_abi_is_not_pushed(phone, adb, tmp_path, paths):
    tool = make_tool(tmp_path / "tool", abi="x86_64")
    outcome = run_session(paths, phone.serial, make_options(adb, tool))
    assert "is built for x86_64, and the device runs arm64-v8a" in outcome.line
    assert phone.transfers == []


def test_a_tool_that_the_phone_cannot_run(phone, options, paths):
    # What it says that it runs, and what it runs, differ on some boxes with a 64-bit chip.
    phone.properties["ro.product.cpu.abilist"] = "armeabi-v7a"
    phone.set_answer("getprop", Answer("[ro.product.cpu.abilist]: [arm64-v8a]\n"))
    outcome = run_session(paths, phone.serial, options)
    assert "does not run on this phone (exit code 126: " in outcome.line
    assert "not executable: 64-bit ELF file" in outcome.line


def test_two_sessions_on_one_phone(phone, adb, options, paths):
    lock = DeviceLock(Adb(adb.adb, adb.port).phone(phone.serial), 60.0)
    lock.acquire()
    outcome = run_session(paths, phone.serial, options)
    assert outcome.rows == []
    assert model_runs(phone) == []
    lock.release()
    assert run_session(paths, phone.serial, options).measured == ["a", "b", "c"]


@pytest.mark.slow
def test_a_file_that_arrives_damaged_is_pushed_again(phone, options, paths):
    phone.faults.add(Fault("damage", on="push", match="/models/"))
    assert run_session(paths, phone.serial, options).measured == ["a", "b", "c"]
    pushed = [path for kind, path, _ in phone.transfers if "/models/" in path]
    assert len(pushed) == 4
    phone.faults.add(Fault("damage", on="push", match="/models/", times=None))
    Path(paths[0]).write_bytes(b"new content")
    outcome = run_session(paths, phone.serial, options)
    assert outcome.measured == ["b", "c"]
    assert outcome.line.startswith(f"{paths[0]}: arrives damaged on the phone")


@pytest.mark.slow
def test_a_phone_lost_while_models_are_pushed_goes_on(phone, options, paths):
    phone.faults.add(Fault("unplug", on="push", match="/models/", skip=1))
    outcome = run_session(paths, phone.serial, options)
    assert (outcome.measured, outcome.lines) == (["a", "b", "c"], [])


STAY_ON = ("global", "stay_on_while_plugged_in")


@pytest.fixture(params=["binary"])
def hanging(request, phone, adb, tool_path, tmp_path):
    """A mobile-bench that has measured one model, while the next one hangs; and its models.

    It keeps the phone's screen on, which was off and would stay on with one kind of charger.
    """
    paths = write_models(tmp_path, "ab")
    phone.packages[PACKAGE] = "1.0"
    phone.awake, phone.settings[STAY_ON] = False, "2"
    phone.faults.add(fault_of(paths[1], "hang"))
    command = [
        *(sys.executable, "-m", "mobile_bench", *paths, f"--target={phone.serial}"),
        *(f"--benchmark_binary={tool_path}", f"--output={tmp_path}/rows.jsonl"),
        *("--num_runs=5", "--min_secs=0", "--warmup_min_secs=0", "--rounds=1", "--screen=on"),
        f"--runner={request.param}",
    ]
    root = str(Path(phone_module.__file__).parents[2])
    process = subprocess.Popen(
        command, env={**adb.environment, "PYTHONPATH": root}, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: len(model_runs(phone)) == 2, secs=20)
        time.sleep(0.1)  # into the run
        yield process, paths
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_the_run_on_the_phone(phone, hanging, tmp_path):
    """The rows until then are in the file, and nothing runs on the phone or stays locked."""
    process, _ = hanging
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.rstrip().endswith("mobile-bench: interrupted")
    assert "Traceback" not in errors
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1
    wait_until(lambda: not phone.processes())
    check_that_nothing_is_left(phone)


def check_that_nothing_is_left(phone) -> None:
    wait_until(lambda: not phone.processes())
    names = remote_files(phone)
    assert not [name for name in names if name.startswith(("lock", "jobs", "screen"))]
    assert (phone.awake, phone.settings[STAY_ON]) == (False, "2")


@pytest.mark.parametrize("hanging", ["binary", "apk"], indirect=True)
def test_what_a_killed_session_left_is_ended_by_the_next(phone, hanging, options):
    """Its model would be timed beside the new ones, its lock keep the phone, its screen stay on."""
    process, paths = hanging
    process.kill()
    process.wait()
    left = model_runs(phone)[1]
    assert left.is_running()
    assert (phone.awake, phone.settings[STAY_ON]) == (True, "7")
    outcome = run_session(paths[:1], phone.serial, options)
    assert outcome.measured == ["a"]
    assert outcome.rows[0].before.screen_on is False
    assert not left.is_running()
    check_that_nothing_is_left(phone)


@pytest.mark.parametrize("hanging", ["apk"], indirect=True)
def test_what_a_killed_session_left_is_ended_by_clean(phone, hanging, options):
    process, _ = hanging
    process.kill()
    process.wait()
    assert clean([phone.serial], options) == {phone.serial: ""}
    check_that_nothing_is_left(phone)


def test_the_command_tells_what_failed(phone, adb, tool_path, tmp_path, monkeypatch, capsys):
    """A table of what was measured, one line for what was not, and a non-zero exit code."""
    for name, value in adb.environment.items():
        monkeypatch.setenv(name, value)
    paths = write_models(tmp_path, "ab")
    phone.faults.add(fault_of(paths[0], "crash"))
    phone.battery_celsius, phone.cool_per_read = 38.0, 3.0
    flags = [f"--target={phone.serial}", f"--benchmark_binary={tool_path}", "--rounds=1"]
    flags += ["--num_runs=5", "--min_secs=0", "--cooldown_secs=0.1"]
    assert main(["mobile-bench", *paths, *flags]) == 1
    out, err = capsys.readouterr()
    assert paths[1] in out
    assert paths[0] not in out
    (line,) = [line for line in err.splitlines() if "SIGSEGV" in line]
    assert line.startswith(f"{paths[0]}: benchmark_model was ended by SIGSEGV")
    rest = (
        f"mobile-bench: {phone.serial}: battery at 38.0 C, resting until 36.0 C, for 0.1 s at most"
    )
    assert rest in err.splitlines()


@pytest.mark.slow
def test_stopping_from_another_thread(phone, options, paths):
    stop = threading.Event()
    phone.faults.add(fault_of(paths[1], "hang"))
    phone.on_run = lambda device, run: stop.set() if len(model_runs(device)) == 2 else None
    outcome = run_session(paths, phone.serial, options, stop=stop)
    assert (outcome.measured, outcome.lines) == (["a"], [])
    wait_until(lambda: not phone.processes())
