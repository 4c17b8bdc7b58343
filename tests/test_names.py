"""Which names may become a folder: one rule for all files of others."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_tf.errors import UsageError
from ofa_tf.names import MAX_NAME_BYTES, check_name, printable


@pytest.mark.parametrize(
    "name",
    ["0.12ms", "my net", "schön", "_x", "a,b", "note10_lat@8ms_top1@71.4", "图像", "x" * 100],
)
def test_what_a_file_system_takes_is_a_name(name):
    assert check_name(name, "A subnet") == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is not empty"),
        ("  ", "is not empty"),
        (5, "is a text"),
        (None, "is a text"),
        ("..", "begins with neither a dot"),
        (".", "begins with neither a dot"),
        (".hidden", "begins with neither a dot"),
        ("-rf", "a hyphen"),
        ("../../evil", "has no slashes"),
        ("/etc/passwd", "has no slashes"),
        ("a\\b", "has no slashes"),
        ("x" * 101, "has at most 100 bytes"),
        ("ü" * 51, "has at most 100 bytes"),
        ("a\0b", "can be printed"),
        ("a\nb", "can be printed"),
        ("\x1b[31mred", "can be printed"),
        ("abc\u202egpj", "can be printed"),
        ("\udcff", "can be printed"),
        ("end ", "does not end with a space"),
    ],
)
def test_what_may_be_no_folder_is_told_in_one_printable_line(name, problem):
    with pytest.raises(UsageError, match=r"^Subnet 3 is called .*, but a name ") as error:
        check_name(name, "Subnet 3")
    assert problem in str(error.value)
    assert str(error.value).isprintable()


@given(st.text(max_size=120))
def test_a_name_that_passes_is_one_entry_of_a_folder(tmp_path_factory, name):
    try:
        check_name(name, "It")
    except UsageError:
        return
    folder = tmp_path_factory.mktemp("names", numbered=True)
    (folder / name).mkdir()
    assert os.listdir(folder) == [name]
    assert len(name.encode()) <= MAX_NAME_BYTES


@given(st.text())
def test_what_is_printed_has_lines_and_what_can_be_seen(text):
    shown = printable(text)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.count("\n") == text.count("\n")
    if all(line.isprintable() for line in text.split("\n")):
        assert shown == text
