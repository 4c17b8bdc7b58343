"""The benchmark as an app: started by an intent, read from the log."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phone_helpers import SETTINGS, make_options, run_session, write_models
from stand_in import Answer, Fault
from stand_in.logcat import log_crash

from mobile_bench.errors import UsageError
from mobile_bench.phone.apk import PACKAGE
from mobile_bench.phone.crash import read_crash


@pytest.fixture
def options(adb):
    return make_options(adb, None, runner="apk", timeout_secs=1.0)


@pytest.fixture
def app_phone(phone):
    phone.packages[PACKAGE] = "1.0"
    return phone


def test_the_app_measures(app_phone, options, tmp_path):
    paths = write_models(tmp_path, "ab")
    outcome = run_session(paths, app_phone.serial, options)
    assert (outcome.measured, outcome.lines) == (["a", "b"], [])
    row = outcome.rows[0]
    assert (row.tool.name, row.tool.version) == ("benchmark_model.apk", "1.0")
    assert row.tool.sha256 == "" or len(row.tool.sha256) == 64
    assert row.verdict.reasons == ()
    assert (row.timings.count, row.delegation.delegate) == (5, "xnnpack")
    assert row.affinity.granted is None
    assert row.command.startswith(f"am start -S -n {PACKAGE}/.BenchmarkModelActivity --es args '--")
    assert app_phone.transfers
    assert not [path for _, path, _ in app_phone.transfers if "tool" in path]


def test_an_app_that_hangs_is_told(app_phone, options, tmp_path, monkeypatch):
    """The result of the model before, in a log that cannot be cleared, is not taken for its own."""
    monkeypatch.setattr(app_phone.logcat, "clear", lambda: None)
    paths = write_models(tmp_path, "abc")
    app_phone.faults.add(Fault("hang", skip=1))
    outcome = run_session(paths, app_phone.serial, options)
    assert outcome.measured == ["a", "c"]
    assert [row.verdict.reasons for row in outcome.rows] == [(), ()]
    assert outcome.line == f"{paths[1]}: the tool did not end within 2 s, so it was ended"
    assert app_phone.processes() == []


CRASHES = {
    11: "the app crashed: signal 11 (SIGSEGV), in libbenchmark_model.so",
    6: "the app crashed: signal 6 (SIGABRT), in libbenchmark_model.so, it says 'assertion failed'",
}


@pytest.mark.parametrize("number", CRASHES)
def test_an_app_that_crashes_is_told_by_its_signal(app_phone, options, tmp_path, number):
    """It is not waited for, and crashes of other apps and of earlier runs are not its own."""
    paths = write_models(tmp_path, "abc")
    log_crash(app_phone.logcat, PACKAGE, 77, 4)
    app_phone.logcat.clear = lambda: None
    app_phone.on_run = lambda device, run: log_crash(device.logcat, "com.other.app", 99, 7)
    app_phone.faults.add(Fault("crash", signal=number, skip=1))
    options = dataclasses.replace(options, timeout_secs=60.0)
    outcome = run_session(paths, app_phone.serial, options)
    assert outcome.measured == ["a", "c"]
    assert outcome.line == f"{paths[1]}: {CRASHES[number]}"


def test_an_app_that_throws_is_told_by_its_exception(app_phone, options, tmp_path):
    paths = write_models(tmp_path, "a")
    app_phone.app.throws = "java.lang.UnsatisfiedLinkError: dlopen failed: \x1b[31m no library"
    options = dataclasses.replace(options, timeout_secs=60.0)
    outcome = run_session(paths, app_phone.serial, options)
    why = r"java.lang.UnsatisfiedLinkError: dlopen failed: \x1b[31m no library"
    assert outcome.line == f"{paths[0]}: the app crashed: {why}"


BRIEF = {
    "native, Android 6": (
        "I/tflite  ( 4711): \n"
        "F/libc    ( 4711): Fatal signal 11 (SIGSEGV), code 1, fault addr 0x0 in tid 4730 (x)",
        "the app crashed: signal 11 (SIGSEGV)",
    ),
    "native, by its name": (
        "F/libc    ( 4711): Fatal signal 4 (SIGILL), code 1 (ILL_ILLOPC), fault addr 0x7b in tid 1 "
        "(x), pid 1 (.lite.benchmark)",
        "the app crashed: signal 4 (SIGILL)",
    ),
    "of another": ("F/libc    ( 12): Fatal signal 6 (SIGABRT), code -6 in tid 12 (surface)", ""),
    "no process": ("E/AndroidRuntime( 4711): FATAL EXCEPTION: main", ""),
    "nothing after it": (f"E/AndroidRuntime( 4711): Process: {PACKAGE}, PID: 4711", ""),
    "an earlier run": (
        f"E/AndroidRuntime( 1): Process: {PACKAGE}, PID: 1\nE/AndroidRuntime( 1): java.lang.Error\n"
        f"I/tflite  ( 2): {'0' * 32} 3 log",
        "",
    ),
    "rubbish": ("--------- beginning of crash\n\0\x1b/(1): signal", ""),
}


@pytest.mark.parametrize("name", BRIEF)
def test_what_a_log_tells_of_a_crash(name):
    log, told = BRIEF[name]
    assert read_crash(log, PACKAGE) == told


@given(st.text(), st.text())
def test_any_log_is_read(before, after):
    log = f"{before}\nF/DEBUG   (1): >>> {PACKAGE} <<<\nF/DEBUG   (1): signal 6 (SIGABRT)\n{after}"
    assert read_crash(log, PACKAGE).isprintable()


def test_an_app_that_is_not_installed(phone, options, tmp_path):
    outcome = run_session(write_models(tmp_path, "a"), phone.serial, options)
    assert f"{PACKAGE} is not installed" in outcome.line


@pytest.mark.parametrize(
    ("field", "value"), [("cpus", "big"), ("op_profile", True)], ids=["cpus", "op_profile"]
)
def test_what_an_app_cannot_do(field, value, app_phone, options, tmp_path):
    settings = dataclasses.replace(SETTINGS, **{field: value})
    with pytest.raises(UsageError, match=f"^{field}: "):
        run_session(write_models(tmp_path, "a"), app_phone.serial, options, settings=settings)


def test_a_path_that_is_none_reaches_no_shell(app_phone, options, tmp_path):
    """The path of the app is the phone's word: it is quoted, or not taken at all."""
    app_phone.set_answer("pm", Answer("package:/data/$(touch${IFS}/data/bad);x\n"))
    outcome = run_session(write_models(tmp_path, "a"), app_phone.serial, options)
    assert outcome.rows[0].tool.sha256 == ""
    assert not (app_phone.root / "data/bad").exists()
