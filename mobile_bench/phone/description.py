"""What a phone is and how it is at a moment: scripts for its shell, and parsers of their answers.

An answer is data: anything missing, odd or oversized becomes None or is cut, and nothing raises.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

from mobile_bench.adb.device import AdbDevice, Script
from mobile_bench.errors import one_line
from mobile_bench.results import Device, DeviceState

_ANSWER_SECS = 20.0
_MAX_BYTES = 256 * 1024
_MAX_CORES = 1024
_LONGEST_VALUE = 200  # characters

_PROPERTIES = (
    *("ro.serialno", "ro.boot.serialno", "ro.product.manufacturer", "ro.product.model"),
    *("ro.soc.manufacturer", "ro.soc.model", "ro.board.platform", "ro.hardware"),
    *("ro.build.version.release", "ro.build.version.sdk", "ro.build.fingerprint"),
    *("ro.product.cpu.abilist", "ro.product.cpu.abi"),
)

# `read` is the shell's own: a program started per file would cost more than the run it stands by.
# It complains about files that are not there before its own 2>/dev/null holds, hence the braces.
_CORES_SCRIPT = """\
for core in /sys/devices/system/cpu/cpu[0-9]*; do
values=
for name in {names}; do
value=
{{ read -r value <"$core/cpufreq/$name"; }} 2>/dev/null
values="$values ${{value:--}}"
done
echo "@core ${{core##*/cpu}}$values"
done
"""
_DESCRIBE_SCRIPT = (
    # All of them at once: on a phone each `getprop` takes as long as this one.
    f"getprop | grep -E '^\\[({'|'.join(_PROPERTIES)})\\]'\n"
    + _CORES_SCRIPT.format(names="cpuinfo_max_freq")
)
# The cores come first: after a run their clocks fall while the services are asked.
_STATE_SCRIPT = (
    _CORES_SCRIPT.format(names="scaling_cur_freq scaling_max_freq scaling_governor")
    + "echo @battery\n"
    "dumpsys battery 2>/dev/null | grep -E 'level:|temperature:|powered:'\n"
    "echo @thermal\n"
    "dumpsys thermalservice 2>/dev/null | grep 'Thermal Status:'\n"
    "echo @power\n"
    "dumpsys power 2>/dev/null | grep 'mWakefulness='\n"
)


def describe_phone(device: AdbDevice) -> Device:
    """Asks a phone what it is, in one round trip.

    Raises:
        DeviceError: It does not answer.
    """
    result = device.shell(Script(_DESCRIBE_SCRIPT), timeout_secs=_ANSWER_SECS, max_bytes=_MAX_BYTES)
    return parse_description(result.stdout, device.serial)


def read_state(device: AdbDevice) -> DeviceState:
    """Asks a phone how it is, in one round trip.

    Raises:
        DeviceError: It does not answer.
    """
    result = device.shell(Script(_STATE_SCRIPT), timeout_secs=_ANSWER_SECS, max_bytes=_MAX_BYTES)
    return parse_state(result.stdout)


def describe_with_state(device: AdbDevice) -> tuple[Device, DeviceState]:
    """Asks a phone what and how it is, in one round trip.

    Raises:
        DeviceError: It does not answer.
    """
    script = Script(_DESCRIBE_SCRIPT + _STATE_SCRIPT)
    text = device.shell(script, timeout_secs=_ANSWER_SECS, max_bytes=_MAX_BYTES).stdout
    return parse_description(text, device.serial), parse_state(text)


def state_script() -> str:
    """Returns shell text that prints what `parse_state` reads, to be put into a longer script."""
    return _STATE_SCRIPT


def parse_description(text: str, target: str) -> Device:
    """Returns the device of what its shell printed; a value that is missing is ""."""
    text = text[:_MAX_BYTES]
    values = dict(re.findall(r"(?m)^\[([\w.]+)\]: \[(.*?)\]?\s*$", text))
    properties = {key: one_line(values.get(key, "").strip(), _LONGEST_VALUE) for key in _PROPERTIES}

    def first(*keys: str) -> str:
        return next((properties[key] for key in keys if properties[key]), "")

    soc = f"{properties['ro.soc.manufacturer']} {properties['ro.soc.model']}".strip()
    release, sdk = properties["ro.build.version.release"], properties["ro.build.version.sdk"]
    abis = first("ro.product.cpu.abilist", "ro.product.cpu.abi").split(",")
    return Device(
        target=target,
        serial=first("ro.serialno", "ro.boot.serialno"),
        maker=properties["ro.product.manufacturer"],
        model=properties["ro.product.model"],
        cpu=soc if properties["ro.soc.model"] else first("ro.board.platform", "ro.hardware"),
        os=f"Android {release} (SDK {sdk})" if release else "Android",
        build=properties["ro.build.fingerprint"],
        abis=tuple(abi for abi in abis if re.fullmatch(r"[\w-]{1,40}", abi, re.ASCII)),
        core_max_khz=tuple(_whole(values[0]) for values in _cores(text, 1)),
    )


def parse_state(text: str, date: str | None = None) -> DeviceState:
    """Returns the state of what `state_script` printed.

    Args:
        text: What it printed.
        date: When, UTC, ISO 8601; now when None.
    """
    text = text[:_MAX_BYTES]
    sections = _sections(text)
    battery = "\n".join(sections.get("battery", ()))
    tenths = _number(r"temperature:\s*(-?\d{1,5})\s", battery)
    powered = re.findall(r"powered:\s*(true|false)\s", battery + "\n")
    awake = re.search(r"mWakefulness=(\w+)", "\n".join(sections.get("power", ())))
    cores = _cores(text, 3)
    return DeviceState(
        date=date or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        battery_percent=_number(r"(?m)^\s*level:\s*(\d{1,3})\s", battery),
        charging="true" in powered if powered else None,
        battery_celsius=None if tenths is None else tenths / 10,
        thermal_status=_number(r"Thermal Status:\s*(\d)\s", "\n".join(sections.get("thermal", ()))),
        core_khz=tuple(_whole(values[0]) for values in cores),
        core_limit_khz=tuple(_whole(values[1]) for values in cores),
        governors=tuple(_word(values[2]) for values in cores),
        screen_on=None if awake is None else awake[1] in ("Awake", "Dreaming"),
    )


def _sections(text: str) -> dict[str, list[str]]:
    """Returns the lines behind each line that begins with @; of equal ones the first counts."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            lines = []
            sections.setdefault(line[1:], lines)
        else:
            lines.append(line)
    return sections


def _cores(text: str, count: int) -> list[tuple[str, ...]]:
    """Returns `count` values of each core, from core 0 on, "-" where one is not known."""
    found = {}
    for match in re.finditer(rf"(?m)^@core (\d{{1,4}})((?: \S{{1,40}}){{{count}}})\s*$", text):
        found.setdefault(int(match[1]), tuple(match[2].split()))
    cores = range(min(max(found, default=-1) + 1, _MAX_CORES))
    return [found.get(core, ("-",) * count) for core in cores]


def _number(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text + "\n", re.ASCII)
    return int(match[1]) if match else None


def _whole(text: str) -> int | None:
    """Returns a frequency; a core that is switched off says 0, or nothing."""
    return int(text) or None if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None


def _word(text: str) -> str | None:
    return None if text == "-" else one_line(text)
