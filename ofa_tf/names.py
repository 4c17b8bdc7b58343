"""Text that came from a file, a person or a library: what may be a name, and what is printed."""

from __future__ import annotations

import os
import pathlib
import unicodedata
from collections.abc import Iterable

from ofa_tf.errors import UsageError

_LONGEST_LINE = 10_000
MAX_NAME_BYTES = 100  # a file system has 255, of which suffixes and temporary names want some


def check_name(name: object, what: str) -> str:
    """Returns a name that may become a folder or a file, as it is.

    Letters of any language, digits, spaces and most signs may be in it. It is one part of a path,
    it is not hidden, and a terminal prints it as it is.

    Args:
        name: the name.
        what: what has this name, for the message.

    Raises:
        UsageError: it may not; says why.
    """
    problem = _problem_of(name)
    if problem is not None:
        from mobile_bench.errors import one_line  # only here: whoever reads a file imports this

        shown = one_line(name) if isinstance(name, str) else name
        raise UsageError(f"{what} is called {shown!r}, but a name {problem}.")
    assert isinstance(name, str)  # or it would have a problem
    return name


def printable(text: str) -> str:
    """Text of others in lines of ours, for a terminal or a page.

    Escape sequences, marks that turn the direction of text, and what else cannot be seen are
    spelled out; lines stay lines.
    """
    from mobile_bench.errors import one_line

    return "\n".join(one_line(line, _LONGEST_LINE) for line in text.split("\n"))


def _problem_of(name: object) -> str | None:
    if not isinstance(name, str):
        return "is a text"
    if not name.strip():
        return "is not empty"
    if not name.isprintable():
        return "has only characters that can be printed"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has at most {MAX_NAME_BYTES} bytes"
    if "/" in name or "\\" in name:
        return "has no slashes: it is one part of a path"
    if name[0] in ".-" or name != name.strip():
        return "begins with neither a dot, a hyphen nor a space, and does not end with a space"
    return None


# Of Unicode: controls, halves of characters, ends of lines and paragraphs.
_NOT_OF_A_LINE = {"Cc", "Cs", "Zl", "Zp"}
_TURNS_TEXT_ROUND = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


def problem_of_class_name(name: str) -> str | None:
    """Why a class cannot be called so, as the end of a sentence; None where it can.

    A class name is a line of a labels file, and goes to the terminal and into web pages.
    """
    if not name.strip():
        return "is blank"
    for character in name:
        if unicodedata.category(character) in _NOT_OF_A_LINE or character in _TURNS_TEXT_ROUND:
            return f"has the character {character!a}, which cannot be in a line of text"
    return None


def read_labels(path: str | os.PathLike) -> tuple[str, ...]:
    """The class names in a labels file: UTF-8, one in a line, as `labels_text` writes them.

    Lines end with a line feed, with or without a carriage return. A byte order mark and blank
    lines at the end are nothing.

    Raises:
        UsageError: the file cannot be read, or a name is blank, not fit to be one, or there twice;
            names the line.
    """
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read: it is no text in UTF-8.") from error
    names = [line.removesuffix("\r") for line in text.split("\n")]
    while names and not names[-1].strip():
        names.pop()
    lines: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        problem = problem_of_class_name(name)
        composed = unicodedata.normalize("NFC", name)
        if problem is None and composed in lines:
            problem = f"is {name!r}, as line {lines[composed]} is"
        if problem is not None:
            raise UsageError(
                f"{path}, line {number}: the name {problem}. Expected the name of a class in each "
                "line, no two alike."
            )
        lines[composed] = number
    return tuple(names)


def labels_text(class_names: Iterable[str]) -> str:
    """The content of a labels file."""
    return "".join(f"{name}\n" for name in class_names)
