"""Android's own commands as the stand-in answers them: getprop, dumpsys, settings, taskset, am ...

Each method of Commands is a command of its name; it gets the arguments and returns an Answer (or
Execute: another command to become). Texts are in the form in which Android prints them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from typing import TYPE_CHECKING

from stand_in.runs import PACKAGE

if TYPE_CHECKING:
    from stand_in.device import StandInDevice

APK = PACKAGE
_ACTIVITY = f"{APK}/.BenchmarkModelActivity"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command prints, and its exit code."""

    stdout: str | bytes = ""
    stderr: str | bytes = ""
    code: int = 0


@dataclasses.dataclass(frozen=True)
class Execute:
    """A command line to become, with additions to the environment."""

    command: list[str]
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Request:
    """A command that was started on the phone.

    Attributes:
        name: Of the command.
        arguments: Its arguments.
        folder: The host's path of its working folder.
        pid: The process; that of the command it becomes, too.
        shell: The number of the shell service it belongs to.
        cpus: The list of cores it was bound to by taskset, such as "4-7"; None for all.
        stdin: What it read.
    """

    name: str
    arguments: list[str]
    folder: str
    pid: int
    shell: str | None
    cpus: str | None
    stdin: bytes


class Commands:
    """The commands of one device."""

    NAMES = (
        *("am", "cmd", "df", "dumpsys", "getprop", "id", "input", "log", "logcat", "md5sum"),
        *("nproc", "pidof", "pm", "settings", "sha256sum", "svc", "taskset", "uname"),
    )

    def __init__(self, device: StandInDevice) -> None:
        self._device = device

    def answer(self, request: Request) -> Answer | Execute:
        """Returns what the command says; it refuses arguments that it does not understand."""
        try:
            return getattr(self, f"_{request.name}")(request, *request.arguments)
        except (IndexError, KeyError, ValueError) as error:
            return Answer(stderr=f"{request.name}: bad arguments ({error!r})\n", code=1)

    def _getprop(self, request: Request, *arguments: str) -> Answer:
        properties = self._device.properties
        if arguments:
            default = arguments[1] if len(arguments) > 1 else ""
            return Answer(properties.get(arguments[0], default) + "\n")
        return Answer("".join(f"[{key}]: [{properties[key]}]\n" for key in sorted(properties)))

    def _dumpsys(self, request: Request, *arguments: str) -> Answer:
        service, *rest = arguments or ("",)
        time.sleep(self._device.dumpsys_secs)
        if service == "battery":
            return Answer(self._battery())
        if service == "thermalservice" and self._device.kind.has_thermalservice:
            return Answer(self._thermalservice())
        if service == "power":
            awake = "Awake" if self._device.awake else "Asleep"
            return Answer(f"POWER MANAGER (dumpsys power)\n\n  mWakefulness={awake}\n")
        if service == "package" and rest:
            return Answer(self._package(rest[0]))
        return Answer(stderr=f"Can't find service: {service}\n")  # and yet the exit code is 0

    def _battery(self) -> str:
        device = self._device
        fields = {
            "AC powered": "false",
            "USB powered": str(device.charging).lower(),
            "Wireless powered": "false",
            "status": "2" if device.charging else "3",
            "health": "2",
            "present": "true",
            "level": str(device.battery_percent),
            "scale": "100",
            "voltage": "4234",
            "temperature": str(round(10 * device.read_battery_celsius())),
            "technology": "Li-ion",
        } | device.battery_fields
        lines = [f"  {name}: {value}\n" for name, value in fields.items()]
        return "Current Battery Service state:\n" + "".join(lines)

    def _thermalservice(self) -> str:
        device = self._device
        battery = device.read_battery_celsius()
        # Cached are those of the last alarm.
        cached, current = (self._temperatures(battery + more) for more in (20, 0))
        return (
            "IsStatusOverride: false\nThermalEventListeners:\n\tcallbacks: 1\n\tkilled: false\n"
            "\tbroadcasts count: -1\n"
            f"Thermal Status: {device.thermal_status}\nCached temperatures:\n{cached}"
            "HAL Ready: true\nHAL connection:\n\tThermalHAL 2.0 connected: yes\n"
            f"Current temperatures from HAL:\n{current}Current cooling devices from HAL:\n"
            "\tCoolingDevice{mValue=0, mType=2, mName=BATTERY}\n"
        )

    def _temperatures(self, battery: float) -> str:
        status = self._device.thermal_status
        return "".join(
            f"\tTemperature{{mValue={celsius:.1f}, mType={kind}, mName={name}, "
            f"mStatus={status if name == 'SKIN' else 0}}}\n"
            for celsius, kind, name in (
                (battery + 11, 0, "CPU0"),
                (battery, 2, "BATTERY"),
                (battery + 3, 3, "SKIN"),
            )
        )

    def _package(self, name: str) -> str:
        if name not in self._device.packages:
            return f"Unable to find package: {name}\n"
        return (
            f"Packages:\n  Package [{name}] (5f1c2a):\n    userId=10234\n"
            "    primaryCpuAbi=arm64-v8a\n    versionCode=1 minSdk=23 targetSdk=33\n"
            f"    versionName={self._device.packages[name]}\n"
        )

    def _settings(self, request: Request, *arguments: str) -> Answer:
        verb, namespace, key, *value = arguments
        settings = self._device.settings
        if verb == "get":
            return Answer(settings.get((namespace, key), "null") + "\n")
        if verb == "put":
            settings[namespace, key] = value[0]
        elif verb == "delete":
            found = settings.pop((namespace, key), None)
            return Answer(f"Deleted {int(found is not None)} rows\n")
        return Answer()

    def _input(self, request: Request, *arguments: str) -> Answer:
        keys = {"KEYCODE_WAKEUP": "224", "KEYCODE_SLEEP": "223", "KEYCODE_POWER": "26"}
        if arguments[0] == "keyevent":
            key = keys.get(arguments[1], arguments[1])
            states = {"224": True, "223": False, "26": not self._device.awake}
            self._device.awake = states.get(key, self._device.awake)
        return Answer()

    def _svc(self, request: Request, *arguments: str) -> Answer:
        values = {"true": "7", "false": "0", "ac": "1", "usb": "2", "wireless": "4"}
        if arguments[:2] == ("power", "stayon"):
            value = values[arguments[2]]
            self._device.settings["global", "stay_on_while_plugged_in"] = value
        return Answer()

    def _taskset(self, request: Request, *arguments: str) -> Answer | Execute:
        words = list(arguments)
        of_process = False
        while words and words[0].startswith("-"):
            of_process |= "p" in words.pop(0)
        if of_process and len(words) == 1:
            mask = to_mask(self._device.affinity.get(int(words[0]), self._device.cpus))
            return Answer(f"pid {words[0]}'s current affinity mask: {mask:x}\n")
        if len(words) < 2:
            return Answer(stderr='taskset: Needs 1 argument (see "taskset --help")\n', code=1)
        if not set(words[0].lower()) <= set("0123456789abcdef"):
            return Answer(stderr=f"taskset: bad mask '{words[0]}'\n", code=1)
        cpus = [cpu for cpu in range(64) if int(words[0], 16) >> cpu & 1]
        pid = int(words[1]) if of_process else request.pid
        if not cpus or not set(cpus) <= set(self._device.online):
            error = f"taskset: failed to set pid {pid}'s affinity: Invalid argument\n"
            return Answer(stderr=error, code=1)
        if self._device.taskset_ignored:
            cpus = self._device.cpus
        self._device.affinity[pid] = cpus
        if of_process:
            return Answer(f"pid {pid}'s new affinity mask: {to_mask(cpus):x}\n")
        self._device.write_status(request.shell, cpus)
        return Execute(words[1:], {"STAND_IN_CPUS": to_list(cpus)})

    def _am(self, request: Request, *arguments: str) -> Answer:
        verb, *rest = arguments
        if verb == "force-stop":
            self._device.app.stop()
            return Answer()
        component = rest[rest.index("-n") + 1]
        if APK not in self._device.packages or component != _ACTIVITY:
            error = f"Error: Activity class {{{component}}} does not exist.\n"
            return Answer(f"Starting: Intent {{ cmp={component} }}\nError type 3\n", error, 1)
        stopping = ""
        if "-S" in rest:
            self._device.app.stop()
            stopping = f"Stopping: {APK}\n"
        extra = rest[rest.index("args") + 1] if "args" in rest else ""
        self._device.app.start(extra.split())
        return Answer(f"{stopping}Starting: Intent {{ cmp={component} (has extras) }}\n")

    def _pm(self, request: Request, *arguments: str) -> Answer:
        packages = self._device.packages
        if arguments[:2] == ("list", "packages"):
            chosen = [p for p in packages if all(text in p for text in arguments[2:])]
            return Answer("".join(f"package:{name}\n" for name in sorted(chosen)))
        if arguments[0] == "path":
            if arguments[1] not in packages:
                return Answer(code=1)
            return Answer(f"package:/data/app/~~Zx3w==/{arguments[1]}-Q1w2==/base.apk\n")
        if arguments[0] == "install":
            packages[APK] = "1.0"
            return Answer("Success\n")
        if arguments[0] == "uninstall":
            found = packages.pop(arguments[-1], None)
            return Answer("Success\n" if found else "Failure [not installed]\n", code=not found)
        return Answer(stderr=f"Unknown command: {arguments[0]}\n", code=255)

    def _cmd(self, request: Request, *arguments: str) -> Answer:
        if arguments[0] != "package":
            return Answer(stderr=f"cmd: Can't find service: {arguments[0]}\n", code=20)
        return self._pm(request, *arguments[1:])

    def _log(self, request: Request, *arguments: str) -> Answer:
        tag = arguments[arguments.index("-t") + 1] if "-t" in arguments else "log"
        self._device.logcat.add(request.pid, "I", tag, arguments[-1])
        return Answer()

    def _logcat(self, request: Request, *arguments: str) -> Answer:
        if "-c" in arguments:
            self._device.logcat.clear()
            return Answer()
        if "-d" not in arguments:
            return Answer(stderr="logcat: the stand-in knows only -d and -c\n", code=1)
        return Answer(self._device.logcat.text(list(arguments)))

    def _sha256sum(self, request: Request, *arguments: str) -> Answer:
        return self._digests(request, "sha256", arguments)

    def _md5sum(self, request: Request, *arguments: str) -> Answer:
        return self._digests(request, "md5", arguments)

    def _digests(self, request: Request, kind: str, names: tuple[str, ...]) -> Answer:
        """Hashes what was pushed, not what is stored."""
        lines, errors = "", ""
        for name in [n for n in names if n != "-b"] or ["-"]:
            content = request.stdin
            if name != "-":
                try:
                    with open(os.path.join(request.folder, name), "rb") as file:
                        content = file.read()
                except OSError as error:
                    errors += f"{kind}sum: {name}: {error.strerror}\n"
                    continue
            content = self._device.files.tools.to_pushed(content)
            lines += f"{hashlib.new(kind, content).hexdigest()}  {name}\n"
        return Answer(lines, errors, int(bool(errors)))

    def _df(self, request: Request, *arguments: str) -> Answer:
        total, free = 115_000_000, (self._device.free_bytes or 0) // 1024
        if self._device.free_bytes is None:
            free = 40_000_000
        return Answer(
            "Filesystem       1K-blocks     Used Available Use% Mounted on\n"
            f"/dev/block/dm-8  {total} {total - free} {free} "
            f"{100 - 100 * free // total}% /data\n"
        )

    def _pidof(self, request: Request, *arguments: str) -> Answer:
        pid = self._device.app.pid() if arguments[-1] == APK else None
        return Answer(code=1) if pid is None else Answer(f"{pid}\n")

    def _nproc(self, request: Request, *arguments: str) -> Answer:
        return Answer(f"{len(self._device.online)}\n")

    def _id(self, request: Request, *arguments: str) -> Answer:
        return Answer("2000\n" if arguments else "uid=2000(shell) gid=2000(shell)\n")

    def _uname(self, request: Request, *arguments: str) -> Answer:
        words = {"s": "Linux", "n": "localhost", "r": "5.4.242-qgki", "m": "aarch64"}
        letters = "".join(arguments).replace("-", "") or "s"
        chosen = words if letters == "a" else {k: words[k] for k in words if k in letters}
        return Answer(" ".join(chosen.values()) + "\n")


def to_mask(cpus: list[int]) -> int:
    """Returns cores as a bit mask."""
    return sum(1 << cpu for cpu in cpus)


def to_list(cpus: list[int]) -> str:
    """Returns cores in the kernel's list form, such as "0-3,7"."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][-1] == cpu - 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in parts)
