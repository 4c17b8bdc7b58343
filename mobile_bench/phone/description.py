"""What a phone is and how it is at a moment: scripts for its shell, and parsers of their answers.

An answer is data: anything missing, odd or oversized becomes None or is cut, and nothing raises.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import NamedTuple

from mobile_bench.adb.device import AdbDevice, Script
from mobile_bench.errors import one_line
from mobile_bench.results import Device, DeviceState

_ANSWER_SECS = 20.0
STATE_SECS = 60.0  # for three services, of which dumpsys gives each ten seconds, and for the clocks
_MAX_BYTES = 256 * 1024
_MAX_CORES = 1024
_LONGEST_VALUE = 200  # characters
_COLDEST, _WARMEST = -30.0, 90.0  # degrees Celsius that a battery can have

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
    "dumpsys battery 2>/dev/null | grep -E "
    "'UPDATES STOPPED|powered:|status:|present:|level:|scale:|temperature:'\n"
    "echo @thermal\n"
    "dumpsys thermalservice 2>/dev/null | grep -E 'Thermal Status:|temperatures|mType='\n"
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
    result = device.shell(Script(_STATE_SCRIPT), timeout_secs=STATE_SECS, max_bytes=_MAX_BYTES)
    return parse_state(result.stdout)


def describe_with_state(device: AdbDevice) -> tuple[Device, DeviceState]:
    """Asks a phone what and how it is, in one round trip.

    Raises:
        DeviceError: It does not answer.
    """
    script = Script(_DESCRIBE_SCRIPT + _STATE_SCRIPT)
    text = device.shell(script, timeout_secs=STATE_SECS, max_bytes=_MAX_BYTES).stdout
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
    sections = {name: "\n".join(lines) for name, lines in _sections(text).items()}
    thermal = sections.get("thermal", "")
    battery = _parse_battery(sections.get("battery", ""), thermal)
    awake = re.search(r"mWakefulness=(\w+)", sections.get("power", ""))
    cores = _cores(text, 3)
    return DeviceState(
        date=date or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        battery_percent=battery.percent,
        charging=battery.charging,
        battery_celsius=battery.celsius,
        thermal_status=_number(r"Thermal Status:\s*(\d)\s", thermal),
        core_khz=tuple(_whole(values[0]) for values in cores),
        core_limit_khz=tuple(_whole(values[1]) for values in cores),
        governors=tuple(_word(values[2]) for values in cores),
        screen_on=None if awake is None else awake[1] in ("Awake", "Dreaming"),
        notes=battery.notes,
    )


class _Battery(NamedTuple):
    percent: int | None = None
    charging: bool | None = None
    celsius: float | None = None
    notes: tuple[str, ...] = ()


def _parse_battery(text: str, thermal: str) -> _Battery:
    """Reads `dumpsys battery`; what its temperature does not tell is taken from thermalservice."""
    if re.search(r"(?m)^\s*present:\s*false\s*$", text):
        return _Battery()
    if "UPDATES STOPPED" in text:  # by `dumpsys battery unplug` or `set`, and for good
        stopped = (
            "battery: its values stand still (UPDATES STOPPED) and are not used: "
            "`adb shell dumpsys battery reset` lets them go on"
        )
        return _Battery(celsius=_thermal_celsius(thermal), notes=(stopped,))
    level = _number(r"(?m)^\s*level:\s*(\d{1,5})\s", text)
    scale = _number(r"(?m)^\s*scale:\s*(\d{1,5})\s", text) or 100
    told = re.search(r"(?m)^\s*temperature:\s*(\S{1,40})", text)
    celsius, notes = _of_tenths(told[1]) if told else None, ()
    if celsius is None:
        celsius = _thermal_celsius(thermal)
        if told:
            used = "it is not used" if celsius is None else "thermalservice's is used"
            notes = (
                f"battery: its temperature {one_line(told[1])} makes no sense in tenths of a "
                f"degree: {used}",
            )
    return _Battery(
        percent=None if level is None or level > scale else round(100 * level / scale),
        charging=_is_charging(text),
        celsius=celsius,
        notes=notes,
    )


def _is_charging(text: str) -> bool | None:
    """Whether the battery is being charged: a full one on a cable is not."""
    status = _number(r"(?m)^\s*status:\s*(\d)\s", text)
    if status in (2, 3, 4, 5):  # charging, discharging, not charging, full
        return status == 2
    powered = re.findall(r"powered:\s*(true|false)\s", text + "\n")
    return "true" in powered if powered else None


def _of_tenths(text: str) -> float | None:
    """Returns the temperature of tenths of a degree; None where they are none.

    Some phones tell hundredths (3570), whole degrees (31, 30.9), or 0 for nothing. From 0 to 10
    degrees these cannot be told from tenths, so no battery is believed to be as cold.
    """
    if not re.fullmatch(r"-?\d{1,15}", text, re.ASCII) or 0 <= int(text) < 100:
        return None
    return _sound_celsius(int(text) / 10)


def _thermal_celsius(text: str) -> float | None:
    """Returns the battery's temperature of now, not of the last alarm, as thermalservice has it."""
    current = text.partition("Current temperatures from HAL:")[2]
    found = re.search(  # vendors count the types from 0 or from 1, hence the name
        r"Temperature\{mValue=(-?\d{1,4}(?:\.\d{1,9})?), mType=[23], "
        r"mName=(?:TYPE_)?(?:bat|batt|battery)(?:_therm)?[,}]",
        current,
        re.ASCII | re.IGNORECASE,
    )
    celsius = 0.0 if found is None else float(found[1])
    return _sound_celsius(celsius) if celsius else None  # 0.0 is a sensor that is not there


def _sound_celsius(value: float) -> float | None:
    return value if _COLDEST <= value <= _WARMEST else None


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
