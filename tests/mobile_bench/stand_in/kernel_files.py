"""The files of /sys and /proc in which the kernel tells of cores, clocks and temperatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stand_in.commands import to_list

if TYPE_CHECKING:
    from stand_in.device import StandInDevice

_CPU = "/sys/devices/system/cpu"


def kernel_files(device: StandInDevice) -> dict[str, str]:
    """Returns the text of each file (without its line end) by its path."""
    cpuinfo = (
        f"processor\t: {core}\nCPU implementer\t: 0x41\nCPU architecture: 8"
        for core in device.online
    )
    texts = {
        f"{_CPU}/online": to_list(device.online),
        f"{_CPU}/possible": to_list(device.cpus),
        f"{_CPU}/present": to_list(device.cpus),
        "/proc/cpuinfo": "\n\n".join(cpuinfo),
        "/proc/meminfo": f"MemTotal:       {device.kind.memory_kb:8} kB",
        "/proc/sys/kernel/random/boot_id": device.boot_id,
        "/proc/uptime": "5012.44 30211.08",
    }
    for core in device.cpus:
        folder = f"{_CPU}/cpu{core}/cpufreq"
        texts |= {
            f"{folder}/cpuinfo_max_freq": str(device.kind.core_max_khz[core]),
            f"{folder}/cpuinfo_min_freq": str(device.kind.core_min_khz[core]),
            f"{folder}/scaling_max_freq": str(device.core_limit_khz[core]),
            f"{folder}/scaling_cur_freq": str(device.core_khz[core]),
            f"{folder}/scaling_governor": device.governor,
        }
    for index, (kind, celsius) in enumerate(device.zones_celsius.items()):
        zone = f"/sys/class/thermal/thermal_zone{index}"
        texts |= {f"{zone}/type": kind, f"{zone}/temp": str(round(1000 * celsius))}
    return texts
