"""Files are whole or not there, and what the disk refuses is one FailureError."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from ofa_tf import files
from ofa_tf.errors import FailureError
from ofa_tf.files import (
    atomic_path,
    is_pattern,
    no_pattern,
    read_json,
    scratch_folder,
    temporary_path,
    write_bytes,
    write_json,
)


def test_json_round_trip_makes_the_folders(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"x": [1, 2.5, "é"]})
    assert read_json(path) == {"x": [1, 2.5, "é"]}
    assert path.read_text().endswith("}\n")


def test_what_was_there_is_replaced_at_the_end_only(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_within_leaves_no_trace(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_path(path) as temporary:
        temporary.write_text("half" * 10_000 + "\udc00", encoding="utf-8")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("call", "number"), [("fsync", errno.ENOSPC), ("replace", errno.EROFS), ("fsync", errno.EIO)]
)
def test_the_disk_refuses(tmp_path, monkeypatch, call, number):
    path = tmp_path / "a"
    path.write_text("old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(FailureError) as error:
        write_bytes(path, b"new")
    assert str(error.value) == f"{path} could not be written: {os.strerror(number)}."
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FailureError, match=r"file/b could not be written: (Not a dir|File exists)"):
        write_bytes(tmp_path / "file" / "b", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"a": ', "Expecting value"),
        (b"\x80{}", "it is no text in UTF-8"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b"9" * 10_000, "Exceeds the limit"),
        (b"null", "expected an object, not null"),
        (b"5", "expected an object, not a number"),
        (b"[[]]", "expected an object, not a list"),
    ],
)
def test_damaged_json_is_named_with_its_remedy(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    expected = rf"a\.json could not be read as JSON: {reason}.*\. Remove it\.$"
    with pytest.raises(FailureError, match=expected):
        read_json(path, "Remove it.", dict)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(FailureError, match=r"a\.json could not be read as JSON"):
        read_json(tmp_path / "a.json")


def killed_while_writing(path) -> str:
    """The name of the temporary file that a killed process left beside a path."""
    code = (
        "import pathlib, sys, time; from ofa_tf.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    print(temporary.name, flush=True)\n"
        "    time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True
    )
    name = process.stdout.readline().strip()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return name


def test_what_a_killed_process_was_writing_is_removed_by_the_next_write(tmp_path):
    left = killed_while_writing(tmp_path / "step_1.npz")
    assert os.listdir(tmp_path) == [left]
    write_bytes(tmp_path / "step_2.npz", b"whole")
    assert os.listdir(tmp_path) == ["step_2.npz"]


def test_what_others_are_writing_stays(tmp_path):
    """Those that run, those of other hosts until a day has passed, and what only looks alike."""
    name = temporary_path(tmp_path / "a").name
    host = name.split(".")[-3]
    running = name.replace(str(os.getpid()), str(os.getppid()))
    foreign, old = (name.replace(host, other) for other in ("elsewhere", "long-ago"))
    for left in (running, foreign, old, ".mine.tmp", "a.1.tmp"):
        (tmp_path / left).write_text("")
    (tmp_path / name).mkdir()  # of an earlier process with the number of this one
    day_before = time.time() - 25 * 3600
    os.utime(tmp_path / old, (day_before, day_before))
    files.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([running, foreign, ".mine.tmp", "a.1.tmp"])


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    for content in ("old", "new"):
        with atomic_path(tmp_path / "model") as temporary:
            temporary.mkdir()
            (temporary / content).write_text("")
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(tmp_path / "model") == ["new"]


@pytest.mark.parametrize("name", ["run [v2]", "a*b", "what?", "back\\slash"])
def test_what_tensorflow_takes_for_a_pattern_is_named_otherwise(name, tmp_path):
    """Its readers of weights look for what matches a path: "run [v2]" is none of its matches."""
    job = tmp_path / name
    job.mkdir()
    (job / "file").write_text("x")
    with scratch_folder(job) as folder:
        assert not is_pattern(folder)
        assert tempfile.gettempdir() == str(folder)
    assert not folder.exists()
    with no_pattern(job) as named:
        assert not is_pattern(named)
        assert (named / "file").read_text() == "x"
    assert os.listdir(job) == ["file"]
    with no_pattern(tmp_path) as named:
        assert named == tmp_path


def test_a_scratch_folder_is_gone_after_its_block_and_after_a_kill(tmp_path):
    usual = tempfile.gettempdir()
    with scratch_folder(tmp_path / "job") as folder:
        with tempfile.NamedTemporaryFile() as file:
            assert os.path.dirname(file.name) == str(folder)
        (folder / "a").write_text("")
    assert os.listdir(tmp_path / "job") == []
    assert tempfile.gettempdir() == usual
    (tmp_path / "file").write_text("")
    with pytest.raises(FailureError, match="could not be made"), scratch_folder(tmp_path / "file"):
        pass
