"""One connection to the adb server: requests, shell output and file transfer, bounded in time.

It speaks the server's own protocol. adbutils brings the adb program, but its client starts a server
of its own choice when there is none, hides the reason of a refused push, and cannot stream.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_CONNECT_SECS = 5.0
_STOP_SECS = 0.2  # how often a reader looks whether it should stop
_CHUNK = 64 * 1024  # the largest piece that the sync service takes
_MAX_PACKET = 16 * 2**20  # of the shell service, whose real ones are far smaller


class RefusedError(Exception):
    """The server, or the device behind it, refused a request; the text is its answer."""


class LostError(Exception):
    """The connection ended, or spoke another protocol, before the work was done."""


class StoppedError(Exception):
    """The event given as `stop` was set."""


class Wire:
    """A connection to the adb server on this machine.

    Args:
        port: Where the server listens.
        stop: Ends every wait when it is set.

    Attributes:
        deadline: Monotonic time at which every wait ends.

    Raises:
        ConnectionRefusedError: No server listens there.
        LostError: The server does not answer.
    """

    def __init__(self, port: int, timeout_secs: float, stop: threading.Event | None = None) -> None:
        self._stop = stop
        self.deadline = time.monotonic() + timeout_secs
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), _CONNECT_SECS)
        except ConnectionRefusedError:
            raise
        except OSError as error:
            raise LostError(f"port {port}: {error}") from error

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; a reader in another thread sees its end."""
        with contextlib.suppress(OSError):  # the other side was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def request(self, service: str) -> None:
        """Asks for a service.

        Raises:
            RefusedError: The answer is not OKAY.
        """
        text = service.encode(errors="surrogateescape")
        if len(text) > 0xFFFF:
            raise ValueError(f"a request of {len(text)} bytes, at most 65535 can be sent")
        self.send(b"%04x" % len(text) + text)
        self._expect_okay()

    def answer(self, service: str) -> str:
        """Asks for a service and returns its answer, a block of text."""
        self.request(service)
        return self._block()

    def send(self, data: bytes) -> None:
        """Sends all of the data. Raises LostError, TimeoutError or StoppedError."""
        view = memoryview(data)
        while view:
            self._wait_turn()
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                continue
            except OSError as error:
                raise LostError(str(error)) from error

    def receive(self, most: int) -> bytes:
        """Returns at least one byte and at most `most`; b"" at the end of the connection.

        Raises:
            LostError: The connection broke.
            TimeoutError: The deadline passed.
            StoppedError: The stop event was set.
        """
        while True:
            self._wait_turn()
            try:
                return self._socket.recv(most)
            except TimeoutError:
                continue
            except OSError as error:
                raise LostError(str(error)) from error

    def receive_exactly(self, count: int) -> bytes:
        """Returns `count` bytes. Raises LostError when the connection ends before."""
        data = bytearray()
        while len(data) < count:
            piece = self.receive(min(count - len(data), _CHUNK))
            if not piece:
                raise LostError("the connection ended")
            data += piece
        return bytes(data)

    def has_answer(self) -> bool:
        """Returns whether there is something to receive at this moment."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _wait_turn(self) -> None:
        """Sets how long the next call may block, or ends the waiting."""
        if self._stop is not None and self._stop.is_set():
            raise StoppedError
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            self._socket.settimeout(left if self._stop is None else min(left, _STOP_SECS))
        except OSError as error:  # another thread has closed it
            raise LostError(str(error)) from error

    def _expect_okay(self) -> None:
        status = self.receive_exactly(4)
        if status == b"FAIL":
            raise RefusedError(self._block())
        if status != b"OKAY":
            raise LostError(f"expected OKAY or FAIL, got {status!r}")

    def _block(self) -> str:
        digits = self.receive_exactly(4)
        try:
            size = int(digits, 16)
        except ValueError:
            raise LostError(f"expected a length, got {digits!r}") from None
        return self.receive_exactly(size).decode(errors="replace")


class Piece(NamedTuple):
    """Bytes that a shell printed, and where: "out" or "err"."""

    stream: str
    data: bytes


def _without_input(command: str) -> str:
    """Returns shell text that runs a command to which nothing comes on stdin.

    To close stdin from here would do as well, but for adbd before Android 9: where the command has
    ended by then it loses the exit code.
    """
    return f"(\n{command}\n) </dev/null"


class ShellV2:
    """Output of a shell whose stdout, stderr and exit code come apart.

    Attributes:
        exit_code: None until the end.
    """

    exit_code: int | None = None

    def __init__(self, wire: Wire, command: str) -> None:
        self._wire = wire
        self._buffer = b""  # what came of a packet, so that a time-out in the middle loses nothing
        wire.request(f"shell,v2,raw:{_without_input(command)}")

    def read(self) -> Piece | None:
        """Returns the next piece, None at the end. Raises as `Wire.receive` does."""
        while True:
            kind, data = self._packet()
            if kind == 3 and data:
                self.exit_code = data[0]
                return None
            if kind in (1, 2) and data:
                return Piece("out" if kind == 1 else "err", data)

    def _packet(self) -> tuple[int, bytes]:
        self._fill(5)
        size = struct.unpack("<I", self._buffer[1:5])[0]
        if size > _MAX_PACKET:
            raise LostError(f"a packet of {size} bytes")
        self._fill(5 + size)
        kind, data = self._buffer[0], self._buffer[5 : 5 + size]
        self._buffer = self._buffer[5 + size :]
        return kind, data

    def _fill(self, count: int) -> None:
        while len(self._buffer) < count:
            piece = self._wire.receive(_CHUNK)
            if not piece:
                raise LostError("the connection ended")
            self._buffer += piece


class ShellV1:
    """Output of a shell of old devices: one stream, on a terminal, without an exit code.

    The exit code is printed behind a marker that no one can guess.

    Attributes:
        exit_code: None until the end.
    """

    exit_code: int | None = None

    def __init__(self, wire: Wire, command: str) -> None:
        self._wire = wire
        self._marker = f"exit-{secrets.token_hex(16)}:".encode()
        self._held = b""
        wire.request(f"shell:{_without_input(command)}\necho {self._marker.decode()}$?")

    def read(self) -> Piece | None:
        """Returns the next piece, None at the end. Raises as `Wire.receive` does."""
        while True:
            data = self._wire.receive(_CHUNK)
            self._held += data
            before, marker, after = self._held.partition(self._marker)
            if marker:
                return self._finish(before, after)
            if not data:
                raise LostError("the connection ended")
            keep = self._begun_marker()
            ready = self._held[: len(self._held) - keep]
            self._held = self._held[len(ready) :]
            if ready:
                return Piece("out", ready.replace(b"\r\n", b"\n"))

    def _finish(self, before: bytes, after: bytes) -> Piece | None:
        """Takes the exit code; what was printed before it is returned first, then comes the end."""
        if before:
            self._held = self._marker + after
            return Piece("out", before.replace(b"\r\n", b"\n"))
        while not re.match(rb"\d+\s", after):
            data = self._wire.receive(16)
            after += data
            if not data or len(after) > 16:
                raise LostError("the exit code is missing")
        self.exit_code = int(after.split()[0])
        return None

    def _begun_marker(self) -> int:
        """Returns how many of the held bytes may be the begin of the marker, or half a CRLF."""
        for count in range(min(len(self._marker), len(self._held)), 0, -1):
            if self._held.endswith(self._marker[:count]):
                return count
        return int(self._held.endswith(b"\r"))


def send_file(wire: Wire, file: BinaryIO, remote: str, mode: int, idle_secs: float) -> None:
    """Sends a file through a connection to a device, on which further ones may follow.

    Args:
        wire: With the device as its transport, after the request "sync:".
        file: What is sent, to its end.
        remote: Absolute path on the device; missing folders are made.
        mode: Permissions.
        idle_secs: Longest wait for each piece to leave.

    Raises:
        RefusedError: The device says why it does not take the file.
        LostError, TimeoutError, StoppedError: As `Wire.receive`.
    """
    name = f"{remote},{0o100000 | mode}".encode()
    if len(name) > 1024:
        raise ValueError(f"a path of {len(name)} bytes, at most 1024 can be sent")
    wire.deadline = time.monotonic() + idle_secs
    try:
        wire.send(b"SEND" + struct.pack("<I", len(name)) + name)
        while piece := file.read(_CHUNK):
            if wire.has_answer():
                break  # a refusal: nothing else is said before the end
            wire.deadline = time.monotonic() + idle_secs
            wire.send(b"DATA" + struct.pack("<I", len(piece)) + piece)
        wire.send(b"DONE" + struct.pack("<I", int(time.time()) & 0xFFFFFFFF))
    except LostError:
        if not wire.has_answer():
            raise
    wire.deadline = time.monotonic() + idle_secs
    kind, size = _sync_header(wire)
    if kind == b"FAIL":
        raise RefusedError(_sync_text(wire, size))
    if kind != b"OKAY":
        raise LostError(f"expected OKAY or FAIL, got {kind!r}")


def pull(wire: Wire, remote: str, idle_secs: float) -> Iterator[bytes]:
    """Yields the content of a file on the device. Raises as `send_file` does."""
    wire.request("sync:")
    name = remote.encode()
    wire.send(b"RECV" + struct.pack("<I", len(name)) + name)
    while True:
        wire.deadline = time.monotonic() + idle_secs
        kind, size = _sync_header(wire)
        if kind == b"DONE":
            return
        if kind == b"FAIL":
            raise RefusedError(_sync_text(wire, size))
        if kind != b"DATA" or size > _CHUNK:
            raise LostError(f"expected data, got {kind!r} of {size} bytes")
        yield wire.receive_exactly(size)


def _sync_header(wire: Wire) -> tuple[bytes, int]:
    kind, size = struct.unpack("<4sI", wire.receive_exactly(8))
    return kind, size


def _sync_text(wire: Wire, size: int) -> str:
    return wire.receive_exactly(min(size, 4096)).decode(errors="replace")
