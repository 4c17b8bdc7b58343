"""RowFile: JSON lines that long work appends to and finds again after an interruption."""

from __future__ import annotations

import json
import logging
import os
import pathlib
from typing import Any

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import append_json

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
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                _log.warning("%s: an unfinished last row is dropped.", self.path)
                os.truncate(self.path, len(whole))
        except OSError as error:
            raise FailureError(f"{self.path} could not be read: {error.strerror}.") from error
        lines = enumerate(whole.splitlines(), start=1)
        self.rows = [self._parsed(number, line) for number, line in lines]

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        place = f"{self.path}, line {number}"
        try:
            row = json.loads(line)
            found = {key: row.pop(key) for key in self._identity}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"{place}: this is no row of ours; remove the line.") from error
        if found != self._identity:
            raise UsageError(
                f"{place}: this row belongs to {found}, not to {self._identity}; "
                f"remove the file or choose another."
            )
        return row

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row and waits until it is on the disk. Raises FailureError if it cannot be."""
        append_json(self.path, {**self._identity, **row})
        self.rows.append(row)
