"""What this host is and how it is now, in the records that phones have: from /sys and /proc."""

from __future__ import annotations

import functools
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

from mobile_bench.errors import FailureError, UsageError
from mobile_bench.results import Device, DeviceState, Settings, Tool
from mobile_bench.topology import resolve_cpus

_CPUS = Path("/sys/devices/system/cpu")
_NAMES = Path("/sys/class/dmi/id")
_SUPPLIES = Path("/sys/class/power_supply")
_RUNTIME = "ai-edge-litert"


@functools.cache
def describe_host() -> Device:
    """Returns what this host is."""
    system = platform.uname()
    maker, model = (_text(_NAMES / name) or "" for name in ("sys_vendor", "product_name"))
    names = [
        line.partition(":")[2].strip()
        for line in (_text(Path("/proc/cpuinfo")) or "").splitlines()
        if line.startswith("model name")
    ]
    return Device(
        target="host",
        serial="",
        maker=maker,
        model=model or _text(Path("/proc/device-tree/model")) or "",
        cpu=names[0] if names else system.machine,
        os=f"{system.system} {system.release}",
        build=system.version,
        abis=(system.machine,),
        core_max_khz=_of_cores("cpuinfo_max_freq"),
    )


def host_state() -> DeviceState:
    """Returns how this host is now.

    The temperature of a laptop's battery is left out: it says little of its CPU, which has a fan.
    """
    percent, charging = _battery()
    return DeviceState(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        battery_percent=percent,
        charging=charging,
        core_khz=_of_cores("scaling_cur_freq"),
        core_limit_khz=_of_cores("scaling_max_freq"),
        governors=_governors(),
    )


def host_cores(settings: Settings) -> tuple[int, ...] | None:
    """Returns the cores to bind to; None to leave that to the system.

    Raises:
        UsageError: The system cannot bind a process, or this process may not use those cores.
    """
    if not settings.cpus:
        return None
    if not hasattr(os, "sched_getaffinity"):
        raise UsageError("cpus: this system cannot bind a process to cores; leave it out")
    allowed = sorted(os.sched_getaffinity(0))
    return resolve_cpus(settings.cpus, describe_host(), settings.threads, allowed=allowed)


@functools.cache
def describe_tool() -> Tool:
    """Returns what runs the models.

    Raises:
        FailureError: It is not installed.
    """
    from importlib import metadata

    try:
        version = metadata.version(_RUNTIME)
    except metadata.PackageNotFoundError as error:
        raise FailureError(f"{_RUNTIME} is not installed: pip install {_RUNTIME}") from error
    return Tool(_RUNTIME, version, "")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None


def _clocks() -> list[Path]:
    """Returns the folder of each core's clock, which need not be there; of idle cores, too."""
    return [_CPUS / f"cpu{core}" / "cpufreq" for core in range(os.sysconf("SC_NPROCESSORS_CONF"))]


def _of_cores(name: str) -> tuple[int | None, ...]:
    """Returns a number in kHz for each core."""
    return tuple(_number(folder / name) for folder in _clocks())


def _governors() -> tuple[str | None, ...]:
    return tuple(_text(folder / "scaling_governor") for folder in _clocks())


def _battery() -> tuple[int | None, bool | None]:
    """Returns the charge in percent and whether it rises; None without a battery."""
    for supply in sorted(_SUPPLIES.glob("*")):
        if _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device":
            return _number(supply / "capacity"), _text(supply / "status") == "Charging"
    return None, None
