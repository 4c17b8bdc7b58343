"""Which devices are measured: those in Android, by whatever name adb has for them."""

from __future__ import annotations

import pytest
from phone_helpers import make_options, run_session, write_models
from stand_in import Announced, Fault

from mobile_bench import cli
from mobile_bench.adb.errors import DeviceError
from mobile_bench.adb.server import Adb
from mobile_bench.phone import target as phone_module
from mobile_bench.phone.listing import format_devices, list_devices
from mobile_bench.phone.target import clean


@pytest.fixture
def options(adb, tool_path):
    return make_options(adb, tool_path)


@pytest.fixture
def paths(tmp_path):
    return write_models(tmp_path, "ab")


ANNOUNCED = "adb-R58M12ABCDE-x1YzAb (2)._adb-tls-connect._tcp"


def test_a_phone_by_the_name_that_it_announces(phone, adb, tool_path, paths, capsys, monkeypatch):
    """adb numbers a name that it hears twice; such a name has a space, and no port."""
    with Announced(adb, {ANNOUNCED: phone.serial}) as server:
        options = make_options(server, tool_path)
        for target in (ANNOUNCED, "all"):
            outcome = run_session(paths, target, options)
            assert (outcome.measured, outcome.lines) == (["a", "b"], [])
            assert {row.device.target for row in outcome.rows} == {ANNOUNCED}
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        assert cli.main(["mobile-bench", "devices"]) == 0
        assert f"\n{ANNOUNCED}  OnePlus  LE2113 " in capsys.readouterr().out
        assert cli.main(["mobile-bench", "clean", f"--target={ANNOUNCED}"]) == 0
        assert capsys.readouterr().out == f"{ANNOUNCED}: clean\n"


def test_a_name_that_is_not_announced_any_more_is_connected(phone, adb, tool_path, paths):
    client = Adb(adb.adb, adb.port)
    assert not client.can_connect("R58M12ABCDE")
    for name in (ANNOUNCED, "adb-x._adb._tcp", "adb-x._adb-tls-connect._tcp.local."):
        assert client.can_connect(name)
        with pytest.raises(DeviceError, match="adb says `failed to "):
            client.connect(name)


@pytest.mark.parametrize("state", ["recovery", "sideload", "rescue", "bootloader", "host"])
def test_what_is_not_in_android_is_not_measured(state, make_phone, adb, tool_path, paths):
    """adb gives a shell of it all the same."""
    phone = make_phone(connect=False)
    phone.state = state
    adb.connect(phone)
    outcome = run_session(paths, phone.serial, make_options(adb, tool_path))
    assert outcome.line.startswith(f"{phone.serial}: adb says that it is `{state}`; ")
    assert phone.log == []
    outcome = clean([phone.serial], make_options(adb, None))
    assert outcome[phone.serial].startswith(f"adb says that it is `{state}`; ")
    (line,) = [one for one in list_devices(Adb(adb.adb, adb.port)) if one.attached.state == state]
    assert line.device is None
    assert line.advice in outcome[phone.serial]


@pytest.mark.parametrize("state", ["unknown", "detached"])
def test_other_states_are_told(state, phone, adb, tool_path, paths):
    with Announced(adb, {"R58": phone.serial}, {"R58": state}) as server:
        outcome = run_session(paths, "R58", make_options(server, tool_path))
        (line,) = list_devices(Adb(server.adb, server.port))
    assert outcome.line == f"R58: adb says that it is `{state}`; {line.advice}"
    assert format_devices([line]).splitlines()[-1] == f"R58: {line.advice}"


def test_a_phone_that_comes_back_into_recovery(phone, options, paths, monkeypatch):
    monkeypatch.setattr(phone_module, "_BACK_SECS", 2.0)
    phone.state = "recovery"
    phone.faults.add(Fault("reboot", match="graph"))
    outcome = run_session(paths, phone.serial, options)
    assert "did not come back within 2 s: adb says that it is `recovery`; restart" in outcome.line
