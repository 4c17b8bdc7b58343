"""The device side of the adb wire protocol over TCP: packets, connections, streams.

Written from the public protocol description (protocol.txt in the Android sources): packets of six
little-endian words and a payload; CNXN introduces, AUTH asks for a key, OPEN starts a service,
WRTE carries its bytes, OKAY acknowledges each of them, CLSE ends it.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable

_HEADER = struct.Struct("<4s5I")  # command, two arguments, length, checksum, command inverted
_VERSION = 0x01000001  # from here on checksums are not looked at
_MAX_PAYLOAD = 256 * 1024
_AUTH_TOKEN = 1  # the device asks for a signature of these bytes
_AUTH_PUBLIC_KEY = 3  # the host has no key that is known: the user is asked


class ConnectionLostError(Exception):
    """The other side went away, or this side was made to."""


class Stream:
    """The bytes of one open service, both ways."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self._connection = connection
        self._local, self._remote = local, remote
        self._changed = threading.Condition()
        self._received = bytearray()
        self._acknowledged = True
        self._ended = False

    def read(self, size: int) -> bytes:
        """Returns exactly `size` bytes.

        Raises:
            ConnectionLostError: The stream ends before.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._received) >= size or self._ended)
            if len(self._received) < size:
                raise ConnectionLostError("the stream ended")
            return self._take(size)

    def read_some(self) -> bytes:
        """Returns what has come, at least one byte.

        Raises:
            ConnectionLostError: The stream ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._received or self._ended)
            if not self._received:
                raise ConnectionLostError("the stream ended")
            return self._take(len(self._received))

    def _take(self, size: int) -> bytes:
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def write(self, data: bytes) -> None:
        """Sends bytes; each packet waits until the one before was acknowledged.

        Raises:
            ConnectionLostError: The other side closed the stream.
        """
        for start in range(0, len(data), self._connection.max_payload):
            with self._changed:
                self._changed.wait_for(lambda: self._acknowledged or self._ended)
                if self._ended:
                    raise ConnectionLostError("the stream ended")
                self._acknowledged = False
            part = data[start : start + self._connection.max_payload]
            self._connection.send(b"WRTE", self._local, self._remote, part)

    def close(self) -> None:
        """Ends the stream, once what was written has arrived."""
        with self._changed:
            self._changed.wait_for(lambda: self._acknowledged or self._ended)
            if self._ended:
                return
            self._ended = True
        with contextlib.suppress(ConnectionLostError):
            self._connection.send(b"CLSE", self._local, self._remote)

    def on_data(self, data: bytes) -> None:
        with self._changed:
            self._received += data
            self._changed.notify_all()
        self._connection.send(b"OKAY", self._local, self._remote)

    def on_acknowledged(self) -> None:
        with self._changed:
            self._acknowledged = True
            self._changed.notify_all()

    def on_end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Connection:
    """One adb server that is connected to the device.

    Args:
        sock: The connected socket; owned from here on.
        banner: What the device says that it is, `device::name=value;...`.
        open_service: Called in a thread of its own with a service's name and stream; the stream
            is closed when it returns. It raises LookupError for a service that does not exist.
        is_authorized: Tells whether the user of the phone has allowed this host.
    """

    def __init__(
        self,
        sock: socket.socket,
        banner: str,
        open_service: Callable[[str, Stream], None],
        is_authorized: Callable[[], bool],
    ) -> None:
        self.max_payload = _MAX_PAYLOAD
        self._socket = sock
        self._banner = banner
        self._open_service = open_service
        self._is_authorized = is_authorized
        self._send_lock = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._ids = itertools.count(1)
        self._answering = threading.Event()
        self._answering.set()
        self._is_asking = False  # whether the phone shows its question

    def run(self) -> None:
        """Answers packets until the connection ends."""
        try:
            while True:
                command, first, second, payload = self._receive()
                self._answering.wait()
                self._handle(command, first, second, payload)
        except ConnectionLostError:
            pass
        finally:
            self.close()
            for stream in list(self._streams.values()):
                stream.on_end()

    def close(self) -> None:
        """Drops the connection as a pulled cable does: nobody is told."""
        self._answering.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def freeze(self) -> None:
        """Stops answering and keeps the connection open."""
        self._answering.clear()

    def thaw(self) -> None:
        self._answering.set()

    def answer_question(self) -> None:
        """Lets the host in, if the phone's user is being asked about it."""
        if self._is_asking:
            with contextlib.suppress(ConnectionLostError):
                self._introduce()

    def send(self, command: bytes, first: int, second: int, payload: bytes = b"") -> None:
        """Sends one packet.

        Raises:
            ConnectionLostError: The connection is gone.
        """
        self._answering.wait()
        (word,) = struct.unpack("<I", command)
        # Once the versions are known to be equal, nobody looks at checksums.
        checksum = sum(payload) if command in (b"CNXN", b"AUTH") else 0
        header = _HEADER.pack(command, first, second, len(payload), checksum, word ^ 0xFFFFFFFF)
        try:
            with self._send_lock:
                self._socket.sendall(header + payload)
        except OSError as error:
            raise ConnectionLostError("the connection ended") from error

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        command, first, second, length, _, _ = _HEADER.unpack(self._read(_HEADER.size))
        return command, first, second, self._read(length)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                part = self._socket.recv(size - len(data))
            except OSError as error:
                raise ConnectionLostError("the connection ended") from error
            if not part:
                raise ConnectionLostError("the connection ended")
            data += part
        return bytes(data)

    def _handle(self, command: bytes, first: int, second: int, payload: bytes) -> None:
        stream = self._streams.get(second)
        if command == b"CNXN":
            self.max_payload = min(second, _MAX_PAYLOAD)
            self._let_in_or_ask()
        elif command == b"AUTH":
            # A phone with an unknown key shows its question and is silent until it is answered.
            self._is_asking = first == _AUTH_PUBLIC_KEY and not self._is_authorized()
            if not self._is_asking:
                self._let_in_or_ask()
        elif command == b"OPEN":
            self._open(first, payload.rstrip(b"\0").decode("utf-8", "surrogateescape"))
        elif command == b"WRTE" and stream is not None:
            stream.on_data(payload)
        elif command == b"OKAY" and stream is not None:
            stream.on_acknowledged()
        elif command == b"CLSE" and stream is not None:
            stream.on_end()

    def _introduce(self) -> None:
        self._is_asking = False
        self.send(b"CNXN", _VERSION, _MAX_PAYLOAD, self._banner.encode())

    def _let_in_or_ask(self) -> None:
        if self._is_authorized():
            self._introduce()
        else:
            self.send(b"AUTH", _AUTH_TOKEN, 0, bytes(20))

    def _open(self, remote: int, service: str) -> None:
        local = next(self._ids)
        stream = self._streams[local] = Stream(self, local, remote)

        def serve() -> None:
            try:
                self._open_service(service, stream)
            except (ConnectionLostError, LookupError):
                pass
            finally:
                stream.close()
                del self._streams[local]

        self.send(b"OKAY", local, remote)
        threading.Thread(target=serve, name=f"stand-in {service[:40]}", daemon=True).start()
