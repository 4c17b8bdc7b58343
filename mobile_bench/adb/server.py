"""adb: finding it, its server, and which devices it knows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from mobile_bench.adb.device import AdbDevice
from mobile_bench.adb.errors import ADVICE, DeviceError
from mobile_bench.adb.wire import LostError, RefusedError, StoppedError, Wire
from mobile_bench.errors import UsageError, one_line
from mobile_bench.scratch import temporary_file

_PORT = 5037
_START_SECS = 30.0  # for the server to start
_ANSWER_SECS = 10.0  # for the server to take a request
_CONNECT_SECS = 30.0  # for a device at an address
_ANNOUNCED = re.compile(r"[^:\x00-\x1f]{1,200}\._adb(-tls-\w{1,20})?\._tcp(\.local)?\.?")


@dataclass(frozen=True)
class Attached:
    """A device that the adb server knows.

    Attributes:
        serial: What adb calls it: its own serial, or its address.
        state: "device" when it can be used; else one of `errors.ADVICE`. One in "recovery" and the
            like has a shell as well, but no Android.
        details: What adb tells about it, such as "model" and "usb".
    """

    serial: str
    state: str
    details: dict[str, str]

    @property
    def advice(self) -> str:
        """What to do so that it can be used; "" when it can be."""
        return "" if self.state == "device" else ADVICE[self.state]


def find_adb(adb_path: str | None, environ: Mapping[str, str]) -> str:
    """Returns the path of the adb program.

    Args:
        adb_path: As the user gave it; it is taken or refused.
        environ: Of the process. ANDROID_HOME and ANDROID_SDK_ROOT come before PATH, and adbutils'
            own adb is the last.

    Raises:
        UsageError: There is none; the message names what was tried.
    """
    if adb_path is not None:
        if not os.path.isfile(adb_path) or not os.access(adb_path, os.X_OK):
            raise UsageError(f"adb_path: {adb_path} is no program; give the path of adb itself")
        return os.path.abspath(adb_path)
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        found = environ.get(name) and shutil.which(
            "adb", path=os.path.join(environ[name], "platform-tools")
        )
        if found:
            return found
    found = shutil.which("adb", path=environ.get("PATH", ""))
    if found:
        return found
    try:
        import adbutils
    except ImportError:
        raise _no_adb("which is not installed") from None
    try:
        return adbutils.adb_path()
    except adbutils.AdbError as error:
        raise _no_adb(one_line(str(error))) from error


def _no_adb(reason: str) -> UsageError:
    return UsageError(
        f"adb: there is none in ANDROID_HOME, ANDROID_SDK_ROOT, PATH and adbutils ({reason}); "
        "pip install adbutils, or give --adb_path"
    )


class Adb:
    """The adb server on this machine, started when there is none.

    One that runs already is used as it is, whatever its version.

    Args:
        path: The adb program.
        port: Where its server listens; adb's own when None.

    Attributes:
        starts: How often the server had to be started: then it has to find its devices again.
    """

    def __init__(self, path: str, port: int | None = None) -> None:
        self.starts = 0
        self._path, self._port = path, _PORT if port is None else port
        self._starting = threading.Lock()

    def attached(self) -> list[Attached]:
        """Returns the devices that the server knows, usable or not.

        Raises:
            DeviceError: The server does not start or answer.
        """
        return parse_devices(self._answer("host:devices-l", _ANSWER_SECS))

    def connect(self, address: str, stop: threading.Event | None = None) -> str:
        """Connects a device by Wi-Fi and returns its serial.

        Args:
            address: "192.0.2.7", whose port is then 5555, "host:port", or the name under which the
                device announces itself (by mDNS), such as "adb-R58-x1 (2)._adb-tls-connect._tcp".
            stop: Ends the waiting when it is set.

        Raises:
            UsageError: That is no address.
            DeviceError: It does not answer, or has not been paired.
        """
        serial = address if _ANNOUNCED.fullmatch(address) else _with_port(address)
        answer = self._answer(f"host:connect:{serial}", _CONNECT_SECS, stop)
        if re.match(r"(already )?connected to ", answer):
            return serial
        says = f"{serial}: adb says `{one_line(answer)}`"
        if "authenticate" in answer:
            raise DeviceError("unauthorized", f"{says}; {ADVICE['unauthorized']}")
        raise DeviceError(
            "gone",
            f"{says}; turn on Wireless debugging, take the address and port shown there, and pair "
            "with `adb pair` once",
        )

    def can_connect(self, serial: str) -> bool:
        """Returns whether that is a device by Wi-Fi, which adb forgets when it has lost it."""
        return ":" in serial or _ANNOUNCED.fullmatch(serial) is not None

    def phone(self, serial: str) -> AdbDevice:
        """Returns the device of this serial, whether it is there or not.

        Raises:
            UsageError: No serial looks like that.
        """
        if not serial.isprintable() or not 0 < len(serial) <= 256:
            raise UsageError(f"target: expected the serial of a device, got {serial!r:.80}")
        return AdbDevice(self, serial)

    def open(self, timeout_secs: float, stop: threading.Event | None = None) -> Wire:
        """Returns a connection to the server, which is started when it is not there.

        Raises:
            DeviceError: It does not start or answer.
        """
        try:
            return Wire(self._port, timeout_secs, stop)
        except ConnectionRefusedError:
            self._start()
        except LostError as error:
            raise self.server_error(str(error)) from error
        try:
            return Wire(self._port, timeout_secs, stop)
        except (ConnectionRefusedError, LostError) as error:
            raise self.server_error(str(error)) from error

    def is_up(self) -> bool:
        """Returns whether a server listens, without starting one."""
        try:
            Wire(self._port, _ANSWER_SECS).close()
        except (ConnectionRefusedError, LostError):
            return False
        return True

    def server_error(self, reason: str) -> DeviceError:
        """Returns the error of a server that does not do its work."""
        return DeviceError(
            "server",
            f"adb's server on port {self._port}: {one_line(reason)}; try `adb kill-server`, then "
            "again",
        )

    def _answer(
        self, service: str, timeout_secs: float, stop: threading.Event | None = None
    ) -> str:
        try:
            with self.open(timeout_secs, stop) as wire:
                return wire.answer(service)
        except (RefusedError, LostError) as error:
            raise self.server_error(str(error)) from error
        except StoppedError as error:
            raise DeviceError("stopped", "adb: stopped") from error
        except TimeoutError:
            raise self.server_error(f"no answer within {timeout_secs:g} s") from None

    def _start(self) -> None:
        """Starts the server quietly, and so that Ctrl-C in this terminal does not reach it."""
        with self._starting, temporary_file() as log:
            if self.is_up():
                return  # another thread was first
            try:
                code = subprocess.run(
                    [self._path, "-P", str(self._port), "start-server"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=_START_SECS,
                    start_new_session=True,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise self.server_error(f"not up within {_START_SECS:g} s") from None
            except OSError as error:
                raise self.server_error(f"{self._path}: {error.strerror}") from error
            self.starts += 1
            if code != 0:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
                lines = log.read().decode(errors="replace").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), "no message")
                raise self.server_error(f"{self._path} ended with exit code {code}: {last}")


def parse_devices(text: str) -> list[Attached]:
    """Returns the devices of the lines of `adb devices -l`."""
    states = "|".join(["device", *map(re.escape, ADVICE)])
    line = re.compile(rf"(?P<serial>\S.*?)\s+(?P<state>{states})(?=\s|$)(?P<rest>.*)")
    found = [match for each in text.splitlines() if (match := line.fullmatch(each.strip()))]
    return [
        Attached(match["serial"], match["state"], dict(re.findall(r"(\w+):(\S+)", match["rest"])))
        for match in found
    ]


def _with_port(address: str) -> str:
    match = re.fullmatch(r"([\w.-]{1,253}|\[[0-9a-fA-F:.%\w]{2,80}\])(?::(\d{1,5}))?", address)
    if not match or int(match[2] or 5555) > 65535 or address.startswith("-"):
        raise UsageError(
            f"target: expected an address such as 192.0.2.7:5555, got {one_line(address, 80)!r}"
        )
    return f"{match[1]}:{match[2] or 5555}"
