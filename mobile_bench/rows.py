"""Results files: one measurement per line of JSON, each on the disk before the next begins."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn

from mobile_bench.errors import FailureError, UsageError, one_line
from mobile_bench.results import Measurement

_START = b'{"version": '  # of each row


class Rows(NamedTuple):
    """The rows of a file.

    Attributes:
        measurements: The rows.
        notice: Tells of a last line that a killed process left unfinished, and of fields that only
            a later version knows; None where there is nothing to tell.
    """

    measurements: list[Measurement]
    notice: str | None


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """Reads a results file.

    A damaged last line without its line end was being written when its process was killed: it is
    left out and reported in `notice`. So are fields that only a later minor version knows.

    Raises:
        FailureError: The file cannot be read, or another line is damaged (named by its number).
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise FailureError(f"{path}: cannot be read: {error.strerror}") from error
    *lines, tail = text.split(b"\n")
    unknown: set[str] = set()
    numbered = enumerate(lines, start=1)
    measurements = [_parse_line(path, number, line, unknown) for number, line in numbered]
    notices = []
    if tail:
        try:
            measurements.append(_parse(tail, unknown))
        except ValueError:
            notices.append(_left_out(path, len(lines) + 1))
    if unknown:
        names = ", ".join(sorted(unknown))
        notices.append(
            one_line(f"{path}: fields that this version does not know are left out: {names}")
        )
    return Rows(measurements, "; ".join(notices) or None)


def _left_out(path: str | os.PathLike[str], number: int) -> str:
    return one_line(f"{path}, line {number}: the unfinished last row is left out")


def _parse_line(
    path: str | os.PathLike[str], number: int, line: bytes, unknown: set[str]
) -> Measurement:
    try:
        return _parse(line, unknown)
    except ValueError as error:
        raise FailureError(
            f"{path}, line {number}: not a measurement: {one_line(str(error), 200)}. Remove the "
            "line, or give another file."
        ) from error


def _parse(line: bytes, unknown: set[str]) -> Measurement:
    try:
        return Measurement.from_dict(json.loads(line, parse_constant=_refuse_constant), unknown)
    except UnicodeDecodeError as error:
        raise ValueError("it is no text") from error
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


class RowWriter:
    """Appends rows to a results file, each fsynced at once; several threads may share it.

    An unfinished last row is cut off first, so that the file stays readable. Until it is closed no
    other process can append to the file; all may read it. One that was made and got no row is
    removed again.

    Args:
        path: The file; created with its folder when missing.

    Attributes:
        notice: Tells of a row that was cut off; None where none was.

    Raises:
        UsageError: `path` is not a regular file.
        FailureError: It cannot be opened, another process appends to it or has just removed it, it
            begins with something else than a row of this version, or a row cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self.notice: str | None = None
        self._is_new = not os.path.lexists(path)
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageError(f"{path}: expected a file to append rows to, not a folder or device")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab+", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise FailureError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            self._exclude_others()
            if not self._path.exists():  # by who had it and got no row; ours would be lost
                raise FailureError(f"{path}: was removed just now; run the same again")
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
        with self._file, contextlib.suppress(OSError):
            if self._is_new and not os.fstat(self._file.fileno()).st_size:
                self._path.unlink()

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

    def _exclude_others(self) -> None:
        """Locks the file as long as it is open. The system gives a killed process's lock back."""
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailureError(
                f"{self._path}: {_lock_holder(self._file.fileno())} appends to it; wait for its "
                "end, or give another file"
            ) from None
        except (ImportError, OSError):
            return  # a file system without locks, or Windows

    def _finish_last_line(self) -> None:
        self._file.seek(0)
        text = self._file.read()
        if b"\n" in text:  # before hours of measuring are appended to what no one can read
            _parse_line(self._path, 1, text.partition(b"\n")[0], set())
        tail = text[text.rfind(b"\n") + 1 :]
        if not tail:
            return
        # Of what a power cut kept from the disk there may be zeros.
        begin = (tail.rstrip(b"\0") if b"\n" in text else tail)[: len(_START)]
        try:
            _parse(tail, set())
        except ValueError as error:
            if begin != _START[: len(begin)]:  # somebody's file, not a row of ours
                raise FailureError(
                    f"{self._path}: holds something else than rows; give another file"
                ) from error
            self._file.truncate(len(text) - len(tail))
            self.notice = _left_out(self._path, text.count(b"\n") + 1)
        else:
            self._file.write(b"\n")


def _lock_holder(descriptor: int) -> str:
    """Returns who has locked an open file, as far as this host can tell."""
    inode = str(os.fstat(descriptor).st_ino)
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            # Such as "1: FLOCK  ADVISORY  WRITE 4711 08:01:131090 0 EOF".
            match line.split():
                case [_, "FLOCK", _, _, process, place, *_] if place.rpartition(":")[2] == inode:
                    if int(process) > 0:  # else it is of another container
                        return f"process {process} on {platform.node()}"
    return "another process"
