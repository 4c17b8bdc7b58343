"""Locks: one process at a time, told who has it; gone with the process however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
import threading
from unittest import mock

import pytest

from ofa_tf import locks
from ofa_tf.errors import FailureError
from ofa_tf.locks import lock

_HOLD = """
import sys
from ofa_tf.locks import lock
with lock(sys.argv[1], "It is in use", shared=sys.argv[2] == "shared"):
    print("taken", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(path, how="alone"):
    """Another process has the lock within the block; killed after it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, path, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "taken\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_who_has_it_is_told_and_a_kill_lets_go_of_it(tmp_path):
    path = tmp_path / "lock"
    with held(path) as holder:
        with pytest.raises(FailureError) as error, lock(path, "It is in use"):
            pass
        assert re.fullmatch(
            rf"It is in use: process {holder.pid} on {socket.gethostname()} \(-c .*, since "
            r"20[0-9: -]{17}\) is at work there\. Wait until it ends, or end it\.",
            str(error.value),
        )
    assert path.exists()  # a killed process cannot remove it
    with lock(path, "It"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_process_is_let_into_its_own_lock(tmp_path):
    with lock(tmp_path / "lock", "It"):
        with lock(tmp_path / "lock", "It"):
            pass
        assert (tmp_path / "lock").exists()
    assert os.listdir(tmp_path) == []


def test_some_share_it_and_none_has_it_alone_meanwhile(tmp_path):
    path = tmp_path / "lock"
    with held(path, "shared"):
        with lock(path, "It", shared=True):
            pass
        assert path.exists()
        with pytest.raises(FailureError, match="is at work there"), lock(path, "It"):
            pass


def test_a_lock_that_is_given_back_just_now_is_waited_for(tmp_path, monkeypatch):
    """Who shared it is alone with it for a moment, in which the next one may ask."""
    monkeypatch.setattr(locks, "_GIVING_BACK", 2.0)  # seconds; this host may be busy
    path = tmp_path / "lock"
    path.touch()
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    closing = threading.Timer(0.02, os.close, [file])
    closing.start()
    with lock(path, "It", shared=True):
        closing.join()


def test_a_file_that_its_holder_just_removed_is_no_lock(tmp_path, monkeypatch):
    """Another process would make a new one, and both would be at work."""
    path, opened = tmp_path / "lock", locks._opened

    def removed_then(path):
        monkeypatch.setattr(locks, "_opened", opened)
        file = opened(path)
        path.unlink()
        return file

    monkeypatch.setattr(locks, "_opened", removed_then)
    with lock(path, "It"):
        assert path.exists()


def test_the_lock_file_of_another_user_is_a_lock(tmp_path, monkeypatch):
    """It may be read, but not written to."""
    path, open_file = tmp_path / "lock", os.open

    def refused(path, flags, *mode):
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(path, flags, *mode)

    with held(path) as holder:
        monkeypatch.setattr(os, "open", refused)
        with pytest.raises(FailureError, match=f"process {holder.pid} on "), lock(path, "It"):
            pass
    with lock(path, "It"), pytest.raises(BlockingIOError):
        fcntl.flock(file := open_file(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(file)


def test_who_is_interrupted_while_taking_it_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_sign", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), lock(tmp_path / "a" / "lock", "It"):
        pass
    assert os.listdir(tmp_path) == []


def test_folders_that_were_made_for_it_alone_go_with_it(tmp_path):
    with lock(tmp_path / "a" / "b" / "lock", "It"):
        assert (tmp_path / "a" / "b" / "lock").exists()
    assert os.listdir(tmp_path) == []
    with lock(tmp_path / "a" / "b" / "lock", "It"):
        (tmp_path / "a" / "kept").touch()
    assert os.listdir(tmp_path / "a") == ["kept"]


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 20_000, b"{}", b"\x1b[2J\xff"])
def test_a_damaged_lock_file_is_a_lock(tmp_path, content):
    path = tmp_path / "lock"
    with held(path):
        path.write_bytes(content)
        with (
            pytest.raises(FailureError, match="It: another process is at work there"),
            lock(path, "It"),
        ):
            pass


def test_where_no_file_can_be_made_work_goes_on(tmp_path):
    """It fails by itself where it writes."""
    (tmp_path / "file").touch()
    with lock(tmp_path / "file" / "lock", "It"):
        pass
    assert (tmp_path / "file").is_file()
