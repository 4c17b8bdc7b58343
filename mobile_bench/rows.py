"""Results files: one measurement per line of JSON, each on the disk before the next begins."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn

from mobile_bench.errors import FailureError, UsageError
from mobile_bench.results import Measurement

_START = b'{"version": '  # of each row


class Rows(NamedTuple):
    """The rows of a file; `notice` tells of a last line that a killed process left unfinished."""

    measurements: list[Measurement]
    notice: str | None


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """Reads a results file.

    A damaged last line without its line end was being written when its process was killed: it is
    left out and reported in `notice`.

    Raises:
        FailureError: The file cannot be read, or another line is damaged (named by its number).
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise FailureError(f"{path}: cannot be read: {error.strerror}") from error
    *lines, tail = text.split(b"\n")
    measurements = [_parse_line(path, number, line) for number, line in enumerate(lines, start=1)]
    if not tail:
        return Rows(measurements, None)
    try:
        return Rows([*measurements, _parse(tail)], None)
    except ValueError:
        number = len(lines) + 1
        return Rows(measurements, f"{path}, line {number}: the unfinished last row is left out")


def _parse_line(path: str | os.PathLike[str], number: int, line: bytes) -> Measurement:
    try:
        return _parse(line)
    except ValueError as error:
        raise FailureError(
            f"{path}, line {number}: not a measurement: {error}. Remove the line, or give another "
            "file."
        ) from error


def _parse(line: bytes) -> Measurement:
    try:
        return Measurement.from_dict(json.loads(line, parse_constant=_refuse_constant))
    except UnicodeDecodeError as error:
        raise ValueError("it is no text") from error
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


class RowWriter:
    """Appends rows to a results file, each fsynced at once; several threads may share it.

    An unfinished last row is cut off first, so that the file stays readable.

    Args:
        path: The file; created with its folder when missing.

    Raises:
        UsageError: `path` is not a regular file.
        FailureError: It cannot be opened, begins with something else than a row of this version,
            or a row cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageError(f"{path}: expected a file to append rows to, not a folder or device")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab+", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise FailureError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            self._finish_last_line()
        except FailureError:
            self._file.close()
            raise
        except OSError as error:
            self._file.close()
            raise FailureError(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, measurement: Measurement) -> None:
        """Appends one row and waits until it is on the disk.

        Raises:
            FailureError: The row could not be written; nothing of it is left in the file.
        """
        line = json.dumps(measurement.to_dict(), allow_nan=False).encode() + b"\n"
        with self._lock:
            end = os.fstat(self._file.fileno()).st_size
            try:
                while line:
                    line = line[self._file.write(line) :]
                os.fsync(self._file.fileno())
            except OSError as error:
                with contextlib.suppress(OSError):  # readers leave out what stays of the row
                    self._file.truncate(end)
                raise FailureError(f"{self._path}: cannot be written: {error.strerror}") from error

    def _finish_last_line(self) -> None:
        self._file.seek(0)
        text = self._file.read()
        if b"\n" in text:  # before hours of measuring are appended to what no one can read
            _parse_line(self._path, 1, text.partition(b"\n")[0])
        tail = text[text.rfind(b"\n") + 1 :]
        if not tail:
            return
        try:
            _parse(tail)
        except ValueError as error:
            if tail[: len(_START)] != _START[: len(tail)]:  # somebody's file, not a row of ours
                raise FailureError(
                    f"{self._path}: holds something else than rows; give another file"
                ) from error
            self._file.truncate(len(text) - len(tail))
        else:
            self._file.write(b"\n")
