"""The shell and the files of one device, over adb.

Every wait and every answer is bounded, and whatever goes wrong is a `DeviceError` that says what to
do. No word that is given to a device's shell is ever parsed by it, unless it is a `Script`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import secrets
import shlex
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobile_bench.adb import FOLDER
from mobile_bench.adb.errors import DeviceError, refusal, unusable
from mobile_bench.adb.wire import (
    LostError,
    RefusedError,
    ShellV1,
    ShellV2,
    StoppedError,
    Wire,
    pull,
    send_file,
)
from mobile_bench.errors import UsageError, one_line

if TYPE_CHECKING:
    from mobile_bench.adb.server import Adb

_ANSWER_SECS = 10.0  # for the server, or a device, to take a request
_IDLE_SECS = 30.0  # for each piece of a file
_BACK_SECS = 10.0  # for a device to come back to a new server
_PAUSE_SECS = 0.5  # between looks whether it is back
_LONGEST_COMMAND = 2000  # bytes; old devices take 4096 bytes, a longer one goes as a file
_LONGEST_LINE = 64 * 1024  # characters; what is longer comes in parts


@dataclass(frozen=True)
class Script:
    """A whole shell script of our own, which the device's shell parses.

    A value from elsewhere may be in its text only as `shlex.quote` gives it. It has to do with what
    mksh and toybox understand.
    """

    text: str


@dataclass(frozen=True)
class ShellResult:
    """What a command printed, and its exit code.

    Attributes:
        stdout: All that it printed, on devices that cannot tell the two streams apart.
        cut: Whether it printed more than was allowed: then it was left alone, and its exit code
            is -1.
    """

    stdout: str
    stderr: str
    exit_code: int
    cut: bool


class AdbDevice:
    """One device of an adb server. Every call opens a connection of its own.

    Attributes:
        serial: What adb calls it.
    """

    def __init__(self, adb: Adb, serial: str) -> None:
        self.serial = serial
        self._adb = adb
        self._starts = adb.starts
        self._has_shell_v2: bool | None = None

    def shell(
        self,
        command: Sequence[str] | Script,
        *,
        timeout_secs: float,
        max_bytes: int = 2**20,
        stop: threading.Event | None = None,
    ) -> ShellResult:
        """Runs a command to its end.

        Args:
            command: Its words, none of which the shell parses, or a script.
            timeout_secs: For all of it.
            max_bytes: Of output; where it prints more the rest is not waited for.
            stop: Ends the waiting when it is set.

        Raises:
            DeviceError: It did not end in time (and may run on), or the device could not run it.
        """
        texts = {"out": bytearray(), "err": bytearray()}
        with self.errors(), self.open_shell(command, timeout_secs, stop) as (_, shell):
            room = max_bytes
            while room > 0 and (piece := shell.read()):
                texts[piece.stream] += piece.data[:room]
                room -= len(piece.data)
            out, err = (bytes(text).decode(errors="replace") for text in texts.values())
            done = shell.exit_code is not None
            return ShellResult(out, err, shell.exit_code if done else -1, cut=not done)

    def stream(
        self,
        command: Sequence[str] | Script,
        *,
        idle_secs: float,
        deadline_secs: float,
        max_bytes: int,
        stop: threading.Event | None = None,
    ) -> ShellStream:
        """Runs a command and returns its lines as they come.

        Args:
            command: Its words, none of which the shell parses, or a script.
            idle_secs: Longest wait for more output.
            deadline_secs: Longest time in all; `ShellStream.renew` starts it anew.
            max_bytes: Most output in that time.
            stop: Ends the stream when it is set.

        Raises:
            DeviceError: The device could not start it.
        """
        return ShellStream(self, command, idle_secs, deadline_secs, max_bytes, stop)

    def push(
        self,
        data: bytes | os.PathLike[str],
        remote: str,
        *,
        executable: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        """Writes a file on the device, and its folders.

        Args:
            data: The content, or the local file that has it.
            remote: Absolute path on the device.
            stop: Ends it in the middle when it is set.

        Raises:
            DeviceError: "storage" where the device is full, else what went wrong.
            OSError: The local file cannot be read.
        """
        with self.pusher(stop) as pusher:
            pusher.push(data, remote, executable=executable)

    def pusher(self, stop: threading.Event | None = None) -> Pusher:
        """Returns what pushes several files over one connection; a context manager."""
        return Pusher(self, stop)

    def pull(self, remote: str, max_bytes: int) -> bytes:
        """Returns the content of a file on the device.

        Raises:
            DeviceError: It cannot be read, or is larger than allowed.
        """
        content = bytearray()
        with self.errors(remote), self.transport(_IDLE_SECS) as wire:
            for piece in pull(wire, remote, _IDLE_SECS):
                content += piece
                if len(content) > max_bytes:
                    raise DeviceError(
                        "output", f"{self.serial}: {remote} has more than {max_bytes} bytes"
                    )
        return bytes(content)

    def state(self) -> str:
        """Returns its state as in `Attached`, "" when it is not there."""
        states = {device.serial: device.state for device in self._adb.attached()}
        return states.get(self.serial, "")

    def wait(self, timeout_secs: float, stop: threading.Event) -> bool:
        """Waits until the device can be used, as after a restart or a lost connection.

        Returns:
            Whether it can be; False as soon as `stop` is set.
        """
        deadline = time.monotonic() + timeout_secs
        while not stop.is_set():
            with contextlib.suppress(DeviceError):
                if self._is_ready(stop):
                    return True
            if time.monotonic() >= deadline:
                return False
            stop.wait(_PAUSE_SECS)
        return False

    def _is_ready(self, stop: threading.Event) -> bool:
        state = self.state()
        if state == "" and self._adb.can_connect(self.serial):
            with contextlib.suppress(UsageError):
                self._adb.connect(self.serial, stop)
        elif state == "device":
            # adb is up long before Android is, and a starting phone is a slow one.
            completed = ["getprop", "sys.boot_completed"]
            result = self.shell(completed, timeout_secs=_ANSWER_SECS, stop=stop)
            return result.stdout.strip() == "1"
        return False

    def _open(self, timeout_secs: float, stop: threading.Event | None = None) -> Wire:
        """Returns a connection to the server; a new server has to find the device first."""
        wire = self._adb.open(timeout_secs, stop)
        if self._starts == self._adb.starts:
            return wire
        wire.close()
        self._starts = self._adb.starts
        self.wait(_BACK_SECS, stop or threading.Event())
        return self._adb.open(timeout_secs, stop)

    @contextlib.contextmanager
    def transport(self, timeout_secs: float, stop: threading.Event | None = None) -> Iterator[Wire]:
        """Yields a connection whose further requests go to the device."""
        with self._open(timeout_secs, stop) as wire:
            wire.request(f"host:transport:{self.serial}")
            yield wire

    @contextlib.contextmanager
    def open_shell(
        self,
        command: Sequence[str] | Script,
        timeout_secs: float,
        stop: threading.Event | None = None,
    ) -> Iterator[tuple[Wire, ShellV1 | ShellV2]]:
        """Yields the connection and the output of a command; for `shell` and `ShellStream`."""
        text = self._short_command(command)
        if self._has_shell_v2 is None:
            with self._open(_ANSWER_SECS) as wire:
                features = wire.answer(f"host-serial:{self.serial}:features")
            self._has_shell_v2 = "shell_v2" in features.split(",")
        with self.transport(timeout_secs, stop) as wire:
            yield wire, (ShellV2 if self._has_shell_v2 else ShellV1)(wire, text)

    def _short_command(self, command: Sequence[str] | Script) -> str:
        """Returns the text for the shell; a long one is written to a file on the device."""
        text = command.text if isinstance(command, Script) else shlex.join(command)
        if "\0" in text:
            raise ValueError("a NUL in a command for a device's shell")
        content = text.encode(errors="surrogateescape")
        if len(content) <= _LONGEST_COMMAND:
            return text
        path = f"{FOLDER}/jobs/{secrets.token_hex(8)}.sh"
        self.push(content + b"\n", path)
        return f"sh {path}; code=$?; rm -f {path}; exit $code"

    @contextlib.contextmanager
    def errors(self, what: str = "") -> Iterator[None]:
        """Turns what goes wrong on a connection into a `DeviceError` that says what to do."""
        label = f"{self.serial}: {what}: " if what else f"{self.serial}: "
        try:
            yield
        except RefusedError as error:
            raise refusal(label, str(error)) from error
        except LostError as error:
            raise self._loss(str(error)) from error
        except StoppedError as error:
            raise DeviceError("stopped", f"{label}stopped") from error
        except TimeoutError as error:
            raise DeviceError(
                "timeout",
                f"{label}no answer in time; the phone hangs or its connection is slow: try another "
                "cable, or restart the phone",
            ) from error

    def _loss(self, reason: str) -> DeviceError:
        """Returns why a connection to the device ended."""
        if not self._adb.is_up():
            return DeviceError(
                "server", f"{self.serial}: adb's server ended; the next try starts it again"
            )
        try:
            state = self.state()
        except DeviceError as error:
            return error
        if state == "device":
            return DeviceError(
                "gone", f"{self.serial}: the connection was lost ({one_line(reason)}); try again"
            )
        label = f"{self.serial}: "
        return unusable(label, state) if state else refusal(label, "not found")


class Pusher:
    """Writes files on a device, over one connection as long as none is refused."""

    def __init__(self, device: AdbDevice, stop: threading.Event | None) -> None:
        self._device, self._stop = device, stop
        self._wire: Wire | None = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Pusher:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def push(
        self, data: bytes | os.PathLike[str], remote: str, *, executable: bool = False
    ) -> None:
        """Writes a file; see `AdbDevice.push`."""
        source = io.BytesIO(data) if isinstance(data, bytes) else open(data, "rb")  # noqa: SIM115
        with source, self._device.errors(remote):
            try:
                mode = 0o755 if executable else 0o644
                send_file(self._wire or self._connect(), source, remote, mode, _IDLE_SECS)
            except BaseException:  # whatever the connection is in the middle of
                self._close()
                raise

    def _connect(self) -> Wire:
        transport = self._device.transport(_IDLE_SECS, self._stop)
        self._wire = self._closing.enter_context(transport)
        self._wire.request("sync:")
        return self._wire

    def _close(self) -> None:
        self._wire = None
        self._closing.close()


class ShellStream:
    """A command that runs on a device, as an iterator of its lines.

    Each line comes as ("out" | "err", text without its end); on devices that cannot tell the two
    apart all is "out". A line of more than 64 Ki characters comes in parts. After a `DeviceError`
    of the kinds "timeout" and "output" it can be read on, best after `renew`.

    Iterating ends when the command has ended, or `stop` was set: then `exit_code` is None.

    Attributes:
        exit_code: Of the command; None until its end.
    """

    def __init__(
        self,
        device: AdbDevice,
        command: Sequence[str] | Script,
        idle_secs: float,
        deadline_secs: float,
        max_bytes: int,
        stop: threading.Event | None,
    ) -> None:
        self._device = device
        self._idle_secs, self._max_bytes = idle_secs, max_bytes
        self._lines: deque[tuple[str, str]] = deque()
        self._open = {"out": "", "err": ""}  # lines whose end has not come
        self._decoders = {name: _decoder() for name in self._open}
        self._ended = False
        self._closing = contextlib.ExitStack()
        with device.errors():
            self._wire, self._shell = self._closing.enter_context(
                device.open_shell(command, idle_secs, stop)
            )
        self.renew(deadline_secs)

    @property
    def exit_code(self) -> int | None:
        return self._shell.exit_code

    def renew(self, deadline_secs: float) -> None:
        """Starts the time and the count of bytes anew: for the next part of a long command."""
        self._deadline = time.monotonic() + deadline_secs
        self._room = self._max_bytes

    def close(self) -> None:
        """Ends the connection, which does not end the command. Any thread may call it."""
        self._closing.close()

    def __enter__(self) -> ShellStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> ShellStream:
        return self

    def __next__(self) -> tuple[str, str]:
        """Returns the next line.

        Raises:
            DeviceError: "timeout", "output" (both may be read on), or the device is lost.
        """
        while not self._lines and not self._ended:
            self._read()
        if self._lines:
            return self._lines.popleft()
        raise StopIteration

    def _read(self) -> None:
        if self._room <= 0:
            raise DeviceError(
                "output", f"{self._device.serial}: more than {self._max_bytes} bytes of output"
            )
        self._wire.deadline = min(self._deadline, time.monotonic() + self._idle_secs)
        with self._device.errors():
            try:
                piece = self._shell.read()
            except StoppedError:
                self._ended = True
                return
        if piece is None:
            self._ended = True
            for name in self._open:
                self._take(name, self._decoders[name].decode(b"", final=True), last=True)
            return
        self._room -= len(piece.data)
        self._take(piece.stream, self._decoders[piece.stream].decode(piece.data), last=False)

    def _take(self, name: str, text: str, *, last: bool) -> None:
        """Adds text to a stream and moves its whole lines to those that are ready."""
        *lines, rest = (self._open[name] + text).split("\n")
        if rest and (last or len(rest) > _LONGEST_LINE):
            lines, rest = [*lines, rest], ""
        self._open[name] = rest
        for line in lines:
            for start in range(0, max(1, len(line)), _LONGEST_LINE):
                self._lines.append((name, line[start : start + _LONGEST_LINE]))


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")
