"""The lock on a phone: who has it, who gets it, and what is left behind."""

from __future__ import annotations

import subprocess
import sys
from unittest import mock

import pytest
from phone_helpers import make_options

from mobile_bench.adb.device import AdbDevice, Script
from mobile_bench.adb.errors import DeviceError
from mobile_bench.adb.server import Adb
from mobile_bench.phone import lock as lock_module
from mobile_bench.phone.lock import DeviceLock
from mobile_bench.phone.target import clean

FOLDER = "data/local/tmp/mobile_bench/lock"


@pytest.fixture
def device(adb, phone) -> AdbDevice:
    return Adb(adb.adb, adb.port).phone(phone.serial)


@pytest.fixture
def folder(phone):
    return phone.root / FOLDER


def make_lock(device: AdbDevice, lasting_secs: float = 60) -> DeviceLock:
    return DeviceLock(device, lasting_secs, sleep=lambda _: None)


def make_stale(folder, **changes: str) -> None:
    """Makes the lock that is there one of another process, or of another host."""
    token, lasting, process, host = (folder / "holder").read_text().split()
    values = {"process": process, "host": host, "lasting": lasting} | changes
    line = f"{token} {values['lasting']} {values['process']} {values['host']}"
    (folder / "holder").write_text(line + "\n")


def ended_process() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return str(process.pid)


def test_one_session_has_it_at_a_time(device, folder):
    first, second = make_lock(device), make_lock(device)
    first.acquire()
    with pytest.raises(DeviceError, match=r"another session measures on it \(process \d+ on ") as e:
        second.acquire()
    assert e.value.kind == "locked"
    assert "this very one: is the phone there twice" in str(e.value)
    assert device.serial in str(e.value)
    first.acquire()  # as after a lost connection
    second.release()  # which it does not have
    with pytest.raises(DeviceError, match="another session"):
        second.acquire()
    first.release()
    assert not folder.exists()
    second.acquire()
    first.release()
    assert folder.exists()


def test_a_lock_of_a_process_that_has_ended_is_taken_over(device, folder):
    first, second = make_lock(device), make_lock(device)
    first.acquire()
    make_stale(folder, process=ended_process())
    second.acquire()
    assert sorted(path.name for path in folder.iterdir()) == ["holder", "stamp"]
    first.release()
    with pytest.raises(DeviceError, match="another session"):
        first.acquire()


def test_a_lock_that_could_not_be_given_back_is_free_for_its_process(device, folder):
    first = make_lock(device)
    first.acquire()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "shell", mock.Mock(side_effect=DeviceError("gone", "unplugged")))
        with pytest.raises(DeviceError, match="unplugged"):
            first.release()
    assert folder.exists()
    second = make_lock(device)
    second.acquire()
    with pytest.raises(DeviceError, match="another session"):
        first.acquire()
    second.release()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("stamp", "is_free"),
    [("5000.00 1.0", False), ("4900.00 1.0", True), ("6000.00 1.0", True), ("rubbish", True)],
)
def test_a_lock_of_another_host_ends_after_its_time(device, folder, monkeypatch, stamp, is_free):
    """The phone has been up for 5012 s, which is less than a stamp of before its last start."""
    make_lock(device, lasting_secs=60).acquire()
    make_stale(folder, process=ended_process(), host="elsewhere/1")
    (folder / "stamp").write_text(stamp + "\n")
    other = make_lock(device)
    if is_free:
        other.acquire()
    else:
        with pytest.raises(DeviceError, match=r"on elsewhere\).*ends 60 s after"):
            other.acquire()


def test_a_stamp_keeps_it(device, folder):
    lock = make_lock(device)
    lock.acquire()
    (folder / "stamp").write_text("1.0 1.0\n")
    device.shell(Script(lock.stamp_script()), timeout_secs=5)
    assert float((folder / "stamp").read_text().split()[0]) > 5000
    lock.release()
    device.shell(Script(lock.stamp_script()), timeout_secs=5)
    assert not folder.exists()


def test_a_lock_without_a_name_is_being_made_or_was_left(device, folder):
    folder.mkdir(parents=True)
    pauses = []

    def name_it(seconds: float) -> None:
        pauses.append(seconds)
        (folder / "stamp").write_text("5012.00 1.0\n")
        (folder / "holder").write_text(f"{'0' * 32} 60 1 elsewhere/1\n")

    with pytest.raises(DeviceError, match="on elsewhere"):
        DeviceLock(device, 60, sleep=name_it).acquire()
    assert len(pauses) == 1
    (folder / "holder").unlink()
    make_lock(device).acquire()


def test_of_two_that_find_an_old_lock_one_gets_it(device, folder, monkeypatch):
    make_lock(device).acquire()
    make_stale(folder, process=ended_process())
    late, early = make_lock(device), make_lock(device)
    judge = lock_module._Found.is_over

    def judge_slowly(found, *, is_new: bool) -> bool:
        is_over = judge(found, is_new=is_new)
        monkeypatch.setattr(lock_module._Found, "is_over", judge)
        early.acquire()  # between the late one's look and its taking over
        return is_over

    monkeypatch.setattr(lock_module._Found, "is_over", judge_slowly)
    with pytest.raises(DeviceError, match="another session measures"):
        late.acquire()
    early.acquire()


@pytest.mark.parametrize("line", ["$(reboot)", "'; reboot; '", "a b c d", "x" * 3000, "* * * *"])
def test_a_strange_lock_ends_after_its_time(device, folder, line, phone):
    folder.mkdir(parents=True)
    (folder / "holder").write_text(line + "\n")
    (folder / "stamp").write_text("5000.0 1.0\n")
    boot = phone.boot_id
    with pytest.raises(DeviceError, match="its lock ends 600 s after"):
        make_lock(device).acquire()
    (folder / "stamp").write_text("4000.0 1.0\n")
    make_lock(device).acquire()
    assert phone.boot_id == boot


def test_a_guard_that_was_left_does_not_hold_for_ever(device, folder):
    make_lock(device).acquire()
    make_stale(folder, process=ended_process())
    (folder / "guard").mkdir()
    lock = make_lock(device)
    lock.acquire()
    lock.release()
    assert not folder.exists()


OWN_WORDS = {
    "no space": ("storage", "No space left on device; free some space on the phone; `mobile-bench"),
    "no inode": ("storage", "No space left on device; free some space on the phone; `mobile-bench"),
    "root's": (
        "refused",
        "Permission denied; root's own files are in the way.*shell rm -rf /data/",
    ),
    "root's lock": ("refused", "Permission denied; root's own files are in the way.*shell rm -rf "),
    "dangling": ("refused", "File exists; something else is in its place: `mobile-bench clean`"),
    "foreign": ("refused", "File exists; something else is in its place: `mobile-bench clean`"),
    "a file": ("refused", "File exists; something else is in its place: `mobile-bench clean`"),
}


@pytest.fixture(params=OWN_WORDS)
def hindered(request, device, phone, folder):
    """What keeps a lock from being made, and the kind and the words of the error that tells it."""
    folder.parent.mkdir(parents=True)
    if request.param == "no space":
        phone.free_bytes = 0
    elif request.param == "no inode":
        phone.has_inodes = False
    elif request.param == "root's":
        (folder.parent / "models").mkdir()
        phone.roots_own = ["/data/local/tmp/mobile_bench"]
    elif request.param == "root's lock":
        folder.mkdir()
        (folder / "holder").touch()
        phone.roots_own = ["/data/local/tmp/mobile_bench/lock"]
    elif request.param == "dangling":
        folder.symlink_to("nowhere")
    elif request.param == "foreign":
        folder.symlink_to(phone.root / "sdcard")
    else:
        folder.touch()
    return request.param, *OWN_WORDS[request.param]


def test_a_lock_that_cannot_be_made_is_not_another_sessions(device, hindered):
    _, kind, words = hindered
    with pytest.raises(DeviceError, match=rf"{device.serial}: .*{words}") as caught:
        make_lock(device).acquire()
    assert caught.value.kind == kind
    assert "session" not in str(caught.value)


def test_clean_cures_what_keeps_a_lock_from_being_made(adb, phone, folder, hindered):
    outcome = clean([phone.serial], make_options(adb, None))[phone.serial]
    if hindered[0].startswith("root's"):
        assert outcome.startswith("/data/local/tmp/mobile_bench is not gone: ")
        assert "Permission denied; root's own files" in outcome
    else:
        assert outcome == ""
        assert not folder.parent.exists()
        assert (phone.root / "sdcard").is_dir()


def test_clean_leaves_a_lock_of_another_session_on_a_full_phone(adb, device, phone, folder):
    make_lock(device).acquire()
    phone.free_bytes, phone.has_inodes = 0, False
    assert (
        "another session measures" in clean([phone.serial], make_options(adb, None))[phone.serial]
    )
    assert folder.exists()


def test_a_lock_is_given_back_on_a_phone_that_is_full_by_now(device, phone, folder):
    lock = make_lock(device)
    lock.acquire()
    phone.free_bytes = 0
    lock.release()
    assert not folder.exists()
