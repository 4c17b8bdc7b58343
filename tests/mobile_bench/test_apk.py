"""The benchmark as an app: started by an intent, read from the log."""

import dataclasses

import pytest
from phone_helpers import SETTINGS, make_options, run_session, write_models
from stand_in import Answer, Fault

from mobile_bench.errors import UsageError
from mobile_bench.phone.apk import PACKAGE


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


@pytest.mark.slow
def test_an_app_that_crashes_is_not_waited_for(app_phone, options, tmp_path):
    paths = write_models(tmp_path, "a")
    app_phone.faults.add(Fault("crash"))
    app_phone.set_answer("pidof", Answer(code=1))
    outcome = run_session(paths, app_phone.serial, dataclasses.replace(options, timeout_secs=60.0))
    assert outcome.line.startswith(f"{paths[0]}: the output has no whole line of results")


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
