"""JSON lines that long work appends to and finds again after an interruption."""

from __future__ import annotations

import logging
import os
import pathlib
from typing import Any

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import append_json, parse_json

_log = logging.getLogger(__name__)


class RowFile:
    """Rows that are on the disk as soon as they are appended.

    Every row carries an identity, which says what the rows belong to. An unfinished last line,
    left by a process that was killed, is cut off with a warning.

    Args:
        path: the file; created with its folder by the first row.
        identity: fields with which every row begins, e.g. `{"space": "ofa_mbv3_tiny"}`.

    Attributes:
        rows: all rows, those of earlier runs first, without the identity.

    Raises:
        UsageError: a row in the file is damaged or has another identity; names file and line.
        FailureError: the file cannot be read or mended.
    """

    def __init__(self, path: str | os.PathLike, identity: dict[str, Any]):
        self.path = pathlib.Path(path)
        self._identity = identity
        self.rows, length = _read(self.path, identity)
        try:
            if self.path.exists() and self.path.stat().st_size > length:
                _log.warning("%s: an unfinished last row is dropped.", self.path)
                os.truncate(self.path, length)
        except OSError as error:
            raise FailureError(f"{self.path} could not be mended: {error.strerror}.") from error

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row and waits until it is on the disk. Raises FailureError if it cannot be."""
        append_json(self.path, {**self._identity, **row})
        self.rows.append(row)


def read_rows(path: str | os.PathLike, identity: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a file that another process may be appending to, without their identity.

    An unfinished last line is left alone. The row at index i is line i + 1 of the file. Raises
    what RowFile does.
    """
    return _read(pathlib.Path(path), identity)[0]


def first_row(path: str | os.PathLike) -> dict[str, Any] | None:
    """The first row of a file, with its identity; None where there is none that can be read."""
    try:
        with open(path, "rb") as file:
            row = parse_json(file.readline())
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


def _read(path: pathlib.Path, identity: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The rows, and the bytes that they take."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise FailureError(f"{path} could not be read: {error.strerror}.") from error
    whole = content[: content.rfind(b"\n") + 1]
    lines = enumerate(whole.split(b"\n")[:-1], start=1)
    return [_parsed(f"{path}, line {number}", line, identity) for number, line in lines], len(whole)


def _parsed(place: str, line: bytes, identity: dict[str, Any]) -> dict[str, Any]:
    try:
        row = parse_json(line)
        if not isinstance(row, dict):
            raise ValueError("it is no object")
        if missing := sorted(identity.keys() - row.keys()):
            raise ValueError(f"it has no {', '.join(missing)}")
    except ValueError as error:
        raise UsageError(f"{place}: this is no row of ours: {error}; remove the line.") from error
    found = {key: row.pop(key) for key in identity}
    if found != identity:
        raise UsageError(
            f"{place}: this row belongs to {found!s:.300}, not to {identity}; "
            f"remove the file or choose another."
        )
    return row
