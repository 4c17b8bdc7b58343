"""Files are whole or not there, and what the disk refuses is one FailureError."""

from __future__ import annotations

import errno
import os

import pytest

from ofa_tf.errors import FailureError
from ofa_tf.files import atomic_path, read_json, write_bytes, write_json


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


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FailureError, match=r"a\.json could not be read as JSON"):
        read_json(path)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(FailureError, match=r"a\.json could not be read as JSON"):
        read_json(tmp_path / "a.json")
