"""The `shell:` and `exec:` services: runs a command line and carries its streams.

With `shell,v2` every piece is a packet (one byte says what it is, four its length) and the exit
code is the last one; without, both output streams are one and the exit code is lost.
"""

from __future__ import annotations

import os
import struct
import subprocess
import threading
from typing import TYPE_CHECKING, BinaryIO

from stand_in.adbd import ConnectionLostError, Stream

if TYPE_CHECKING:
    from stand_in.device import StandInDevice

# What the stand-in's files cannot say themselves: see FileSystem.forbid and StandInDevice.popen.
_ERRORS = {
    b"Too many levels of symbolic links": b"Permission denied",
    b"File too large": b"No space left on device",
}
_LATE_SECONDS = 0.1  # what a host says at the beginning has come long before
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


class ShellService:
    """Serves one command.

    Args:
        device: Where the command runs.
        stream: The open stream.
        packets: Whether the stream is made of packets (shell v2).
        crlf: Whether lines end in CRLF, as behind a terminal.
        fault: The kind of the fault that spoils it, "late" or "drop" here.
    """

    def __init__(
        self, device: StandInDevice, stream: Stream, packets: bool, crlf: bool, fault: str = ""
    ) -> None:
        self._device = device
        self._stream = stream
        self._packets = packets
        self._crlf = crlf
        self._fault = fault
        self._stdin_is_closed = threading.Event()
        self._write_lock = threading.Lock()

    def run(self, command: str) -> None:
        """Runs a command line to its end. A host that goes away does not end it."""
        process = self._device.popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self._packets else subprocess.STDOUT,
        )
        feeder = threading.Thread(target=self._feed, args=(process.stdin,), daemon=True)
        feeder.start()
        pumps = [threading.Thread(target=self._pump, args=(process.stdout, _STDOUT), daemon=True)]
        if self._packets:
            pumps.append(
                threading.Thread(target=self._pump, args=(process.stderr, _STDERR), daemon=True)
            )
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        code = process.wait()
        if self._packets and not self._loses_the_exit_code():
            self._send(_EXIT, bytes([code if code >= 0 else 128 - code]))

    def _loses_the_exit_code(self) -> bool:
        if self._fault == "late":
            return self._stdin_is_closed.wait(_LATE_SECONDS)
        return self._fault == "drop"

    def _pump(self, pipe: BinaryIO, kind: int) -> None:
        """Carries one output stream; it is closed when the host does not read on."""
        words = {os.fsencode(self._device.root): b"", **_ERRORS}
        kept = b""  # the end of what was read, as long as it may be the beginning of a word
        with pipe:
            try:
                while data := os.read(pipe.fileno(), 64 * 1024):
                    text = kept + data
                    for word, replacement in words.items():
                        text = text.replace(word, replacement)
                    keep = max(_overlap(text, word) for word in words)
                    kept = text[len(text) - keep :]
                    self._send(kind, text[: len(text) - keep])
                self._send(kind, kept)
            except ConnectionLostError:
                pass

    def _send(self, kind: int, data: bytes) -> None:
        if not self._packets:
            self._stream.write(data.replace(b"\n", b"\r\n") if self._crlf else data)
        elif data:
            with self._write_lock:
                self._stream.write(struct.pack("<BI", kind, len(data)) + data)

    def _feed(self, pipe: BinaryIO) -> None:
        with pipe:
            try:
                while self._packets:
                    kind, length = struct.unpack("<BI", self._stream.read(5))
                    data = self._stream.read(length)
                    if kind == _CLOSE_STDIN:
                        self._stdin_is_closed.set()
                        return
                    if kind == _STDIN:
                        pipe.write(data)
                        pipe.flush()
                while True:
                    pipe.write(self._stream.read_some())
                    pipe.flush()
            except (ConnectionLostError, OSError):
                pass


def _overlap(text: bytes, word: bytes) -> int:
    """Returns how many bytes at the end of `text` are a beginning of `word`."""
    for size in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0
