"""The real adb, its server and one device's shell and files, against stand-in phones."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_in.device import StandInDevice
from stand_in.faults import Fault
from stand_in.phones import OLD

from mobile_bench.adb.device import AdbDevice, Script
from mobile_bench.adb.errors import ADVICE, DeviceError, refusal, unusable
from mobile_bench.adb.server import Adb, find_adb, parse_devices
from mobile_bench.errors import UsageError
from mobile_bench.phone.description import describe_phone, read_state
from mobile_bench.phone.listing import format_devices, list_devices

TMP = "/data/local/tmp"
NASTY = [
    "",
    " a  b ",
    "$(reboot)",
    "`reboot`",
    "; reboot",
    "a'b\"c\\d",
    "two\nlines",
    "-n",
    "--help",
    "*",
    "~",
    "$HOME",
    "&& reboot",
    "| reboot",
    "> /sdcard/x",
    "ünïcödé 電話",
    "x" * 300,
    "y" * 5000,
]


@pytest.fixture(scope="session")
def client(adb) -> Adb:
    return Adb(adb.adb, adb.port)


@pytest.fixture(scope="module")
def modern(client):
    with StandInDevice() as phone:
        client.connect(phone.serial)
        yield phone


@pytest.fixture(scope="module")
def old(client):
    """A phone whose shell does not tell its streams apart, and prints as on a terminal."""
    with StandInDevice(OLD, features=("cmd",)) as phone:
        phone.crlf = True
        client.connect(phone.serial)
        yield phone


@pytest.fixture(params=["modern", "old"])
def either(request) -> StandInDevice:
    return request.getfixturevalue(request.param)


@pytest.fixture
def device(client, either) -> AdbDevice:
    return client.phone(either.serial)


@pytest.fixture
def own_client(own_adb, monkeypatch) -> Adb:
    """Of a server that the test may kill; the next one is started in the same environment."""
    for name, value in own_adb.environment.items():
        monkeypatch.setenv(name, value)
    return Adb(own_adb.adb, own_adb.port)


def make_program(path, text: str = "exit 0") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


class TestFinding:
    def test_the_path_that_is_given_comes_first(self, tmp_path):
        given_path = make_program(tmp_path / "own/adb")
        sdk = make_program(tmp_path / "sdk/platform-tools/adb")
        on_path = make_program(tmp_path / "bin/adb")
        environ = {"ANDROID_HOME": str(tmp_path / "sdk"), "PATH": str(tmp_path / "bin")}
        assert find_adb(given_path, environ) == given_path
        assert find_adb(None, environ) == sdk
        assert find_adb(None, {"ANDROID_SDK_ROOT": str(tmp_path / "sdk")}) == sdk
        assert find_adb(None, environ | {"ANDROID_HOME": str(tmp_path / "no")}) == on_path
        assert os.path.basename(find_adb(None, {})) == "adb"

    def test_where_it_was_looked_for_is_told(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "adbutils", None)
        with pytest.raises(UsageError, match=r"ANDROID_HOME, .*PATH and adbutils \(which is not"):
            find_adb(None, {})

    @pytest.mark.parametrize("name", ["missing", "folder", "text"])
    def test_a_path_that_is_no_program_is_refused(self, tmp_path, name):
        (tmp_path / "folder").mkdir()
        (tmp_path / "text").write_text("")
        with pytest.raises(UsageError, match=f"adb_path: .*{name} is no program"):
            find_adb(str(tmp_path / name), {})


class TestServer:
    def test_devices_are_parsed(self):
        text = (
            "9A251FFAZ00123         device usb:1-2 product:flame model:Pixel_4 transport_id:3\n"
            "192.0.2.7:5555       offline product:x\n"
            "-x                     unauthorized usb:1-1 transport_id:1\n"
            "????????????           no permissions (missing udev rules? user is in the plugdev "
            "group); see [http://developer.android.com/tools/device.html]\n"
            "all                    recovery\n"
            "\nrubbish\n"
        )
        found = parse_devices(text)
        assert [(a.serial, a.state) for a in found] == [
            ("9A251FFAZ00123", "device"),
            ("192.0.2.7:5555", "offline"),
            ("-x", "unauthorized"),
            ("????????????", "no permissions"),
            ("all", "recovery"),
        ]
        assert found[0].details["model"] == "Pixel_4"
        assert [bool(a.advice) for a in found] == [False, True, True, True, True]

    @given(st.text())
    def test_any_text_is_parsed(self, text):
        for attached in parse_devices(text):
            assert attached.serial.strip()

    def test_a_serial_may_look_like_anything_but_a_line(self, client):
        for serial in ("-x", "all", "emulator-5554", "a b"):
            with pytest.raises(DeviceError, match="not found") as caught:
                client.phone(serial).shell(["true"], timeout_secs=5)
            assert caught.value.kind == "gone"
        for serial in ("", "a\nb", "x" * 300):
            with pytest.raises(UsageError, match="expected the serial"):
                client.phone(serial)

    def test_an_address_that_does_not_answer(self, client):
        with StandInDevice() as phone:
            address = phone.serial
        with pytest.raises(
            DeviceError, match=f"{address}: adb says .*Wireless debugging"
        ) as caught:
            client.connect(address)
        assert caught.value.kind == "gone"
        for wrong in ("", "-x", "a b", "host:99999", "host:1:2", "a\n", "x;y"):
            with pytest.raises(UsageError, match="expected an address"):
                client.connect(wrong)

    def test_a_killed_server_is_started_again(self, own_adb, own_client, make_phone):
        device = own_client.phone(own_client.connect(make_phone(connect=False).serial))
        own_adb.kill()
        # It forgets devices by Wi-Fi; whoever uses one has it connected again.
        assert device.shell(["echo", "back"], timeout_secs=5).stdout == "back\n"

    def test_a_server_killed_in_the_middle(self, own_adb, own_client, make_phone):
        device = own_client.phone(own_client.connect(make_phone(connect=False).serial))
        with stream(device, Script("echo on; sleep 20")) as lines:
            assert next(lines) == ("out", "on")
            own_adb.kill()
            with pytest.raises(DeviceError, match="server ended") as caught:
                next(lines)
        assert caught.value.kind == "server"
        assert device.wait(5, threading.Event())
        assert device.shell(["true"], timeout_secs=5).exit_code == 0

    def test_a_server_that_does_not_start(self, tmp_path, own_adb):
        own_adb.kill()
        broken = make_program(tmp_path / "adb", "echo '* starting'; echo no such library; exit 3")
        with pytest.raises(DeviceError, match="ended with exit code 3: no such library"):
            Adb(broken, own_adb.port).attached()
        with pytest.raises(DeviceError, match="missing: No such file"):
            Adb(str(tmp_path / "missing"), own_adb.port).attached()


class TestShell:
    def test_words_are_never_parsed(self, device):
        result = device.shell(["printf", "[%s]", *NASTY], timeout_secs=10)
        assert result.stdout == "".join(f"[{word}]" for word in NASTY)
        assert result.exit_code == 0

    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"))))
    def test_any_words_come_back(self, client, modern, words):
        result = client.phone(modern.serial).shell(["printf", "%s\n", "", *words], timeout_secs=10)
        assert result.stdout == "".join(f"{word}\n" for word in ["", *words])

    def test_no_exit_code_is_lost_before_android_9(self, device, either):
        """Nothing is said of stdin when the command has ended, and yet it finds an end there."""
        either.faults.add(Fault("late", on="shell", times=None))
        try:
            for command in (Script("cat; exit 7"), ["sh", "-c", "read -r line; exit 7"]):
                result = device.shell(command, timeout_secs=5)
                assert (result.stdout, result.exit_code) == ("", 7)
        finally:
            either.faults.clear()

    def test_a_nul_is_refused(self, device):
        with pytest.raises(ValueError, match="NUL"):
            device.shell(["echo", "a\0b"], timeout_secs=5)

    def test_streams_and_exit_code(self, device, either):
        result = device.shell(Script("echo to out; echo to err >&2; exit 7"), timeout_secs=5)
        assert result.exit_code == 7
        if "shell_v2" in either.features:
            assert (result.stdout, result.stderr) == ("to out\n", "to err\n")
        else:
            assert (result.stdout, result.stderr) == ("to out\nto err\n", "")

    def test_a_long_script_goes_as_a_file_and_leaves_none(self, device, either):
        text = "\n".join(f"echo line {index}" for index in range(1000)) + "\nexit 5"
        result = device.shell(Script(text), timeout_secs=20)
        assert result.exit_code == 5
        assert result.stdout.splitlines() == [f"line {index}" for index in range(1000)]
        assert not list((either.root / "data/local/tmp/mobile_bench/jobs").iterdir())

    def test_output_is_bounded(self, device):
        endless = Script("while echo 0123456789; do :; done")
        result = device.shell(endless, timeout_secs=20, max_bytes=1000)
        assert result.cut
        assert len(result.stdout) == 1000

    def test_time_is_bounded(self, device):
        with pytest.raises(DeviceError, match="no answer in time") as caught:
            device.shell(["sleep", "20"], timeout_secs=0.3)
        assert caught.value.kind == "timeout"


def stream(device: AdbDevice, command, **changes):
    bounds = {"idle_secs": 10, "deadline_secs": 20, "max_bytes": 2**20}
    return device.stream(command, **(bounds | changes))


class TestStream:
    def test_lines_come_as_they_are_printed(self, device):
        script = Script(
            "echo one; echo; printf 'f\\303\\274r'; sleep 0.2; echo f; printf end; exit 3"
        )
        with stream(device, script) as lines:
            assert list(lines) == [("out", text) for text in ("one", "", "fürf", "end")]
            assert lines.exit_code == 3

    def test_it_can_be_read_on_after_a_pause(self, device):
        with stream(device, Script("echo a; sleep 0.6; echo b"), idle_secs=0.2) as lines:
            assert next(lines) == ("out", "a")
            with pytest.raises(DeviceError, match="no answer in time"):
                next(lines)
            lines.renew(10)
            rest = []
            while lines.exit_code is None:
                with contextlib.suppress(DeviceError, StopIteration):
                    rest.append(next(lines))
            assert rest == [("out", "b")]

    def test_the_deadline_holds_while_it_prints(self, device):
        script = Script("while :; do echo tick; sleep 0.05; done")
        with stream(device, script, deadline_secs=0.5) as lines:
            with pytest.raises(DeviceError, match="no answer in time"):
                list(lines)
            lines.renew(10)
            assert next(lines) == ("out", "tick")

    def test_output_is_bounded(self, device):
        script = Script("while echo 0123456789; do :; done")
        with stream(device, script, max_bytes=1000) as lines:
            with pytest.raises(DeviceError, match="more than 1000 bytes") as caught:
                list(lines)
            assert caught.value.kind == "output"
            lines.renew(10)
            assert next(lines)[0] == "out"

    def test_a_line_without_end_comes_in_parts(self, device):
        script = Script("head -c 200000 /dev/zero | tr '\\000' x")
        with stream(device, script) as lines:
            parts = [text for _, text in lines]
        assert "".join(parts) == "x" * 200000
        assert max(map(len, parts)) <= 2 * 64 * 1024

    def test_it_ends_when_it_is_stopped(self, device):
        stop = threading.Event()
        with stream(device, Script("echo on; sleep 20"), stop=stop) as lines:
            assert next(lines) == ("out", "on")
            threading.Timer(0.2, stop.set).start()
            assert list(lines) == []
            assert lines.exit_code is None

    def test_another_thread_can_end_it(self, device):
        with stream(device, Script("echo on; sleep 20")) as lines:
            assert next(lines) == ("out", "on")
            threading.Timer(0.2, lines.close).start()
            with pytest.raises(DeviceError, match="connection was lost"):
                next(lines)

    def test_output_that_looks_like_the_exit_code(self, device):
        with stream(device, Script("printf 'exit-'; sleep 0.2; echo 'exit-:9'; exit 4")) as lines:
            assert list(lines) == [("out", "exit-exit-:9")]
            assert lines.exit_code == 4


class TestFiles:
    def test_what_is_pushed_is_pulled(self, device, tmp_path, either):
        content = os.urandom(200_000)
        device.push(content, f"{TMP}/deep/folder/data.bin")
        assert device.pull(f"{TMP}/deep/folder/data.bin", 10**6) == content
        (tmp_path / "local").write_bytes(b"from a file")
        device.push(tmp_path / "local", f"{TMP}/tool", executable=True)
        assert device.pull(f"{TMP}/tool", 11) == b"from a file"
        assert os.access(either.root / f"{TMP[1:]}/tool", os.X_OK)
        device.push(b"", f"{TMP}/empty")
        assert device.pull(f"{TMP}/empty", 0) == b""

    def test_a_push_ends_when_it_is_stopped(self, device, either):
        stop = threading.Event()
        stop.set()
        with pytest.raises(DeviceError, match="stopped") as caught:
            device.push(bytes(10**6), f"{TMP}/stopped", stop=stop)
        assert caught.value.kind == "stopped"
        assert not (either.root / f"{TMP[1:]}/stopped").exists()

    def test_a_file_that_is_not_there_or_too_large(self, device):
        with pytest.raises(DeviceError, match=r"/no/such: .*No such file") as caught:
            device.pull("/no/such", 10)
        assert caught.value.kind == "refused"
        device.push(bytes(100_000), f"{TMP}/large")
        with pytest.raises(DeviceError, match="has more than 99999 bytes") as caught:
            device.pull(f"{TMP}/large", 99_999)
        assert caught.value.kind == "output"

    def test_a_full_phone_says_so(self, device, either):
        either.free_bytes = 1000
        try:
            with pytest.raises(DeviceError, match=r"No space left.*free some space") as caught:
                device.push(bytes(10**6), f"{TMP}/large")
        finally:
            either.free_bytes = None
        assert caught.value.kind == "storage"


@pytest.mark.parametrize(
    ("answer", "kind", "advice"),
    [
        ("device 'X' not found", "gone", "check its cable"),
        ("device offline", "offline", "unplug it"),
        ("device still connecting", "offline", "wait some seconds"),
        ("device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is", "unauthorized", "dialog"),
        ("device still authorizing", "unauthorized", "dialog"),
        ("insufficient permissions for device: user in plugdev group", "refused", "udev rules"),
        ("couldn't create file: No space left on device", "storage", "free some space"),
        ("closed", "gone", "try again"),
        ("mkdir: 'x': Permission denied", "refused", "`adb root`, then `adb shell rm -rf /data"),
        ("mkdir: 'x': File exists", "refused", "`mobile-bench clean` removes it"),
        ("mkdir: 'x': Disk quota exceeded", "storage", "`mobile-bench clean` removes"),
        ("couldn't create file: Read-only file system", "refused", "restart the phone"),
        ("mkdir: 'x': Not a directory", "refused", "`mobile-bench clean` removes it"),
        ("cannot create x/holder: Is a directory", "refused", "removes it"),
        ("\x1b[2J" + "x" * 10_000, "refused", "xxx..."),
    ],
)
def test_a_refusal_is_of_a_kind_and_says_what_to_do(answer, kind, advice):
    error = refusal("serial: ", answer)
    assert error.kind == kind
    assert advice in str(error)
    assert str(error).startswith("serial: ")
    assert str(error).isprintable()
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("unauthorized", "unauthorized"),
        ("authorizing", "unauthorized"),
        ("no permissions", "refused"),  # which waiting does not help
        ("recovery", "offline"),
    ],
)
def test_a_state_is_of_a_kind_and_says_what_to_do(state, kind):
    error = unusable("serial: ", state)
    assert error.kind == kind
    assert str(error) == f"serial: adb says that it is `{state}`; {ADVICE[state]}"


class TestFaults:
    def test_a_pulled_cable(self, client, phone):
        device = client.phone(phone.serial)
        phone.faults.add(Fault("unplug", on="shell", match="sleep", refuse=None))
        with pytest.raises(DeviceError) as caught:
            device.shell(["sleep", "5"], timeout_secs=10)
        assert caught.value.kind in ("gone", "offline")
        assert phone.serial in str(caught.value)
        with pytest.raises(DeviceError, match=r"check its cable|unplug it"):
            device.shell(["true"], timeout_secs=5)
        phone.plug_in()
        assert device.wait(10, threading.Event())
        assert device.shell(["echo", "here"], timeout_secs=5).stdout == "here\n"

    def test_a_restart_is_waited_for_until_android_is_up(self, client, phone):
        device = client.phone(phone.serial)
        with stream(device, Script("echo on; sleep 20")) as lines:
            next(lines)
            del phone.properties["sys.boot_completed"]
            phone.reboot(refuse=2)
            with pytest.raises(DeviceError):
                next(lines)
        assert not device.wait(1, threading.Event())
        phone.properties["sys.boot_completed"] = "1"
        assert device.wait(10, threading.Event())

    def test_waiting_ends_when_it_is_stopped(self, client, phone):
        phone.unplug()
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        begun = time.monotonic()
        assert not client.phone(phone.serial).wait(60, stop)
        assert time.monotonic() - begun < 30

    def test_a_phone_that_stops_answering(self, client, phone):
        phone.freeze()
        with pytest.raises(DeviceError, match="no answer in time") as caught:
            client.phone(phone.serial).shell(["true"], timeout_secs=0.5)
        assert caught.value.kind == "timeout"

    def test_an_unauthorized_phone(self, client):
        with StandInDevice() as phone:
            phone.authorized = False
            with pytest.raises(DeviceError) as caught:
                client.connect(phone.serial)
            assert caught.value.kind == "unauthorized"
            device = client.phone(phone.serial)
            with pytest.raises(DeviceError, match="accept its dialog") as caught:
                device.shell(["true"], timeout_secs=5)
            assert caught.value.kind == "unauthorized"
            (line,) = [one for one in list_devices(client) if one.attached.serial == phone.serial]
            assert "accept its dialog" in line.advice
            assert "accept its dialog" in format_devices([line])
            phone.authorized = True
            assert device.wait(10, threading.Event())


class TestDescription:
    def test_a_phone_is_described_in_one_round_trip(self, client, modern):
        device = client.phone(modern.serial)
        device.shell(["true"], timeout_secs=5)
        before = modern.round_trips()
        description = describe_phone(device)
        state = read_state(device)
        assert modern.round_trips() - before == 2
        assert description.target == modern.serial
        assert (description.maker, description.cpu) == ("OnePlus", "QTI SM8350")
        assert description.os == "Android 14 (SDK 34)"
        assert description.core_max_khz == modern.kind.core_max_khz
        assert state.battery_percent == modern.battery_percent
        assert state.core_limit_khz == tuple(modern.core_limit_khz)
        assert state.thermal_status == 0
        assert state.screen_on is True

    def test_an_old_phone_tells_less(self, client, old):
        device = client.phone(old.serial)
        assert describe_phone(device).cpu == "sdm710"
        state = read_state(device)
        assert state.thermal_status is None
        assert state.core_khz[5:] == (1708800, None, None)
        assert state.governors[7] == "interactive"

    def test_a_state_follows_the_phone(self, client, phone):
        device = client.phone(phone.serial)
        phone.battery_celsius, phone.charging, phone.awake = 41.26, False, False
        phone.thermal_status = 3
        phone.core_limit_khz[7] = 1000000
        state = read_state(device)
        assert (state.battery_celsius, state.charging, state.screen_on) == (41.3, False, False)
        assert (state.thermal_status, state.core_limit_khz[7]) == (3, 1000000)

    def test_hostile_answers_are_data(self, client, phone):
        evil = "$(reboot); `reboot`\n@core 0 1\n\x1b[2J" + "z" * 100_000
        for key in list(phone.properties):
            phone.properties[key] = evil
        phone.governor = "$(reboot)"
        device = client.phone(phone.serial)
        description = describe_phone(device)
        assert description.maker.startswith("$(reboot)")
        assert all(len(str(v)) < 500 for v in vars(description).values())
        assert set(read_state(device).governors) == {"$(reboot)"}
        (line,) = [one for one in list_devices(client) if one.attached.serial == phone.serial]
        assert "\x1b" not in format_devices([line])
