"""Measures models on a phone over adb: in batches, past crashes, hangs and lost connections."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

from mobile_bench.adb.device import FOLDER, AdbDevice, Script
from mobile_bench.adb.errors import DeviceError, refusal, unusable
from mobile_bench.adb.server import Adb, find_adb
from mobile_bench.errors import FailureError, RunError, TargetError, UsageError
from mobile_bench.models import ModelFile
from mobile_bench.phone.apk import ApkRunner
from mobile_bench.phone.batch import PACKAGE, BatchReader, Run, end_script, make_script
from mobile_bench.phone.binary import BinaryRunner
from mobile_bench.phone.crash import read_crash
from mobile_bench.phone.description import (
    STATE_SECS,
    describe_phone,
    read_state,
    state_script,
)
from mobile_bench.phone.install import end_session_script, make_folders, push_models
from mobile_bench.phone.lock import DeviceLock
from mobile_bench.phone.record import make_measurement
from mobile_bench.phone.screen import Screen
from mobile_bench.results import Device, DeviceState, Measurement, Settings, Tool
from mobile_bench.target import RunFailure, Target, TargetOptions
from mobile_bench.topology import resolve_cpus

_STAMP_SECS = 20.0  # of pushing, after which the lock is renewed
_BACK_SECS = 120.0  # for a phone to come back that was lost; many take a minute to restart
_ATTEMPTS = 2  # at a model in whose run the phone is lost
_MOST_LOSSES = 3  # of the phone, without a model measured in between
_END_SECS = 20.0
_MOST_BYTES = 16 * 2**20  # that a run may print
_LASTING = ("storage", "refused", "locked")  # kinds of errors that waiting does not help

_T = TypeVar("_T")


class Phone:
    """One phone, locked for this session; see `target.Target` for what it does.

    Args:
        device: The phone.
        settings: How each run is made and judged.
        options: The tool, and how it is run.
        stop: Ends all waiting when it is set.

    Raises:
        UsageError: The phone, or its tool, cannot do what the settings ask for.
        FailureError: It does not answer, is measured by another session, or the tool does not
            run on it.
    """

    def __init__(
        self,
        device: AdbDevice,
        settings: Settings,
        options: TargetOptions,
        stop: threading.Event,
    ) -> None:
        self._phone, self._settings, self._stop = device, settings, stop
        self._run_secs = 2 * settings.max_secs + options.timeout_secs
        self._lock = DeviceLock(device, self._run_secs + _BACK_SECS)
        self._runner: ApkRunner | BinaryRunner | None = None
        self._screen: Screen | None = None
        self._closing = threading.Lock()
        self._locked = False
        self._told_odd = False
        self.name, self.batch = device.serial, options.batch
        self.notice: Callable[[str], None] = lambda text: None
        self.device: Device = describe_phone(device)
        self._cpus = resolve_cpus(settings.cpus, self.device, settings.threads)
        try:
            self._lock.acquire()
            self._locked = True
            make_folders(device)
            if options.runner == "apk":
                self._runner = ApkRunner(device, self._cpus, settings, options)
            else:
                self._runner = BinaryRunner(device, self.device, self._cpus, settings, options)
            self._screen = Screen(device, settings.screen)
        except BaseException:
            self.close()
            raise
        self.tool: Tool = self._runner.tool

    def prepare(self, files: Sequence[ModelFile]) -> dict[str, str]:
        """Puts the models on the phone; see `Target.prepare`."""
        stamped = time.monotonic()

        def keep_lock() -> None:
            nonlocal stamped
            if time.monotonic() - stamped > _STAMP_SECS:
                with self._not_closed():
                    self._lock.acquire()
                stamped = time.monotonic()

        return self._persist(lambda: push_models(self._phone, files, keep_lock, self._stop))

    def state(self) -> DeviceState:
        """Returns how the phone is now, and keeps the lock; see `Target.state`."""

        def ask() -> DeviceState:
            with self._not_closed():
                self._lock.acquire()
            return read_state(self._phone)

        state = self._persist(ask)
        self._tell_odd(state)
        return state

    def _tell_odd(self, state: DeviceState) -> None:
        """Tells once for all what is odd about what the phone says of itself."""
        if state.notes and not self._told_odd:
            self._told_odd = True
            self.notice("; ".join(state.notes))

    def measure(
        self, files: Sequence[ModelFile], session: str, round_index: int
    ) -> Generator[Measurement | RunFailure, None, None]:
        """Runs each model once; see `Target.measure`."""
        left = list(files)
        attempts = losses = 0
        while left:
            try:
                with contextlib.closing(self._runs(tuple(left))) as runs:
                    for run in runs:
                        attempts = losses = 0
                        yield self._result(run, left.pop(0), session, round_index)
            except RunError as error:
                attempts = losses = 0
                yield RunFailure(left.pop(0).path, str(error))
            except DeviceError as error:
                attempts, losses = attempts + 1, losses + 1
                self._wait_until_back(error, losses)
                if attempts == _ATTEMPTS:
                    attempts = 0
                    why = f"the phone was lost in this run, {_ATTEMPTS} times: {self._text(error)}"
                    yield RunFailure(left.pop(0).path, why)

    def close(self) -> None:
        """Ends what runs, restores the screen and gives back the lock; see `Target.close`."""
        with self._closing:
            if not self._locked:
                self._lock.forget()  # it may be there all the same: only its answer was lost
                return
            self._locked = False
            try:
                self._end()
                if self._screen is not None:
                    self._screen.restore()
                self._lock.release()
            except FailureError:  # it is gone
                self._lock.forget()

    def _runs(self, files: Sequence[ModelFile]) -> Iterator[Run]:
        """Yields the runs of a batch as they end; when left early, what runs is ended.

        Raises:
            RunError: The run that is on had to be ended.
            DeviceError: The phone was lost in it.
        """
        token = secrets.token_hex(16)
        reader = BatchReader(len(files), token)
        script = make_script(
            [self._runner.words(file) for file in files],
            token=token,
            folder=FOLDER,
            launcher=self._runner.launcher,
            state=self._lock.stamp_script() + state_script(),
        )
        try:
            yield from self._read(script, reader)
            if reader.done < len(files):
                self._check_stop()
                raise DeviceError("gone", f"{self.name}: the shell ended in the middle of a run")
        except DeviceError as error:
            self._check_stop()
            # Where the phone answers, the run was the one that did not.
            hangs = error.kind == "timeout" and reader.running
            if not hangs and error.kind != "output":
                raise
            self._end()
            raise RunError(self._why_ended(error)) from error
        except BaseException:  # stopped, Ctrl-C, or a caller that wants no more
            with contextlib.suppress(FailureError):
                self._end()
            raise

    def _read(self, script: str, reader: BatchReader) -> Iterator[Run]:
        state_secs = max(self._run_secs, STATE_SECS)
        with self._phone.stream(
            Script(script),
            idle_secs=state_secs,
            deadline_secs=state_secs,
            max_bytes=_MOST_BYTES,
            stop=self._stop,
        ) as stream:
            parts = 0
            for name, line in stream:
                run = reader.feed(name, line)
                if reader.flooded:
                    raise DeviceError("output", f"{self.name}: a flood of output")
                if reader.parts > parts:  # a phone that tells its state slowly is no hanging tool
                    parts = reader.parts
                    stream.renew(self._run_secs if reader.running else state_secs)
                if run is not None:
                    yield run

    def _why_ended(self, error: DeviceError) -> str:
        if error.kind == "output":
            return "the tool printed without end, so it was ended"
        return f"the tool did not end within {self._run_secs:g} s, so it was ended"

    def _result(
        self, run: Run, file: ModelFile, session: str, round_index: int
    ) -> Measurement | RunFailure:
        try:
            row = make_measurement(
                run,
                file,
                self._runner.command(file),
                session=session,
                round_index=round_index,
                device=self.device,
                tool=self.tool,
                settings=self._settings,
                cpus=self._cpus,
            )
        except RunError as error:
            return RunFailure(file.path, read_crash(run.text("crash"), PACKAGE) or str(error))
        self._tell_odd(row.after)
        return row

    def _persist(self, action: Callable[[], _T]) -> _T:
        """Does something that may be done twice, again when the phone was lost in it.

        Raises:
            TargetError: It was lost for good, or again.
        """
        try:
            return action()
        except DeviceError as error:
            self._wait_until_back(error, 1)
        try:
            return action()
        except DeviceError as error:
            raise TargetError(self._text(error)) from error

    def _wait_until_back(self, error: DeviceError, losses: int) -> None:
        """Waits until a lost phone can be used again, as it was before.

        Raises:
            TargetError: It does not come back, was lost too often, or waiting does not help.
        """
        self._check_stop()
        if error.kind in _LASTING:
            raise TargetError(self._text(error)) from error
        if losses > _MOST_LOSSES:
            raise TargetError(f"{self._text(error)}; lost {losses} times in a row") from error
        self.notice(f"{self._text(error)}; waiting for it, {_BACK_SECS:g} s at most")
        if not self._phone.wait(_BACK_SECS, self._stop):
            self._check_stop()
            why = f"{self._text(error)}; it did not come back within {_BACK_SECS:g} s"
            raise TargetError(why + self._elsewhere()) from error
        try:
            with self._not_closed():
                self._lock.acquire()
                self._end()
                if self._screen is not None:
                    self._screen.set()
        except DeviceError as again:
            raise TargetError(self._text(again)) from again

    def _elsewhere(self) -> str:
        """Returns in which state a phone is that did not come back, for the end of a message."""
        with contextlib.suppress(DeviceError):
            if (state := self._phone.state()) not in ("", "device", "offline"):
                return f": {unusable('', state)}"
        return ""

    @contextlib.contextmanager
    def _not_closed(self) -> Iterator[None]:
        """Within it `close` waits: what it gives back is not taken again after it.

        Raises:
            TargetError: It is closed already.
        """
        with self._closing:
            if not self._locked:
                raise TargetError("stopped")
            yield

    def _end(self) -> None:
        """Ends what a batch left running on the phone. Raises DeviceError."""
        self._phone.shell(Script(end_script(FOLDER)), timeout_secs=_END_SECS)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise TargetError("stopped")

    def _text(self, error: DeviceError) -> str:
        return str(error).removeprefix(f"{self.name}: ")


class LostPhone:
    """A phone that could not be opened, among others that could: it fails when its turn comes.

    Args:
        name: Its serial or address, as asked for.
        message: What is wrong with it.
    """

    batch = 1

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        self.device = Device(name, "", "", "", "", "", "", (), ())
        self.tool = Tool("", "", "")
        self._message = message

    def prepare(self, files: Sequence[ModelFile]) -> dict[str, str]:
        raise TargetError(self._message)

    def measure(
        self, files: Sequence[ModelFile], session: str, round_index: int
    ) -> Generator[Measurement | RunFailure, None, None]:
        raise TargetError(self._message)

    def state(self) -> DeviceState:
        raise TargetError(self._message)

    def close(self) -> None:
        """There is nothing to leave."""


def open_phones(
    names: Sequence[str], settings: Settings, options: TargetOptions, stop: threading.Event
) -> list[Target]:
    """Returns the phones, each locked for this session; the caller closes them.

    Args:
        names: Serials, addresses in the network, or "all" (the phones that adb knows).
        settings: How each run is made and judged.
        options: The tool, how it is run, and where adb is.
        stop: Ends all waiting when it is set.

    Raises:
        UsageError: No phone, or no tool, can do what the settings ask for.
        FailureError: There is no phone, or none can be used. One of several that cannot be used,
            or not as the settings ask for, is returned all the same, and fails when it is used.
    """
    adb = open_adb(options)
    opened: list[Target] = []
    errors: list[FailureError | UsageError] = []
    try:
        for name in _expand(adb, names):
            try:
                opened.append(_open_phone(_find(adb, name), settings, options, stop))
            except (FailureError, UsageError) as error:
                errors.append(error)
                opened.append(LostPhone(name, str(error).removeprefix(f"{name}: ")))
        if len(errors) == len(opened):
            raise _as_one(errors)
    except BaseException:
        for target in opened:
            target.close()
        raise
    return opened


def _open_phone(
    device: AdbDevice, settings: Settings, options: TargetOptions, stop: threading.Event
) -> Phone:
    """Opens a phone, once more where it is there and just an answer of it was lost."""
    try:
        return Phone(device, settings, options, stop)
    except DeviceError as error:
        if error.kind != "gone" or device.state() != "device":
            raise
    return Phone(device, settings, options, stop)


def _as_one(errors: Sequence[FailureError | UsageError]) -> FailureError | UsageError:
    """Returns one error that tells all of them, each once: the user's where all of them are."""
    is_usage = all(isinstance(error, UsageError) for error in errors)
    text = "; ".join(dict.fromkeys(map(str, errors)))
    return UsageError(text) if is_usage else FailureError(text)


def open_adb(options: TargetOptions) -> Adb:
    """Returns the adb that the options and the variables in them name.

    Raises:
        UsageError: There is none, or the port is no number.
    """
    port = options.environ.get("ANDROID_ADB_SERVER_PORT", "")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise UsageError(f"ANDROID_ADB_SERVER_PORT: expected a port, got {port!r:.80}")
    return Adb(find_adb(options.adb_path, options.environ), int(port) if port else None)


def clean(names: Sequence[str], options: TargetOptions) -> dict[str, str]:
    """Removes what was put on phones, unless a session is on.

    Args:
        names: As for `open_phones`.
        options: Where adb is.

    Returns:
        What came of it, by phone: "" where its folder is gone, else why it is not.

    Raises:
        UsageError: There is no adb, or a name is none.
        FailureError: There is no phone.
    """
    adb = open_adb(options)
    outcome = {}
    for name in _expand(adb, names):
        try:
            _clean_one(_find(adb, name))
            outcome[name] = ""
        except FailureError as error:
            outcome[name] = str(error).removeprefix(f"{name}: ")
    return outcome


def _clean_one(device: AdbDevice) -> None:
    try:
        DeviceLock(device, _END_SECS).acquire()
    except DeviceError as error:
        if error.kind not in ("storage", "refused"):  # nobody has a lock that cannot be made
            raise
    device.shell(Script(end_session_script()), timeout_secs=_END_SECS)
    done = device.shell(["rm", "-rf", FOLDER], timeout_secs=_END_SECS)
    if done.exit_code:
        raise refusal(f"{FOLDER} is not gone: ", done.stderr or done.stdout)


def _expand(adb: Adb, names: Sequence[str]) -> list[str]:
    """Returns the names, with "all" as the phones that adb knows, usable or not."""
    known = [found.serial for found in adb.attached()] if "all" in names else []
    if "all" in names and not known:
        raise FailureError(
            "target: adb knows no phone: turn on USB debugging, plug it in, and look at "
            "`mobile-bench devices` (docs/PHONES.md)"
        )
    listed = [serial for name in names for serial in (known if name == "all" else [name])]
    return list(dict.fromkeys(listed))


def _find(adb: Adb, name: str) -> AdbDevice:
    """Returns a phone, which is connected first where it is an address.

    Raises:
        UsageError: The name is none.
        DeviceError: It cannot be connected, or is not in Android: there is a shell in recovery and
            the like, too.
    """
    states = {found.serial: found.state for found in adb.attached()}
    if name not in states and ("." in name or ":" in name):
        name = adb.connect(name)
    if states.get(name, "device") != "device":
        raise unusable(f"{name}: ", states[name])
    return adb.phone(name)
