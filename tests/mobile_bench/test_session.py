"""Rounds over models and targets, with targets that are made up: order, rests, losses, resuming."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
import time
import types

import pytest
from bench_helpers import HOST, STATE, TOOL, make_measurement

from mobile_bench import session
from mobile_bench.errors import FailureError, MeasureError, TargetError, UsageError
from mobile_bench.models import ModelFile
from mobile_bench.results import Settings
from mobile_bench.summary import summarize
from mobile_bench.target import RunFailure, TargetOptions

SETTINGS = Settings()
LONG = 30.0  # seconds within which a thread of a test must have come on


class MadeUp:
    """A target that measures at once.

    Args:
        name: Its name, and that of its device.
        batch: As of any target.
        failing: (path, round) whose run fails.
        refused: As `prepare` returns it.
        lost_after: Results after which it is lost.
        celsius: What its battery has, look by look; the last stays.
    """

    def __init__(self, name="host", batch=1, failing=(), refused=None, lost_after=None, celsius=()):
        self.name, self.batch, self.tool = name, batch, TOOL
        self.device = dataclasses.replace(HOST, target=name)
        self.failing, self.refused, self.lost_after = failing, refused or {}, lost_after
        self.celsius = list(celsius)
        self.calls, self.results, self.looks = [], 0, 0
        self.closed = threading.Event()

    def prepare(self, files):
        self.prepared = [file.path for file in files]
        return self.refused

    def measure(self, files, session, round_index):
        self.calls.append((round_index, [file.path for file in files]))
        for file in files:
            if self.results == self.lost_after:
                raise TargetError("the cable was pulled")
            self.results += 1
            if (file.path, round_index) in self.failing:
                yield RunFailure(file.path, "it crashed")
                continue
            yield row_of(file, self, session=session, round=round_index, after=self.state())

    def state(self):
        self.looks += 1
        celsius = self.celsius.pop(0) if len(self.celsius) > 1 else (self.celsius or [None])[0]
        return dataclasses.replace(STATE, battery_celsius=celsius)

    def close(self):
        self.closed.set()


def row_of(file, target, **changes):
    identity = {"model": file.path, "sha256": file.sha256}
    return make_measurement(
        **identity, device=target.device, tool=target.tool, settings=SETTINGS, **changes
    )


class Clock(threading.Event):
    """Waits no time; keeps the seconds."""

    def __init__(self):
        super().__init__()
        self.waited = []

    def wait(self, timeout=None):
        self.waited.append(timeout)
        return self.is_set()


@pytest.fixture
def paths(tmp_path) -> list[str]:
    found = [tmp_path / f"{name}.tflite" for name in "abc"]
    for path in found:
        path.write_text(path.name)
    return [str(path) for path in found]


def measure(targets, paths, rounds=2, cooldown_secs=0.0, stop=None, **options):
    """Measures, and returns the measurements and what went wrong."""
    stop = stop or threading.Event()
    options |= {"rounds": rounds, "cooldown_secs": cooldown_secs, "stop": stop}
    try:
        return session.measure_on(targets, paths, SETTINGS, **options), {}
    except MeasureError as error:
        return error.measurements, error.failures


def runs(rows):
    return [(row.round, row.model) for row in rows]


def every_run(paths, rounds=2):
    return [(index, path) for index in range(rounds) for path in paths]


def test_rounds_go_over_all_models_and_results_come_at_once(paths):
    steps, results, target = [], [], MadeUp()
    rows, failures = measure(
        [target],
        [*paths, paths[0]],
        progress=lambda *step: steps.append(step),
        on_result=lambda row: results.append((len(steps), row)),
    )
    assert failures == {}
    assert runs(rows) == every_run(paths)
    assert steps == [(done, 6, path) for done, (_, path) in enumerate(every_run(paths))]
    assert results == list(enumerate(rows, start=1))
    assert len({row.session for row in rows}) == 1
    assert target.prepared == paths


def test_a_batch_is_of_one_round(paths):
    target = MadeUp(batch=2)
    rows, _ = measure([target], paths)
    assert runs(rows) == every_run(paths)
    assert target.calls == [(i, part) for i in range(2) for part in (paths[:2], paths[2:])]


def test_a_model_that_fails_is_given_up_and_the_others_go_on(paths):
    steps, target = [], MadeUp(batch=3, failing=[(paths[1], 0)])
    rows, failures = measure([target], paths, progress=lambda *step: steps.append(step))
    assert runs(rows) == every_run([paths[0], paths[2]])
    assert failures == {paths[1]: f"{paths[1]}: it crashed"}
    assert target.calls == [(0, paths), (1, [paths[0], paths[2]])]
    assert steps[-1] == (5, 6, paths[2])  # the run that is not made is no work left


def test_what_was_measured_of_a_failing_model_stays(paths):
    rows, failures = measure([MadeUp(failing=[(paths[1], 1)])], paths)
    assert (1, paths[1]) not in runs(rows)
    assert (0, paths[1]) in runs(rows)
    assert list(failures) == [paths[1]]


def test_refused_and_unreadable_models_are_told_and_left_out(paths):
    refused = {paths[0]: "the phone's storage is full"}
    rows, failures = measure([MadeUp(refused=refused)], [*paths, "no\nsuch"], rounds=1)
    assert runs(rows) == every_run(paths[1:], 1)
    assert failures == {
        "no\nsuch": r"no\nsuch: no such file",
        paths[0]: f"{paths[0]}: the phone's storage is full",
    }


def test_targets_are_measured_side_by_side(paths):
    meeting = threading.Barrier(2)

    class Meeting(MadeUp):
        def prepare(self, files):
            meeting.wait(LONG)  # breaks unless both are here at once
            return super().prepare(files)

    targets = [Meeting("one", batch=2), Meeting("two", failing=[(paths[0], 0)])]
    busy, labels = threading.Lock(), []

    def on_result(row):
        assert busy.acquire(blocking=False)
        busy.release()

    rows, failures = measure(
        targets, paths, on_result=on_result, progress=lambda *step: labels.append(step[2])
    )
    expected = {"one": every_run(paths), "two": every_run(paths[1:])}
    for name, made in expected.items():
        assert runs(row for row in rows if row.device.target == name) == made
    assert failures == {f"two: {paths[0]}": f"two: {paths[0]}: it crashed"}
    assert set(labels) == {f"{name}: {path}" for name in expected for path in paths}


@pytest.mark.parametrize(
    ("celsius", "calls"),
    [
        ([30.0, 38.0, 36.0], ["abc", "bc"]),  # the first run warms it, the rest cools it
        ([38.0] * 4, ["abc"]),  # no rest helps: none after each run
    ],
)
def test_a_batch_is_left_for_a_rest(celsius, calls, paths):
    target = MadeUp(batch=3, celsius=celsius)
    rows, failures = measure([target], paths, rounds=1, cooldown_secs=5.0, stop=Clock())
    assert (runs(rows), failures) == (every_run(paths, 1), {})
    names = {path: name for name, path in zip("abc", paths, strict=True)}
    assert ["".join(names[path] for path in each) for _, each in target.calls] == calls


@pytest.mark.parametrize("several", [False, True])
def test_a_lost_target_keeps_its_rows_and_the_others_go_on(paths, several):
    targets = [MadeUp("one", batch=3, lost_after=4), MadeUp("two")][: 1 + several]
    rows, failures = measure(targets, paths)
    lost = [row for row in rows if row.device.target == "one"]
    assert runs(lost) == every_run(paths)[:4]
    assert len(rows) - len(lost) == 6 * several
    assert failures == {
        "one": "one: the cable was pulled (2 of 3 models are left; resume to go on with them)"
    }


def test_what_a_callback_raises_ends_all_targets(paths):
    class Slow(MadeUp):
        def measure(self, files, session, round_index):
            assert self.closed.wait(LONG)
            raise TargetError("the measuring was ended")
            yield

    def on_result(row):
        raise FailureError("rows.jsonl: cannot be written: No space left on device")

    targets = [MadeUp("one"), Slow("two")]
    with pytest.raises(FailureError, match="No space left on device"):
        measure(targets, paths, on_result=on_result)
    assert all(target.closed.is_set() for target in targets)


@pytest.mark.parametrize("several", [False, True])
def test_ctrl_c_ends_all_targets(paths, several):
    class Interrupted(MadeUp):
        def measure(self, files, session, round_index):
            yield from super().measure(files[:1], session, round_index)
            if self.name == "one":
                time.sleep(0.1)  # until the main thread waits for the others
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert self.closed.wait(LONG)  # in the main thread this is where the signal comes out
            raise TargetError("the measuring was ended")

    before, results = threading.active_count(), []
    targets = [Interrupted("one", batch=3), Interrupted("two", batch=3)][: 1 + several]
    with pytest.raises(KeyboardInterrupt):
        measure(targets, paths, on_result=results.append)
    assert all(target.closed.is_set() for target in targets)
    assert {row.model for row in results} == {paths[0]}
    assert threading.active_count() == before


def test_stopping_from_outside_returns_what_there_is(paths):
    stop = threading.Event()
    rows, failures = measure([MadeUp()], paths, stop=stop, on_result=lambda row: stop.set())
    assert (runs(rows), failures) == (every_run(paths)[:1], {})


@pytest.mark.parametrize(
    ("celsius", "cooldown_secs", "waited", "rests"),
    [
        ([37.0], 60.0, [], 0),
        ([None], 60.0, [], 0),
        # Two looks before it is cool, with a degree in hand; from then on it stays so.
        ([39.14, 36.5, 36.0], 60.0, [5.0, 5.0], 1),
        ([39.14], 12.0, 2 * [5.0, 5.0, 2.0], 2),  # it does not cool: a rest for each of two batches
        ([39.14], 0.0, [], 0),
    ],
)
def test_a_hot_device_rests_before_a_batch(paths, celsius, cooldown_secs, waited, rests):
    stop, labels, notices, target = Clock(), [], [], MadeUp(batch=2, celsius=celsius)
    rows, _ = measure(
        [target],
        paths,
        rounds=1,
        cooldown_secs=cooldown_secs,
        stop=stop,
        progress=lambda *step: labels.append(step[2]),
        notice=notices.append,
    )
    assert runs(rows) == every_run(paths, 1)  # measured in the end: the verdict tells
    assert stop.waited == waited
    resting = [label for label in labels if label not in paths]
    assert len(resting) == len(waited)
    why = "host: battery at 39.1 C, resting until 36.0 C"
    assert resting[:1] == [why][: len(waited)]
    assert notices == [f"{why}, for {cooldown_secs:g} s at most"] * rests


def test_a_device_that_throttles_rests(paths):
    class Throttling(MadeUp):
        def state(self):
            self.looks += 1
            return dataclasses.replace(STATE, thermal_status=4 if self.looks < 3 else 2)

    stop, labels = Clock(), []
    measure(
        [Throttling()],
        paths[:1],
        rounds=1,
        cooldown_secs=60.0,
        stop=stop,
        progress=lambda *step: labels.append(step[2]),
    )
    assert stop.waited == [5.0, 5.0]
    assert labels[0] == "host: thermal status 4, resting until it is below 3"


def test_a_rest_ends_when_all_ends(paths):
    class Stopped(Clock):
        def wait(self, timeout=None):
            self.set()
            return super().wait(timeout)

    stop, target = Stopped(), MadeUp(celsius=[50.0])
    rows, failures = measure([target], paths, cooldown_secs=600.0, stop=stop)
    assert (rows, failures, target.calls, stop.waited) == ([], {}, [], [5.0])


def plan(paths, rows, rounds=2, target=None):
    files = [ModelFile.read(path) for path in paths]
    made = session.plan(files, target or MadeUp(), SETTINGS, rounds, rows, "new")
    return [(run.round_index, run.file.path, run.session) for run in made]


def test_resuming_leaves_out_the_rounds_of_the_last_session(paths):
    files, target = [ModelFile.read(path) for path in paths], MadeUp()
    rows = [
        row_of(files[0], target, session="old", round=0),
        row_of(files[0], target, session="old", round=1),
        row_of(files[0], target, session="last", round=0),
        row_of(files[1], target, session="last", round=0),
    ]
    assert plan(paths, rows) == [
        (0, paths[2], "last"),
        *((1, path, "last") for path in paths),
    ]
    assert len(plan(paths, rows, rounds=3)) == 7  # more rounds go on with the same session
    assert plan(paths, rows[:3], rounds=1) == [(0, path, "last") for path in paths[1:]]
    assert plan(paths[:1], rows[:2]) == []


def test_a_model_goes_on_with_its_own_session(paths):
    files, target = [ModelFile.read(path) for path in paths], MadeUp(batch=3)
    rows = [
        row_of(files[0], target, session="first", round=0),
        row_of(files[1], target, session="second", round=0),
    ]
    made, _ = measure([target], paths, resume_rows=rows)
    assert [(row.model, row.session) for row in made] == [
        (paths[2], "second"),
        (paths[0], "first"),
        (paths[1], "second"),
        (paths[2], "second"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "elsewhere.tflite"},
        {"sha256": "1" * 64},
        {"settings": Settings(threads=2)},
        {"device": dataclasses.replace(HOST, build="another")},
        {"tool": dataclasses.replace(TOOL, version="another")},
    ],
)
def test_rows_of_anything_else_do_not_count(paths, change):
    row = dataclasses.replace(row_of(ModelFile.read(paths[0]), MadeUp(), session="old"), **change)
    left = plan(paths[:1], [row], rounds=1)
    assert [entry[:2] for entry in left] == [(0, paths[0])]


def test_resuming_measures_nothing_that_is_there(paths):
    target = MadeUp()
    rows, _ = measure([target], paths)
    assert measure([target], paths, resume_rows=rows) == ([], {})


def test_a_phone_is_the_same_by_cable_and_by_wifi(paths):
    cable, wifi = MadeUp("R58"), MadeUp("192.0.2.4:5555")
    cable.device = dataclasses.replace(cable.device, serial="R58", core_max_khz=(1, 2))
    wifi.device = dataclasses.replace(wifi.device, serial="R58", core_max_khz=(1, None))
    rows, _ = measure([cable], paths, rounds=1)
    again, _ = measure([wifi], paths, rounds=2, resume_rows=rows)
    assert runs(again) == [(1, path) for path in paths]
    assert [len(summary.rounds) for summary in summarize([*rows, *again])] == [2] * len(paths)


@pytest.fixture
def phones(monkeypatch):
    """Stands for the phones: what they were opened with, and the targets that came of it."""
    opened = types.SimpleNamespace(asked=[], targets=[])

    def open_phones(names, settings, options, stop):
        opened.asked.append((names, settings, options, stop))
        opened.targets = [MadeUp(name) for name in names]
        return opened.targets

    module = types.SimpleNamespace(open_phones=open_phones)
    monkeypatch.setitem(sys.modules, "mobile_bench.phone.target", module)
    return opened


def test_targets_are_opened_by_name_and_closed(phones, paths):
    options, stop = TargetOptions(batch=7), threading.Event()
    rows = session.run(paths, "R58,192.0.2.4", SETTINGS, options=options, rounds=1, stop=stop)
    assert phones.asked == [(["R58", "192.0.2.4"], SETTINGS, options, stop)]
    assert len(rows) == 6
    assert all(target.closed.is_set() for target in phones.targets)


def test_the_host_and_a_phone_can_be_measured_together(phones):
    targets = session.open_targets("R58,host", SETTINGS, TargetOptions(), threading.Event())
    assert [target.name for target in targets] == ["host", "R58"]


def test_a_host_that_cannot_serve_leaves_no_phone_open(phones):
    hexagon = dataclasses.replace(SETTINGS, delegate="hexagon")
    with pytest.raises(UsageError, match="delegate: the host's runtime has"):
        session.open_targets("R58,host", hexagon, TargetOptions(), threading.Event())
    assert [target.closed.is_set() for target in phones.targets] == [True]


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [({"screen": "on"}, {}, "screen: for phones"), ({}, {"runner": "apk"}, "runner: for phones")],
)
def test_what_only_phones_have_is_refused_for_the_host(settings, options, message):
    asked = dataclasses.replace(SETTINGS, **settings), TargetOptions(**options)
    with pytest.raises(UsageError, match=message):
        session.open_targets("host", *asked, threading.Event())


@pytest.mark.parametrize("names", ["", "a,", "host,host", ","])
def test_names_that_name_nothing_or_twice_are_refused(names):
    with pytest.raises(UsageError, match="target: expected host, all, serials or addresses"):
        session.open_targets(names, SETTINGS, TargetOptions(), threading.Event())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "batch: expected 1 to 1000, got 0"),
        ({"timeout_secs": 0.0}, "timeout_secs: expected more than 0, got 0.0"),
        ({"timeout_secs": float("nan")}, "timeout_secs: expected more than 0, got nan"),
        ({"runner": "ssh"}, "runner: expected one of binary, apk, got 'ssh'"),
    ],
)
def test_options_out_of_range_are_named(changes, message):
    with pytest.raises(UsageError, match=message):
        TargetOptions(**changes)
