"""Measuring on stand-in phones through the real adb: records, rounds, batches, what is left."""

import dataclasses
import threading
from pathlib import Path
from unittest import mock

import pytest
from phone_helpers import SETTINGS, make_options, remote_files, run_session, write_models
from stand_in import MODERN, OLD

from mobile_bench.adb.device import FOLDER, ShellResult
from mobile_bench.adb.errors import DeviceError
from mobile_bench.errors import FailureError, TargetError, UsageError
from mobile_bench.models import ModelFile
from mobile_bench.phone.install import intact
from mobile_bench.phone.lock import DeviceLock
from mobile_bench.phone.target import LostPhone, clean, open_phones
from mobile_bench.results import Affinity, Delegation
from mobile_bench.target import TargetOptions


@pytest.fixture
def options(adb, tool_path):
    return make_options(adb, tool_path)


@pytest.fixture
def paths(tmp_path):
    return write_models(tmp_path, "abc")


def with_settings(**changes):
    return {"settings": dataclasses.replace(SETTINGS, **changes)}


def test_a_model_is_really_run_on_a_phone(models, make_phone, options):
    """The stand-in's tool runs the model with LiteRT and writes all that it can write."""
    phone = make_phone()
    phone.battery_celsius, phone.heat_per_run = 30.0, 0.5
    outcome = run_session(
        [str(models["float32"])],
        phone.serial,
        options,
        **with_settings(cpus="big", threads=2, op_profile=True, num_runs=20),
    )
    (row,) = outcome.rows
    assert outcome.lines == []
    assert row.verdict.reasons == ()
    assert row.sha256 == ModelFile.read(str(models["float32"])).sha256
    assert (row.device.model, row.device.target) == ("LE2113", phone.serial)
    assert (row.tool.name, row.tool.version) == ("benchmark_model", "current")
    assert row.command.startswith("taskset f0 /data/local/tmp/mobile_bench/tool-")
    assert "--num_threads=2" in row.command
    assert row.affinity == Affinity((4, 5, 6, 7), (4, 5, 6, 7))
    assert row.delegation.delegate == "xnnpack"
    assert row.delegation.complete
    times = row.timings
    assert times.count >= 20
    assert times.warmup_count >= 1
    assert 0 < times.min_us <= times.p5_us <= times.median_us <= times.p95_us <= times.max_us
    assert row.memory is not None
    assert sum(op.percent for op in row.profile) == pytest.approx(100, abs=2)
    # The question for its help has warmed it once before.
    assert (row.before.battery_celsius, row.after.battery_celsius) == (30.5, 31.0)
    assert row.before.date <= row.after.date
    assert row.before.core_khz == tuple(phone.core_khz)


def test_a_session_over_two_phones(make_phone, options, tmp_path):
    """Rounds go over all models on each phone; the old phone has neither shell v2 nor hashes."""
    phones = [make_phone(), make_phone(OLD, features=("cmd",))]
    phones[1].crlf = True
    phones[1].remove_command("sha256sum")
    for phone in phones:
        phone.tool.instant = True
    paths = write_models(tmp_path, "abcdef")
    names = ",".join(phone.serial for phone in phones)
    outcome = run_session(paths, names, options, rounds=2)
    assert outcome.lines == []
    for phone in phones:
        rows = [row for row in outcome.rows if row.device.target == phone.serial]
        assert [(Path(row.model).stem, row.round) for row in rows] == [
            (name, index) for index in range(2) for name in "abcdef"
        ]
        assert {row.verdict.reasons for row in rows} == {()}
        assert {row.timings.count for row in rows} == {5}
        assert len(rows[0].before.core_khz) == 8
        assert len([path for _, path, _ in phone.transfers if "/models/" in path]) >= 6


def test_few_round_trips_per_model(phone, options, tmp_path):
    """A batch costs two: the script is pushed and run. Models that are there are not pushed again,
    and new ones go over one connection, with a look at what is there before and after."""
    paths = write_models(tmp_path, "abcd")
    files = [ModelFile.read(path) for path in paths]
    (target,) = open_phones([phone.serial], SETTINGS, options, threading.Event())
    phone.log.clear()
    assert target.prepare(files) == {}
    assert (phone.round_trips(), len(phone.transfers)) == (1 + 1 + 1, 1 + len(files))
    phone.log.clear()
    phone.transfers.clear()
    results = list(target.measure(files, "session", 0))
    assert [result.model for result in results] == paths
    assert phone.round_trips() == 2
    phone.log.clear()
    phone.transfers.clear()
    assert target.prepare(files) == {}
    assert (phone.round_trips(), phone.transfers) == (1, [])
    target.close()
    phone.log.clear()
    (target,) = open_phones([phone.serial], SETTINGS, options, threading.Event())
    target.close()
    assert not [path for _, path, _ in phone.transfers if "tool" in path]


@pytest.mark.parametrize("generation", ["2020", "2019"])
def test_tools_of_earlier_years(generation, phone, options, paths):
    """They print no percentiles, and have neither result files nor, in 2019, XNNPACK."""
    phone.tool.generation = generation
    phone.tool.delegates = () if generation == "2019" else ("xnnpack",)
    delegate = "cpu" if generation == "2019" else "xnnpack"
    (row,) = run_session(paths[:1], phone.serial, options, **with_settings(delegate=delegate)).rows
    assert row.verdict.reasons == ()
    assert (row.tool.version, row.timings.count, row.timings.median_us) == (generation, 5, None)
    assert row.timings.typical_us == row.timings.mean_us


@pytest.mark.slow
def test_batches_and_resuming(phone, options, paths):
    batched = dataclasses.replace(options, batch=2)
    first = run_session(paths, phone.serial, batched, rounds=2)
    assert first.measured == list("abcabc")
    rows = [row for row in first.rows if (row.round, Path(row.model).stem) != (1, "b")]
    again = run_session(paths, phone.serial, batched, rounds=2, resume_rows=rows)
    assert [(row.round, row.session) for row in again.rows] == [(1, first.rows[0].session)]
    assert again.measured == ["b"]


def test_affinity_that_is_not_granted_is_told(phone, options, paths):
    phone.taskset_ignored = True
    (row,) = run_session(paths[:1], phone.serial, options, **with_settings(cpus="0x3")).rows
    assert row.affinity == Affinity((0, 1), tuple(range(8)))
    assert [reason.partition(":")[0] for reason in row.verdict.reasons] == ["affinity"]
    phone.taskset_ignored = False
    (row,) = run_session(paths[:1], phone.serial, options, **with_settings(cpus="auto")).rows
    assert row.affinity == Affinity((7,), (7,))
    phone.online = [0, 1, 2, 3]
    outcome = run_session(paths[:1], phone.serial, options, **with_settings(cpus="big"))
    assert "cpus: `taskset f0` does not work on this phone" in outcome.line
    assert "failed to set pid" in outcome.line
    phone.remove_command("taskset")
    outcome = run_session(paths[:1], phone.serial, options, **with_settings(cpus="0"))
    assert "leave cpus out" in outcome.line
    with pytest.raises(UsageError, match="not to 8"):
        run_session(paths[:1], phone.serial, options, **with_settings(cpus="8"))


def test_a_delegate_that_is_not_there_or_takes_a_part(phone, options, paths):
    outcome = run_session(paths, phone.serial, options, **with_settings(delegate="gpu"))
    assert "built without the gpu delegate" in outcome.line
    assert outcome.rows == []
    phone.tool.delegates = ("xnnpack", "gpu")
    phone.tool.partitions = 3
    (row,) = run_session(paths[:1], phone.serial, options, **with_settings(delegate="gpu")).rows
    assert row.delegation == Delegation("gpu", 3, 212, 12, complete=False)
    assert row.verdict.reasons == ("fallback: gpu did not take all of the model: 12 of 212 ops",)


@pytest.mark.parametrize(
    ("partitions", "expected"),
    [
        (3, "gpu did not take all of the model: 12 of 212 ops"),
        (None, "the tool does not tell whether gpu took all of the model"),
    ],
)
def test_a_tool_of_2019_does_not_pass_off_a_part_as_the_whole(
    partitions, expected, phone, options, paths
):
    phone.tool.generation, phone.tool.delegates = "2019", ("gpu",)
    phone.tool.partitions = partitions
    (row,) = run_session(paths[:1], phone.serial, options, **with_settings(delegate="gpu")).rows
    assert row.verdict.reasons == (f"fallback: {expected}",)


def test_a_single_slow_run_is_whole(phone, options, paths):
    """Its time has all digits in one line and six in another."""
    phone.tool.mean_us, phone.tool.std_us = 4_204_739.0, 0.0
    (row,) = run_session(paths[:1], phone.serial, options, **with_settings(num_runs=1)).rows
    assert row.verdict.reasons == ()
    assert (row.timings.count, row.timings.mean_us) == (1, pytest.approx(4_204_739, abs=1))


def test_throttling_in_a_run_is_told(phone, options, paths):
    def throttle(device, run):
        device.core_limit_khz[7] = 1_000_000

    phone.on_run = lambda device, run: throttle(device, run) if "--help" not in run.arguments else 0
    (row,) = run_session(paths[:1], phone.serial, options).rows
    assert [reason.partition(":")[0] for reason in row.verdict.reasons] == ["throttled"]


def test_a_limit_from_before_the_run_on_is_a_note(phone, options, paths):
    phone.core_limit_khz[7] = 1_000_000
    (row,) = run_session(
        paths[:1], phone.serial, options, **with_settings(cpus="big", threads=5)
    ).rows
    assert row.verdict.reasons == ()
    assert [note.partition(":")[0] for note in row.verdict.notes] == ["clocks", "threads"]
    (row,) = run_session(paths[:1], phone.serial, options, **with_settings(cpus="big")).rows
    assert [note.partition(":")[0] for note in row.verdict.notes] == ["clocks", "cores"]


def test_a_battery_that_makes_no_sense_is_told_once(phone, options, paths):
    phone.battery_fields = {"temperature": "3570", "status": "5", "level": "174", "scale": "200"}
    notices = []
    rows = run_session(paths, phone.serial, options, notice=notices.append).rows
    assert len(rows) == 3
    (notice,) = notices
    assert notice.startswith(f"{phone.serial}: battery: its temperature 3570 makes no sense in ")
    # thermalservice has it as well
    assert {row.after.battery_celsius for row in rows} == {28.5}
    assert {(row.after.battery_percent, row.after.charging) for row in rows} == {(87, False)}
    notices.clear()
    phone.battery_fields = {"present": "false", "temperature": "0"}
    (row,) = run_session(paths[:1], phone.serial, options, notice=notices.append).rows
    assert (row.before.battery_celsius, row.after.battery_celsius, notices) == (None, None, [])


@pytest.mark.parametrize(
    ("screen", "at_start", "in_runs"), [("on", False, True), ("off", True, False)]
)
def test_the_screen_is_as_asked_and_left_as_found(screen, at_start, in_runs, phone, options, paths):
    phone.awake = at_start
    phone.settings["global", "stay_on_while_plugged_in"] = "3"
    (row,) = run_session(paths[:1], phone.serial, options, **with_settings(screen=screen)).rows
    assert (row.before.screen_on, row.after.screen_on) == (in_runs, in_runs)
    assert phone.awake == at_start
    assert phone.settings["global", "stay_on_while_plugged_in"] == "3"


def test_a_screen_that_was_never_kept_on_is_left_so(phone, options, paths):
    phone.settings.pop(("global", "stay_on_while_plugged_in"), None)
    run_session(paths[:1], phone.serial, options, **with_settings(screen="on"))
    assert ("global", "stay_on_while_plugged_in") not in phone.settings


def test_one_phone_that_cannot_do_what_is_asked_leaves_the_others(make_phone, options, paths):
    small = dataclasses.replace(
        MODERN, core_max_khz=MODERN.core_max_khz[:4], core_min_khz=MODERN.core_min_khz[:4]
    )
    phones = [make_phone(), make_phone(small)]
    for each in phones:
        each.tool.instant = True
    names = ",".join(each.serial for each in phones)
    outcome = run_session(paths[:1], names, options, **with_settings(cpus="7"))
    assert [row.device.target for row in outcome.rows] == [phones[0].serial]
    assert outcome.line.startswith(f"{phones[1].serial}: cpus: ")
    with pytest.raises(UsageError, match="not to 9"):
        run_session(paths[:1], names, options, **with_settings(cpus="9"))


def test_what_is_closed_is_not_locked_again(phone, options, paths):
    (target,) = open_phones([phone.serial], SETTINGS, options, threading.Event())
    target.close()
    with pytest.raises(TargetError, match="stopped"):
        target.state()
    assert not [name for name in remote_files(phone) if name.startswith("lock")]


def test_all_phones_with_one_that_cannot_be_used(make_phone, tool_path, paths, own_adb):
    phone, other = make_phone(connect=False), make_phone(connect=False)
    phone.tool.instant, other.authorized = True, False
    for each in (phone, other):
        own_adb.connect(each)
    options = make_options(own_adb, tool_path)
    opened = open_phones(["all"], SETTINGS, options, threading.Event())
    try:
        assert {target.name for target in opened} == {phone.serial, other.serial}
        lost = [target for target in opened if isinstance(target, LostPhone)]
        assert [target.name for target in lost] == [other.serial]
    finally:
        for target in opened:
            target.close()
    outcome = run_session(paths, f"{phone.serial},{other.serial}", options)
    assert outcome.measured == ["a", "b", "c"]
    assert outcome.line.startswith(f"{other.serial}: ")
    assert "3 of 3 models are left" in outcome.line


def test_the_lock_is_kept_while_models_are_pushed(phone, options, paths, monkeypatch):
    monkeypatch.setattr("mobile_bench.phone.target._STAMP_SECS", 0.0)
    renewed = []
    acquire = DeviceLock.acquire
    monkeypatch.setattr(DeviceLock, "acquire", lambda lock: (renewed.append(lock), acquire(lock)))
    assert run_session(paths, phone.serial, options).measured == ["a", "b", "c"]
    assert len(renewed) == 1 + 3


def test_large_files_have_more_time_to_be_hashed():
    device = mock.Mock()
    device.shell.return_value = ShellResult("", "", 0, cut=False)
    remotes = {f"{FOLDER}/models/{index}.tflite": "0" * 64 for index in range(3)}
    for size_bytes, least in ((1000, 60), (4 * 10**9, 200)):
        assert intact(device, remotes, size_bytes) == set()
        assert device.shell.call_args.kwargs["timeout_secs"] >= least


def test_an_address_is_connected(make_phone, options, paths):
    phone = make_phone(connect=False)
    phone.tool.instant = True
    assert run_session(paths[:1], phone.serial, options).measured == ["a"]


def test_without_a_tool_the_user_is_told_where_to_get_it(phone, adb, paths):
    with pytest.raises(UsageError, match=r"benchmark_binary: .*docs/PHONES\.md"):
        run_session(paths, phone.serial, make_options(adb, None))


def test_clean_removes_what_was_put_there(phone, options, paths):
    run_session(paths, phone.serial, options)
    assert len(remote_files(phone)) == 4
    (held,) = open_phones([phone.serial], SETTINGS, options, threading.Event())
    (why,) = clean([phone.serial], options).values()
    assert "another session" in why
    assert len(remote_files(phone)) >= 4
    held.close()
    assert clean([phone.serial], options) == {phone.serial: ""}
    assert not (phone.root / FOLDER.lstrip("/")).exists()


@pytest.mark.slow
def test_clean_frees_a_phone_that_is_full(phone, options, paths, monkeypatch):
    """There is no room for a lock then."""
    run_session(paths, phone.serial, options)

    def refuse(lock):
        raise DeviceError("storage", "No space left on device")

    monkeypatch.setattr(DeviceLock, "acquire", refuse)
    assert clean([phone.serial], options) == {phone.serial: ""}
    assert remote_files(phone) == []


def test_a_port_that_is_none():
    options = TargetOptions(environ={"ANDROID_ADB_SERVER_PORT": "70000"})
    with pytest.raises(UsageError, match="ANDROID_ADB_SERVER_PORT"):
        open_phones(["all"], SETTINGS, options, threading.Event())


def test_no_phone_at_all(own_adb, tool_path):
    with pytest.raises(FailureError, match="adb knows no phone"):
        open_phones(["all"], SETTINGS, make_options(own_adb, tool_path), threading.Event())
