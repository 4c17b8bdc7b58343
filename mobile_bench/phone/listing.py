"""The devices that adb knows, each with what it is, how it is, and what to do to use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobile_bench.adb.errors import DeviceError
from mobile_bench.adb.server import Adb, Attached
from mobile_bench.errors import one_line
from mobile_bench.phone.description import describe_with_state
from mobile_bench.results import Device, DeviceState
from mobile_bench.topology import describe_cores

_HEADER = (
    "serial",
    "maker",
    "model",
    "SoC",
    "Android",
    "ABIs",
    "cores (GHz)",
    "battery",
    "temperature",
    "state",
)
_WIDEST = 60  # characters of a column


@dataclass(frozen=True)
class DeviceLine:
    """A device that adb knows.

    Attributes:
        attached: Its serial and state.
        device: What it is; None where it cannot be asked.
        state: How it is; None as well.
        advice: What to do to use it; "" when it can be used.
    """

    attached: Attached
    device: Device | None
    state: DeviceState | None
    advice: str


def list_devices(adb: Adb) -> list[DeviceLine]:
    """Asks every device that adb knows, one after the other.

    Raises:
        DeviceError: The adb server does not start or answer.
    """
    lines = []
    for attached in adb.attached():
        device = state = None
        advice = attached.advice
        if not advice:
            try:
                device, state = describe_with_state(adb.phone(attached.serial))
            except DeviceError as error:
                advice = str(error).removeprefix(f"{attached.serial}: ")
        lines.append(DeviceLine(attached, device, state, advice))
    return lines


def format_devices(lines: Sequence[DeviceLine]) -> str:
    """Returns the devices as a table for people, with the advice for each below it."""
    if not lines:
        return (
            "no devices: connect a phone with USB debugging on (Settings, System, Developer "
            "options), or give --target its Wi-Fi address"
        )
    rows = [_HEADER, *map(_cells, lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    advice = [
        f"{_safe(line.attached.serial)}: {text}"
        for line in lines
        for text in (line.advice, *(line.state.notes if line.state else ()))
        if text
    ]
    return "\n".join([*table, *([""] if advice else []), *advice])


def _cells(line: DeviceLine) -> tuple[str, ...]:
    attached, device, state = line.attached, line.device, line.state
    if device is None or state is None:
        model = _safe(attached.details.get("model", ""))
        return (_safe(attached.serial), "", model, "", "", "", "", "", "", attached.state)
    percent = "" if state.battery_percent is None else f"{state.battery_percent} %"
    return (
        _safe(attached.serial),
        _safe(device.maker),
        _safe(device.model),
        _safe(device.cpu),
        _safe(device.os.removeprefix("Android ")),
        _safe(",".join(device.abis)),
        describe_cores(device.core_max_khz),
        percent + (" charging" if state.charging else ""),
        "" if state.battery_celsius is None else f"{state.battery_celsius:.1f} C",
        attached.state,
    )


def _safe(text: str) -> str:
    return one_line(text, _WIDEST)
