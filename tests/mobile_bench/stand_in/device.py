"""The stand-in device: a phone that the real adb server connects to on loopback.

Its state is attributes of a Python object, which the phone's commands and kernel files show when
they are next read. Nothing of it listens beyond 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from stand_in.adbd import Connection, Stream
from stand_in.command_server import CommandServer
from stand_in.commands import Answer
from stand_in.faults import Fault, Faults
from stand_in.file_system import FileSystem
from stand_in.kernel_files import kernel_files
from stand_in.listener import Listener
from stand_in.logcat import Logcat
from stand_in.phones import MODERN, PhoneKind
from stand_in.runs import App, Run, ToolSettings
from stand_in.shell_service import ShellService
from stand_in.sync_service import SyncService

_ROOM_CELSIUS = 25.0


class StandInDevice:
    """A phone on 127.0.0.1, from `start()` to `close()`; also a context manager.

    Args:
        kind: MODERN or OLD, or another.
        features: What its adbd can do, in place of the kind's: without "shell_v2" a command's exit
            code is lost.

    Attributes (all may be changed at any time unless noted):
        kind, root, port, serial: Fixed. `root` is the folder that is the phone's `/`.
        properties: What getprop prints.
        online: The cores that are on.
        core_khz: Each core's clock now.
        core_limit_khz: Each core's scaling_max_freq, which throttling lowers.
        governor: Of every core.
        zones_celsius: Type and temperature of each thermal zone.
        battery_celsius: Rises by heat_per_run with each run of the tool, and falls by
            cool_per_read (to room temperature) after each time that dumpsys shows it.
        battery_percent, charging, thermal_status, awake: What dumpsys shows.
        battery_fields: Lines of `dumpsys battery` in place of the usual ones, such as
            {"status": "5"} for a full one.
        dumpsys_secs: How long each dumpsys takes.
        settings: By (namespace, key), such as ("system", "screen_off_timeout").
        packages: Version by name of each installed app.
        free_bytes: Space on /data; None for plenty. Shell commands can then write no file
            larger than it either, and make no folder where it is less than a block.
        has_inodes: Whether a new file or folder can be made.
        roots_own: Folders, such as "/data/local/tmp/mobile_bench", that `adb root` has made: only
            root may change what is in them.
        state: What its adbd is, "device" or such as "recovery", from the next connection on.
        taskset_ignored: taskset succeeds and the command runs on all cores.
        crlf: Without shell_v2: lines end in CRLF, as on phones before Android 7.
        tool: How its benchmark_model behaves.
        on_run: Called with the device and a Run before each run of the tool.
        faults: What is to go wrong.
        log: Every service that was opened, such as "shell,v2,raw:getprop".
        transfers: ("push" | "pull", path, bytes) of every file.
        runs: Every run of the tool.
        boot_id: Changes by a reboot.
        lock: Held while an attribute and what shows it are changed together.
    """

    def __init__(self, kind: PhoneKind = MODERN, features: tuple[str, ...] | None = None) -> None:
        self.kind = kind
        self.features = kind.features if features is None else features
        self.properties = dict(kind.properties)
        self.cpus = list(range(len(kind.core_max_khz)))
        self.online = list(self.cpus)
        self.core_khz = list(kind.core_max_khz)
        self.core_limit_khz = list(kind.core_max_khz)
        self.governor = kind.governor
        self.zones_celsius = dict(kind.zones_celsius)
        self.battery_celsius, self.heat_per_run, self.cool_per_read = 28.5, 0.0, 0.0
        self.battery_percent, self.charging = 87, True
        self.battery_fields: dict[str, str] = {}
        self.dumpsys_secs = 0.0
        self.thermal_status = 0
        self.awake = True
        self.settings = {("system", "screen_off_timeout"): "30000"}
        self.packages: dict[str, str] = {}
        self.roots_own: list[str] = []
        self.state = "device"
        self.taskset_ignored = False
        self.crlf = False
        self.tool = ToolSettings()
        self.on_run: Callable[[StandInDevice, Run], None] | None = None
        self.faults = Faults()
        self.log: list[str] = []
        self.transfers: list[tuple[str, str, int]] = []
        self.runs: list[Run] = []
        self.affinity: dict[int, list[int]] = {}
        self.logcat = Logcat()
        self.app = App(self)

        self.port, self.serial = 0, ""  # until start()
        self._base = Path(tempfile.mkdtemp(prefix="stand_in_")).resolve()
        self.files = FileSystem(self._base / "root", self._base / "commands")
        self.root = self.files.root
        for name in kind.unreadable:
            self.files.forbid(name)
        self._commands = CommandServer(self, self._base / "commands")
        self._shells = 0
        self._is_closed = False
        self._authorized = True
        self._refuse = 0
        self.lock = threading.RLock()
        self._connections: list[Connection] = []
        self._listener: Listener | None = None
        self.boot()

    # ---- life -------------------------------------------------------------------------------

    def __enter__(self) -> StandInDevice:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> StandInDevice:
        """Listens on a free port of 127.0.0.1."""
        self._commands.start()
        self.plug_in()
        self.port = self._listener.port
        self.serial = f"127.0.0.1:{self.port}"
        return self

    def close(self) -> None:
        """Drops all connections, ends all processes and removes the files."""
        self.unplug()
        self._commands.close()
        with self.lock:  # from here on nothing is started or written
            self._is_closed = True
        self.kill_processes()
        shutil.rmtree(self._base, ignore_errors=True)

    def boot(self) -> None:
        """Sets what every start of the phone makes anew."""
        self.boot_id = str(uuid.uuid4())
        self.kill_processes()
        self.logcat.clear()
        self.affinity.clear()

    def processes(self) -> list[int]:
        """Returns the host's processes that were started on the phone and live."""
        mark = b"STAND_IN_ROOT=" + os.fsencode(self.root) + b"\0"
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes() + b"\0":
                    found.append(int(folder.name))
        return found

    def kill_processes(self) -> None:
        """Ends them, and those that they start meanwhile."""
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # ---- what a test does to the phone ------------------------------------------------------

    @property
    def authorized(self) -> bool:
        """Whether the phone's user allows this host; setting it answers the phone's question."""
        return self._authorized

    @authorized.setter
    def authorized(self, value: bool) -> None:
        self._authorized = value
        if value:
            for connection in list(self._connections):
                connection.answer_question()

    def unplug(self, refuse: int | None = None) -> None:
        """Pulls the cable: connections break, processes live on.

        Args:
            refuse: How many new connections are refused before the phone is back; None keeps it
                away until plug_in().
        """
        self._refuse = refuse or 0
        if refuse is None and self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.close()

    def plug_in(self) -> None:
        """Lets connections in again, at the same port."""
        if self._listener is None:
            device_socket = socket.create_server(("127.0.0.1", self.port))
            self._listener = Listener(device_socket, self._serve_connection)

    def reboot(self, refuse: int | None = 0) -> None:
        """Breaks connections, ends all processes and makes a new boot id."""
        self.unplug(refuse)
        self.boot()

    def freeze(self) -> None:
        """Stops answering, with connections open."""
        for connection in list(self._connections):
            connection.freeze()

    def thaw(self) -> None:
        for connection in list(self._connections):
            connection.thaw()

    def set_answer(self, command: str, answer: Answer) -> None:
        """Makes a command print this whatever its arguments, be it one of the host's, as ls."""
        self._commands.answers[command] = answer
        self.files.add_command(command)

    def remove_command(self, command: str) -> None:
        """Makes a command unknown to the phone's shell."""
        self.files.remove_command(command)

    @property
    def free_bytes(self) -> int | None:
        return self.files.free_bytes

    @free_bytes.setter
    def free_bytes(self, value: int | None) -> None:
        self.files.free_bytes = value

    @property
    def has_inodes(self) -> bool:
        return self.files.has_inodes

    @has_inodes.setter
    def has_inodes(self, value: bool) -> None:
        self.files.has_inodes = value

    def round_trips(self) -> int:
        """Returns how many services were opened since the log was last cleared."""
        return len(self.log)

    # ---- services ---------------------------------------------------------------------------

    def open_service(self, name: str, stream: Stream) -> None:
        """Serves one stream to its end.

        Raises:
            LookupError: There is no such service.
        """
        self.log.append(name)
        self.write_kernel_files()
        kind, _, rest = name.partition(":")
        words = kind.split(",")
        if words[0] in ("shell", "exec"):
            fault = self.faults.take("shell", rest)
            if fault is not None:
                self.act(fault)
            packets = "v2" in words
            if packets and "shell_v2" not in self.features:
                raise LookupError(name)
            crlf = self.crlf and words[0] == "shell"
            kind = "" if fault is None else fault.kind
            ShellService(self, stream, packets, crlf, kind).run(rest)
        elif kind == "sync":
            SyncService(self, stream).run()
        elif kind == "reboot":
            self.reboot()
        else:
            raise LookupError(name)

    def act(self, fault: Fault) -> None:
        """Does what a fault of the whole phone says."""
        if fault.kind == "unplug":
            self.unplug(fault.refuse)
        elif fault.kind == "reboot":
            self.reboot(fault.refuse)
        elif fault.kind == "freeze":
            self.freeze()

    def popen(self, command: str | list[str], **options: object) -> subprocess.Popen:
        """Starts a process on the phone: a line of its shell, or a list of words.

        Raises:
            LookupError: The phone was closed.
        """
        if isinstance(command, str):
            if self.free_bytes is not None:
                # Writes then fail with an error instead of a signal, as on a full disk.
                command = f"trap '' XFSZ; ulimit -f {self.free_bytes // 512}; {command}"
            command = [f"{self.files.command_path}/sh", "-c", command]
        with self.lock:
            if self._is_closed:
                raise LookupError("the phone is closed")
            self._shells += 1
            number = str(self._shells)
            self.write_status(number, self.cpus)
            environment = {
                "PATH": self.files.command_path,
                "HOME": "/",
                "TMPDIR": str(self.root / "data/local/tmp"),
                "LC_ALL": "C.UTF-8",
                "STAND_IN_ROOT": str(self.root),
                "STAND_IN_SHELL": number,
                "STAND_IN_ROOTS_OWN": " ".join(f"{self.root}{name}" for name in self.roots_own),
                "STAND_IN_IS_FULL": "yes" if self.files.is_full else "",
            }
            return subprocess.Popen(
                command, cwd=self.root, env=environment, start_new_session=True, **options
            )

    # ---- state shown in files ---------------------------------------------------------------

    def write_status(self, shell: str | None, cpus: list[int]) -> None:
        """Sets the cores that one shell service's commands read in /proc/self/status."""
        if shell is not None:
            self.files.write_status(shell, cpus, len(self.cpus))

    def read_battery_celsius(self) -> float:
        """Returns the battery's temperature; having been read, it cools."""
        shown = self.battery_celsius
        self.battery_celsius = max(
            min(shown, _ROOM_CELSIUS), self.battery_celsius - self.cool_per_read
        )
        return shown

    def write_kernel_files(self) -> None:
        """Makes /sys and /proc show the attributes."""
        with self.lock:
            for name, text in kernel_files(self).items():
                if not self.files.is_forbidden(name) and not self._is_closed:
                    self.files.write(name, text + "\n")

    # ---- connections ------------------------------------------------------------------------

    def _serve_connection(self, connected: socket.socket) -> None:
        with self.lock:
            if self._refuse:
                self._refuse -= 1
                connected.close()
                return
        # Small packets follow each other: without this each waits for the other side's answer.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        banner = f"{self.state}::" + "".join(
            f"{name}={self.properties.get(name, '')};"
            for name in ("ro.product.name", "ro.product.model", "ro.product.device")
        )
        banner += "features=" + ",".join(self.features)
        connection = Connection(connected, banner, self.open_service, lambda: self.authorized)
        self._connections.append(connection)
        connection.run()
        self._connections.remove(connection)
