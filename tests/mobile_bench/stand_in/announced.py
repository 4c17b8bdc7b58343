"""An adb server as it is seen where devices are known by other names, or in other states.

The names under which phones announce themselves by mDNS, and the states of phones by USB, cannot be
had from phones on loopback. This passes everything on to the real server and changes just that.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from stand_in.adb_server import AdbServer
from stand_in.listener import Listener


class Announced:
    """A server with these devices and no others, from `start()` to `close()`.

    Args:
        adb: The real server.
        serials: The real serial of each device, by the name that it has here.
        states: What to say of some of them in place of "device", by name.

    Attributes:
        adb, environment: As those of `AdbServer`, for this server.
    """

    def __init__(
        self, adb: AdbServer, serials: dict[str, str], states: dict[str, str] | None = None
    ) -> None:
        self.adb = adb.adb
        self._port, self._serials, self._states = adb.port, serials, states or {}
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.environment = adb.environment | {"ANDROID_ADB_SERVER_PORT": str(self.port)}
        self._listener = Listener(listening, self._serve)

    def __enter__(self) -> Announced:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, ValueError),
            client,
            socket.create_connection(("127.0.0.1", self._port)) as server,
        ):
            service = _read(client, int(_read(client, 4), 16)).decode()
            if service == "host:devices-l":
                answer = "".join(map(self._line, self._serials)).encode()
                client.sendall(b"OKAY%04x" % len(answer) + answer)
                return
            for name, serial in self._serials.items():
                service = service.replace(name, serial)
            server.sendall(b"%04x" % len(service) + service.encode())
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            _pump(server, client)

    def _line(self, name: str) -> str:
        state = self._states.get(name, "device")
        return f"{name:22} {state} product:x model:LE2113 device:y transport_id:7\n"


def _read(source: socket.socket, size: int) -> bytes:
    data = source.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ValueError("the connection ended")
    return data


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
