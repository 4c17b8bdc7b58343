"""The real adb: a server of the test's own, and its command line."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stand_in.device import StandInDevice

_START_SECONDS = 20.0


class AdbServer:
    """An adb server on a free port of 127.0.0.1, with keys and settings of its own.

    Args:
        home: An empty folder, its HOME.

    Attributes:
        adb: Path of the adb command that comes with adbutils.
        port: Of the server.
        environment: In which adb commands find this server and no other.
    """

    def __init__(self, home: Path) -> None:
        import adbutils

        self.adb = adbutils.adb_path()
        self.port = _free_port()
        self.environment = {
            "PATH": os.defpath,
            "HOME": str(home),
            "TMPDIR": str(home),
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            # Only what is asked for is connected; and looking for USB would take three seconds.
            "ADB_USB": "0",
            "ADB_EMU": "0",
            "ADB_MDNS": "0",
        }
        self._process: subprocess.Popen | None = None

    def start(self) -> AdbServer:
        """Starts the server and waits until it answers."""
        address = f"tcp:localhost:{self.port}"
        self._process = subprocess.Popen(
            [self.adb, "-L", address, "server", "nodaemon"],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"adb's server does not start on port {self.port}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Ends the server at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ends the server, and one that took its place."""
        self.run("kill-server")
        self.kill()

    def run(self, *arguments: str, seconds: float = 20.0) -> subprocess.CompletedProcess[str]:
        """Runs an adb command against this server."""
        command = [self.adb, *arguments]
        result = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
        )
        # Decoded here: text=True would turn a terminal's CRLF into LF.
        streams = (data.decode(errors="replace") for data in (result.stdout, result.stderr))
        return subprocess.CompletedProcess(command, result.returncode, *streams)

    def connect(self, device: StandInDevice) -> str:
        """Connects a device and returns its serial."""
        self.run("connect", device.serial)
        return device.serial

    def disconnect(self, device: StandInDevice) -> None:
        self.run("disconnect", device.serial)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]
