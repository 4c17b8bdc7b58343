"""What a phone says about itself, read from the answers of real and of hostile shells."""

from __future__ import annotations

import dataclasses
import json
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_bench.adb.device import ShellResult
from mobile_bench.adb.server import Attached
from mobile_bench.phone.description import (
    describe_with_state,
    parse_description,
    parse_state,
    read_state,
)
from mobile_bench.phone.listing import DeviceLine, format_devices
from mobile_bench.results import Device, DeviceState

DESCRIPTION = """\
[ro.serialno]: [9A251FFAZ00123]
[ro.boot.serialno]: []
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 4]
[ro.soc.manufacturer]: [{soc_maker}]
[ro.soc.model]: [{soc_model}]
[ro.board.platform]: [msmnile]
[ro.hardware]: [flame]
[ro.build.version.release]: [13]
[ro.build.version.sdk]: [33]
[ro.build.fingerprint]: [google/flame/flame:13/TP1A.221005.002/9012097:user/release-keys]
[ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a,armeabi]
[ro.product.cpu.abi]: [arm64-v8a]
@core 0 1785600
@core 1 1785600
@core 10 2841600
@core 2 -
"""

STATE = """\
@battery
  AC powered: false
  USB powered: {usb}
  Wireless powered: false
  level: 87
  temperature: 312
@thermal
Thermal Status: 2
@power
  mWakefulness=Awake
@core 0 576000 1785600 schedutil
@core 1 0 - -
"""


def test_a_description_is_read():
    text = DESCRIPTION.format(soc_maker="QTI", soc_model="SM8150")
    device = parse_description(text, "192.0.2.7:5555")
    assert device == Device(
        target="192.0.2.7:5555",
        serial="9A251FFAZ00123",
        maker="Google",
        model="Pixel 4",
        cpu="QTI SM8150",
        os="Android 13 (SDK 33)",
        build="google/flame/flame:13/TP1A.221005.002/9012097:user/release-keys",
        abis=("arm64-v8a", "armeabi-v7a", "armeabi"),
        core_max_khz=(1785600, 1785600, None, *[None] * 7, 2841600),
    )


def test_older_phones_name_their_platform():
    text = DESCRIPTION.format(soc_maker="", soc_model="")
    assert parse_description(text, "x").cpu == "msmnile"
    assert parse_description(text.replace("msmnile", ""), "x").cpu == "flame"
    # A line end of the terminal that shells of old devices print on.
    assert parse_description(text.replace("\n", "\r\n"), "x") == parse_description(text, "x")


def test_a_state_is_read():
    state = parse_state(STATE.format(usb="true"), date="2025-01-01T00:00:00+00:00")
    assert state == DeviceState(
        date="2025-01-01T00:00:00+00:00",
        battery_percent=87,
        charging=True,
        battery_celsius=31.2,
        thermal_status=2,
        core_khz=(576000, None),
        core_limit_khz=(1785600, None),
        governors=("schedutil", None),
        screen_on=True,
    )
    assert parse_state(STATE.format(usb="false")).charging is False
    assert parse_state(STATE.replace("Awake", "Asleep")).screen_on is False
    assert parse_state(STATE.replace("312", "-52")).battery_celsius == -5.2


THERMAL = """\
@thermal
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=55.0, mType=2, mName=battery, mStatus=0}
Current temperatures from HAL:
\tTemperature{mValue=48.0, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=%s, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=battery}
"""


def battery(thermal: str = "", **fields: object) -> DeviceState:
    """The state of a phone with these lines of `dumpsys battery`."""
    usual = {"AC powered": "false", "USB powered": "true", "status": 2, "present": "true"}
    lines = usual | {"level": 87, "scale": 100, "temperature": 312} | fields
    text = "@battery\n" + "".join(f"  {name}: {value}\n" for name, value in lines.items())
    return parse_state(text + (THERMAL % thermal if thermal else ""))


@pytest.mark.parametrize(
    ("temperature", "celsius"),
    [
        (312, 31.2),
        (100, 10.0),
        (900, 90.0),
        (-300, -30.0),
        (0, None),  # no sensor
        (31, None),  # whole degrees, or 3.1 C
        (3570, None),  # hundredths
        (901, None),
        (-301, None),
        (-2730, None),
        (2147483647, None),
        ("30.9", None),  # whole degrees again
        ("N/A", None),
    ],
)
def test_temperatures_that_cannot_be_are_none_and_told(temperature, celsius):
    state = battery(temperature=temperature)
    assert state.battery_celsius == celsius
    odd = f"battery: its temperature {temperature} makes no sense in tenths of a degree: "
    assert state.notes == ((f"{odd}it is not used",) if celsius is None else ())
    assert state.battery_percent == 87
    # Where thermalservice has one, it is taken; of now, not of the last alarm.
    state = battery("32.5, mType=2, mName=battery", temperature=temperature)
    assert state.battery_celsius == (celsius or 32.5)
    assert state.notes == ((f"{odd}thermalservice's is used",) if celsius is None else ())


@pytest.mark.parametrize(
    ("sensor", "celsius"),
    [
        ("31, mType=2, mName=BAT", 31.0),
        ("24.4, mType=3, mName=TYPE_BATTERY", 24.4),
        ("-99.9, mType=2, mName=battery", None),
        ("NaN, mType=2, mName=battery", None),
        ("0.0, mType=2, mName=BAT", None),
        ("40.1, mType=3, mName=SKIN", None),
        ("4012.0, mType=6, mName=vbat", None),
    ],
)
def test_what_thermalservice_says_of_the_battery(sensor, celsius):
    assert battery(sensor, temperature=0).battery_celsius == celsius


def test_a_phone_without_a_battery_has_none():
    state = battery("25.0, mType=2, mName=battery", present="false", temperature=0, level=0)
    assert (state.battery_celsius, state.battery_percent, state.charging) == (None, None, None)
    assert state.notes == ()


def test_a_battery_that_stands_still_is_told_and_not_believed():
    text = (
        "@battery\n  (UPDATES STOPPED -- use 'reset' to restart)\n  level: 50\n  temperature: 250\n"
    )
    state = parse_state(text)
    assert (state.battery_celsius, state.battery_percent) == (None, None)
    (note,) = state.notes
    assert "UPDATES STOPPED" in note
    assert "dumpsys battery reset" in note
    state = parse_state(text + THERMAL % "33.5, mType=2, mName=battery")
    assert (state.battery_celsius, len(state.notes)) == (33.5, 1)


@pytest.mark.parametrize(
    ("fields", "charging"),
    [
        ({"status": 2}, True),
        ({"status": 5}, False),  # full, on a cable
        ({"status": 4}, False),  # held at its charge limit
        ({"status": 3, "USB powered": "false"}, False),
        ({"status": 1}, True),  # it does not know
        ({"status": 1, "USB powered": "false"}, False),
    ],
)
def test_a_battery_charges_where_it_says_so(fields, charging):
    assert battery(**fields).charging is charging


@pytest.mark.parametrize(
    ("fields", "percent"),
    [
        ({"level": 174, "scale": 200}, 87),
        ({"level": 87, "scale": 0}, 87),
        ({"level": 174}, None),
        ({"level": -1}, None),
    ],
)
def test_the_charge_is_of_its_scale(fields, percent):
    assert battery(**fields).battery_percent == percent


def test_three_slow_services_have_the_time_that_each_has():
    """dumpsys itself gives a service ten seconds."""
    device = mock.Mock(serial="x")
    device.shell.return_value = ShellResult("", "", 0, cut=False)
    read_state(device)
    describe_with_state(device)
    assert all(call.kwargs["timeout_secs"] > 30 for call in device.shell.call_args_list)


def test_what_is_not_told_is_none():
    nothing = dataclasses.asdict(parse_state("", date="now"))
    assert nothing.pop("date") == "now"
    assert set(nothing.values()) == {None, ()}
    device = parse_description("sh: getprop: not found", "x")
    assert device == Device("x", "", "", "", "", "Android", "", (), ())


HOSTILE = st.text() | st.lists(
    st.sampled_from([*DESCRIPTION.splitlines(), *STATE.splitlines()]) | st.text(max_size=20)
).map("\n".join)


@given(HOSTILE)
def test_any_answer_is_bounded_and_printable(text):
    device, state = parse_description(text, "x"), parse_state(text)
    for value in (*dataclasses.astuple(device), *dataclasses.astuple(state)):
        for part in value if isinstance(value, tuple) else (value,):
            assert not isinstance(part, str) or (part.isprintable() and len(part) < 300)
    attached = Attached("x", "device", {})
    table = format_devices([DeviceLine(attached, device, state, "")])
    assert len(table.splitlines()) == 2
    json.dumps(dataclasses.asdict(device))


@pytest.mark.parametrize("core", ["99999999999", "9999", "-1", "0x7", "1e3"])
def test_a_core_number_does_not_size_the_answer(core):
    assert len(parse_description(f"@core {core} 1000\n" * 3, "x").core_max_khz) <= 1024


def test_an_endless_answer_is_cut():
    text = DESCRIPTION + "x" * 10_000_000
    assert len(parse_description(text, "x").abis) == 3
    assert len(parse_description(f"[ro.product.model]: [{'y' * 99999}]", "x").model) < 300


def test_the_table_says_what_to_do():
    lines = [
        DeviceLine(
            Attached("A1", "device", {}),
            parse_description(DESCRIPTION.format(soc_maker="QTI", soc_model="SM8150"), "A1"),
            parse_state(STATE.format(usb="true")),
            "",
        ),
        DeviceLine(Attached("B2", "unauthorized", {}), None, None, "unlock the phone"),
    ]
    header, first, second, empty, advice = format_devices(lines).splitlines()
    assert header.split()[:3] == ["serial", "maker", "model"]
    for cell in ("A1", "Google", "Pixel 4", "QTI SM8150", "13 (SDK 33)", "87 % charging", "31.2 C"):
        assert cell in first
    assert second.split() == ["B2", "unauthorized"]
    assert (empty, advice) == ("", "B2: unlock the phone")
    assert "USB debugging" in format_devices([])


def test_the_table_says_what_is_odd_about_a_phone():
    state = battery(temperature=3570)
    device = parse_description("", "A1")
    line = format_devices([DeviceLine(Attached("A1", "device", {}), device, state, "")])
    assert line.splitlines()[-1] == f"A1: {state.notes[0]}"
