"""What a phone says about itself, read from the answers of real and of hostile shells."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_bench.adb.server import Attached
from mobile_bench.phone.description import parse_description, parse_state
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
