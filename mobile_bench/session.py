"""Takes models through their rounds on one or more targets: rests, failures, resuming."""

from __future__ import annotations

import contextlib
import itertools
import math
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from mobile_bench.errors import FailureError, MeasureError, TargetError, UsageError, one_line
from mobile_bench.models import ModelFile
from mobile_bench.results import DeviceState, Measurement, Settings
from mobile_bench.target import Target, TargetOptions
from mobile_bench.verdicts import SEVERE

MAX_ROUNDS = 1000
_ASK_SECS = 5.0  # between two looks at a device that rests
_MARGIN_CELSIUS = 1.0  # below the bound, so that the first run after a rest does not end above it

Progress = Callable[[int, int, str], None]
OnResult = Callable[[Measurement], None]
Notice = Callable[[str], None]


def run(
    paths: Sequence[str],
    targets: str,
    settings: Settings,
    *,
    options: TargetOptions | None = None,
    rounds: int = 3,
    cooldown_secs: float = 300.0,
    resume_rows: Iterable[Measurement] = (),
    progress: Progress | None = None,
    on_result: OnResult | None = None,
    notice: Notice | None = None,
    stop: threading.Event | None = None,
) -> list[Measurement]:
    """Opens the targets, measures the models on each of them, and closes the targets.

    Args:
        paths: The models; a repeated path is measured once.
        targets: As for `open_targets`.
        settings: How each run is made and judged.
        options: How the targets are reached; None for the defaults.
        rounds: Times that all models are measured, one after the other.
        cooldown_secs: Longest rest of a device that is too hot, before its next model.
        resume_rows: Earlier measurements: what they have is left out (see `plan`).
        progress: Called as (runs done, runs in all, what comes now) before each run and rest.
        on_result: Called with each measurement as soon as it is there; never by two threads at
            once. What it raises ends the measuring.
        notice: Called with a line where a target makes the user wait: a rest, a lost phone.
        stop: Set from outside to end the measuring early; what was measured is returned.

    Returns:
        The new measurements in the order of measuring, valid or not.

    Raises:
        UsageError: An unknown target, or a value out of its range.
        MeasureError: Some runs failed, or a target was lost; it carries the measurements.
        FailureError: No target can be opened.
    """
    check(rounds, cooldown_secs)
    stop = stop or threading.Event()
    opened = open_targets(targets, settings, options or TargetOptions(), stop)
    try:
        return measure_on(
            opened,
            paths,
            settings,
            rounds=rounds,
            cooldown_secs=cooldown_secs,
            resume_rows=resume_rows,
            progress=progress,
            on_result=on_result,
            notice=notice,
            stop=stop,
        )
    finally:
        for target in opened:
            target.close()


def check(rounds: int, cooldown_secs: float) -> None:
    """Raises UsageError unless both are in their range."""
    if not 1 <= rounds <= MAX_ROUNDS:
        raise UsageError(f"rounds: expected 1 to {MAX_ROUNDS}, got {rounds}")
    if not 0 <= cooldown_secs < math.inf:
        raise UsageError(f"cooldown_secs: expected 0 or more, got {cooldown_secs}")


def open_targets(
    names: str, settings: Settings, options: TargetOptions, stop: threading.Event
) -> list[Target]:
    """Returns the targets, open; the caller closes them.

    Args:
        names: "host" (this machine), a phone's serial or its address in the network, "all" (the
            phones that adb knows), or several of these with commas between.
        settings: How each run is made and judged.
        options: How the targets are reached.
        stop: Set when all is to end.

    Raises:
        UsageError: A target cannot do what the settings ask for, or is named twice.
        FailureError: A target is not there, or the runtime is not installed.
    """
    listed = names.split(",")
    if "" in listed or len(set(listed)) < len(listed):
        raise UsageError(
            f"target: expected host, all, serials or addresses, each once, got {one_line(names)!r}"
        )
    phones = [name for name in listed if name != "host"]
    if not phones:
        for name, asked in (
            ("screen", settings.screen != "leave"),
            ("runner", options.runner != "binary"),
        ):
            if asked:
                raise UsageError(f"{name}: for phones only; leave it out, or name a target")
        return [_open_host(settings, options)]
    from mobile_bench.phone.target import open_phones

    opened = open_phones(phones, settings, options, stop)
    if "host" in listed:
        try:
            opened.insert(0, _open_host(settings, replace(options, benchmark_binary=None)))
        except BaseException:
            for target in opened:
                target.close()
            raise
    return opened


def _open_host(settings: Settings, options: TargetOptions) -> Target:
    if options.benchmark_binary is not None:
        from mobile_bench.host.tool import HostToolTarget

        return HostToolTarget(settings, options)
    from mobile_bench.host.target import HostTarget

    return HostTarget(settings, options)


def measure_on(
    targets: Sequence[Target],
    paths: Sequence[str],
    settings: Settings,
    *,
    rounds: int,
    cooldown_secs: float,
    resume_rows: Iterable[Measurement] = (),
    progress: Progress | None = None,
    on_result: OnResult | None = None,
    notice: Notice | None = None,
    stop: threading.Event,
) -> list[Measurement]:
    """Measures on targets that are open, each in a thread of its own where there are several.

    Arguments, result and errors are those of `run`. The caller closes the targets; they are closed
    already when this raises anything but MeasureError.
    """
    files, unreadable = read_files(paths)
    rows, session = list(resume_rows), new_session()
    plans = [plan(files, target, settings, rounds, rows, session) for target in targets]
    report = _Report(sum(map(len, plans)), progress, on_result, notice)
    report.failures.update(unreadable)
    lanes = [
        _Lane(target, runs, settings, cooldown_secs, stop, report, len(targets) > 1)
        for target, runs in zip(targets, plans, strict=True)
    ]
    try:
        if len(lanes) == 1:
            lanes[0].run()
        else:
            _run_in_threads(lanes)
    except BaseException:
        for lane in lanes:
            lane.end()
        raise
    if report.failures:
        raise MeasureError(report.measurements, report.failures)
    return report.measurements


def read_files(paths: Iterable[str]) -> tuple[list[ModelFile], dict[str, str]]:
    """Returns the files that can be read, each once, and by path what is wrong with the others."""
    files, failures = [], {}
    for path in dict.fromkeys(paths):
        try:
            files.append(ModelFile.read(path))
        except FailureError as error:
            failures[path] = one_line(str(error))
    return files, failures


def new_session() -> str:
    """Returns a name for a session that no other has: the date and a random end."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Run:
    """One model, once."""

    file: ModelFile
    session: str
    round_index: int


def plan(
    files: Sequence[ModelFile],
    target: Target,
    settings: Settings,
    rounds: int,
    rows: Iterable[Measurement],
    session: str,
) -> list[Run]:
    """Returns the runs to make on a target: each model once, then each again, for all rounds.

    A row counts, valid or not, where its model's path and bytes, the device, the tool and the
    settings are the same. The rounds that a model has in its last session are left out, and that
    session is gone on with; models without any join the last session of the others.

    Args:
        files: The models.
        target: Tells its device and tool.
        settings: How each run is made and judged.
        rounds: Times that all models are measured.
        rows: Earlier measurements, in the order of measuring.
        session: A new session's name, for where there is none.
    """
    setup = (target.device.identity, target.tool, settings)
    last: dict[tuple[str, str], tuple[str, set[int]]] = {}
    for row in rows:
        if (row.device.identity, row.tool, row.settings) != setup:
            continue
        session, model = row.session, (row.model, row.sha256)
        if model not in last or last[model][0] != session:
            last[model] = (session, set())
        last[model][1].add(row.round)
    runs = []
    for index in range(rounds):
        for file in files:
            joined, done = last.get((file.path, file.sha256), (session, ()))
            if index not in done:
                runs.append(Run(file, joined, index))
    return runs


class _Report:
    """What all targets tell, one at a time: progress, measurements, failures."""

    def __init__(
        self,
        total: int,
        progress: Progress | None,
        on_result: OnResult | None,
        notice: Notice | None,
    ) -> None:
        self.measurements: list[Measurement] = []
        self.failures: dict[str, str] = {}
        self._done, self._total = 0, total
        self._progress, self._on_result, self._notice = progress, on_result, notice
        self._lock = threading.Lock()

    def comes(self, label: str) -> None:
        """Tells what is done next."""
        with self._lock:
            if self._progress is not None:
                self._progress(self._done, self._total, label)

    def waits(self, text: str) -> None:
        """Tells that the user has to wait, and for what."""
        with self._lock:
            if self._notice is not None:
                self._notice(one_line(text))

    def measured(self, measurement: Measurement) -> None:
        with self._lock:
            self._done += 1
            self.measurements.append(measurement)
            if self._on_result is not None:
                self._on_result(measurement)

    def failed(self, label: str, message: str, runs: int) -> None:
        """Keeps a failure; `runs` will not be made because of it."""
        with self._lock:
            self._done += runs
            self.failures[label] = f"{one_line(label)}: {one_line(message)}"


class _Lane:
    """One target on its way through its runs."""

    def __init__(
        self,
        target: Target,
        runs: Sequence[Run],
        settings: Settings,
        cooldown_secs: float,
        stop: threading.Event,
        report: _Report,
        one_of_several: bool,
    ) -> None:
        self._target, self._left, self._settings = target, list(runs), settings
        self._cooldown_secs, self._stop, self._report = cooldown_secs, stop, report
        self._prefix = f"{target.name}: " if one_of_several else ""
        target.notice = lambda text: report.waits(f"{target.name}: {text}")
        self._models = len({run.file for run in runs})
        self._state: DeviceState | None = None  # the last that is known

    def run(self) -> None:
        """Makes all runs; what fails is in the report."""
        try:
            self._prepare()
            while self._left:
                self._rest()
                if self._stop.is_set():
                    return
                self._measure(self._next_batch())
        except TargetError as error:
            if not self._stop.is_set():
                models = len({run.file for run in self._left})
                left = f"{models} of {self._models} models are left; resume to go on with them"
                self._report.failed(self._target.name, f"{error} ({left})", len(self._left))

    def end(self) -> None:
        """Ends what runs; may be called by another thread."""
        self._stop.set()
        self._target.close()

    def _prepare(self) -> None:
        files = list(dict.fromkeys(run.file for run in self._left))
        if not files:
            return
        for path, message in self._target.prepare(files).items():
            self._fail(path, message)

    def _next_batch(self) -> list[Run]:
        """Returns the next runs, of one session and round, as many as the target may take."""
        first = self._left[0]
        together = itertools.takewhile(
            lambda run: (run.session, run.round_index) == (first.session, first.round_index),
            self._left,
        )
        return list(itertools.islice(together, self._target.batch))

    def _measure(self, batch: Sequence[Run]) -> None:
        # Where resting was of no use, it would be of none after each run either.
        may_rest = self._cooldown_secs > 0 and not _too_hot(self._state, self._settings.max_celsius)
        results = self._target.measure(
            [run.file for run in batch], batch[0].session, batch[0].round_index
        )
        with contextlib.closing(results):
            for run, result in zip(self._announced(batch), results, strict=True):
                if isinstance(result, Measurement):
                    self._left.remove(run)
                    self._state = result.after
                    self._report.measured(result)
                    if may_rest and _too_hot(self._state, self._settings.max_celsius):
                        return  # the others of the batch come after a rest
                elif not self._stop.is_set():
                    self._fail(result.path, result.message)

    def _announced(self, batch: Sequence[Run]) -> Iterator[Run]:
        for run in batch:
            self._report.comes(self._prefix + run.file.path)
            yield run

    def _fail(self, path: str, message: str) -> None:
        """Gives up a model, its later rounds included."""
        others = [run for run in self._left if run.file.path != path]
        self._report.failed(self._prefix + path, message, len(self._left) - len(others))
        self._left = others

    def _rest(self) -> None:
        """Waits until the device is cool enough, or for `cooldown_secs`; the verdict tells."""
        left = self._cooldown_secs
        if left and self._state is None:
            self._state = self._target.state()
        bound = self._settings.max_celsius
        if not left or not (why := _too_hot(self._state, bound)):
            return
        if bound is not None and (self._state.battery_celsius or 0) > bound:
            bound -= _MARGIN_CELSIUS
            why = _too_hot(self._state, bound)
        self._target.notice(f"{why}, for {left:g} s at most")
        while left > 0 and (why := _too_hot(self._state, bound)):
            self._report.comes(f"{self._target.name}: {why}")
            pause = min(_ASK_SECS, left)
            if self._stop.wait(pause):
                return
            left -= pause
            self._state = self._target.state()


def _too_hot(state: DeviceState, max_celsius: float | None) -> str | None:
    """Says until when a device has to rest; None where it need not."""
    celsius, thermal = state.battery_celsius, state.thermal_status
    if celsius is not None and max_celsius is not None and celsius > max_celsius:
        return f"battery at {celsius:.1f} C, resting until {max_celsius:.1f} C"
    if thermal is not None and thermal >= SEVERE:
        return f"thermal status {thermal}, resting until it is below {SEVERE}"
    return None


def _run_in_threads(lanes: Sequence[_Lane]) -> None:
    """Runs each lane in a thread; what one raises, or Ctrl-C, ends all of them and is raised."""
    # A pool, as Python before 3.13 takes a thread for ended when Ctrl-C interrupts its join().
    with futures.ThreadPoolExecutor(len(lanes)) as pool:
        try:
            try:
                running = [pool.submit(lane.run) for lane in lanes]
            except RuntimeError as error:  # "can't start new thread"
                raise FailureError(f"several targets at once: {error}; is memory short?") from error
            for ended in futures.as_completed(running):
                ended.result()
        except BaseException:
            for lane in lanes:
                lane.end()
            raise
