"""Files that are either whole or not there, and errors of the disk told in one line."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from ofa_tf.errors import FailureError

# Of a file or folder that is being written: hidden, with the host and the process that writes it.
_TEMPORARY = re.compile(r"\..+\.(?P<host>[^.]*)\.(?P<process>\d+)\.tmp")
MAX_NESTING = 50  # of files of others; ours have a handful
_FOREIGN_SECONDS = 24 * 3600  # after which another host's temporary file is nobody's
_cleared: set[pathlib.Path] = set()  # the folders that this process looked through
_clearing = threading.Lock()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; what is written there is `path` after the block.

    It may be a file or a folder. On any error nothing is left at the temporary path and `path`
    stays as it was. What a process that was killed left in the folder is removed.

    Raises:
        FailureError: the disk refused (read-only, full, no such folder); names the file.
    """
    path = pathlib.Path(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        yield temporary
        if temporary.is_dir():
            if path.is_dir():
                shutil.rmtree(path)
        else:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FailureError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        _remove(temporary)


def temporary_path(path: pathlib.Path) -> pathlib.Path:
    """Where this process writes what becomes `path`; `remove_leftovers` knows it by its name."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.tmp")


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a folder within `parent`, for files that nobody needs after the block.

    Python's temporary files, those of other libraries too, are in it meanwhile. Not in the
    system's folder for such files, which may be small or missing, and from which nobody would
    remove what a killed process left; but where TensorFlow would take the parent for a pattern.

    Raises:
        FailureError: the disk refuses.
    """
    folder = temporary_path(pathlib.Path(parent) / "scratch")
    try:
        if is_pattern(folder):
            folder = temporary_path(pathlib.Path(tempfile.gettempdir()) / "scratch")
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent)
        folder.mkdir()
    except OSError as error:
        raise FailureError(f"{folder} could not be made: {error.strerror}.") from error
    usual, tempfile.tempdir = tempfile.tempdir, os.path.abspath(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = usual
        _remove(folder)


def is_pattern(path: str | os.PathLike) -> bool:
    """Whether TensorFlow, where it reads weights, looks for what matches a path in place of it."""
    return re.search(r"[*?\[\\]", os.path.abspath(path)) is not None


@contextlib.contextmanager
def no_pattern(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path of the same file or folder that is no pattern: its own, or that of a link."""
    if not is_pattern(path):
        yield pathlib.Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = pathlib.Path(folder, "link")
        link.symlink_to(os.path.abspath(path))
        yield link


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Removes what killed processes were writing in a folder, once per process and folder.

    A temporary file is left over when its process is gone or, where that ran on another host, when
    it was not written to for a day. What cannot be removed stays.
    """
    folder = pathlib.Path(os.path.realpath(folder))
    with _clearing, contextlib.suppress(OSError):
        if folder in _cleared:
            return
        _cleared.add(folder)
        for entry in list(os.scandir(folder)):
            found = _TEMPORARY.fullmatch(entry.name)
            if found and _is_left_over(entry, found["host"], int(found["process"])):
                _remove(pathlib.Path(entry.path))


def _is_left_over(entry: os.DirEntry, host: str, process: int) -> bool:
    from mobile_bench.processes import is_running  # as in `_host`

    if host == _host():
        # Before this process wrote here, a file under its number was another's.
        return process == os.getpid() or not is_running(process)
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FOREIGN_SECONDS
    except OSError:
        return False


def _host() -> str:
    """This host, as a part of a file's name."""
    from mobile_bench.processes import this_host  # only here: whoever reads a file imports this

    return re.sub(r"[^\w-]", "-", this_host())


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a whole file or nothing. Raises FailureError as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as readable JSON. Raises FailureError as `atomic_path` does."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def append_json(path: str | os.PathLike, row: dict[str, Any]) -> None:
    """Appends a line of JSON and waits until it is on the disk.

    Raises:
        FailureError: the disk refuses; names the file.
    """
    path = pathlib.Path(path)
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FailureError(f"{path} could not be written: {error.strerror}.") from error


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, which anybody may have written.

    Raises:
        ValueError: it is none, says why; also where an object has a key twice, of which Python
            takes the last, or where Python gives up on its nesting or numbers.
    """
    if not text.strip():
        raise ValueError("it is empty")
    try:
        value = json.loads(text, object_pairs_hook=_without_repetition)
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if _is_deeper_than(MAX_NESTING, value):
        # What compares, prints or writes it would run into Python's limit.
        raise ValueError("it is nested too deeply")
    return value


def _is_deeper_than(limit: int, value: Any) -> bool:
    """Whether there are more than so many lists and objects within each other."""
    level: list[Any] = [[value]]
    for _ in range(limit + 1):
        nested = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for values in nested for v in values if isinstance(v, (dict, list))]
        if not level:
            return False
    return True


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = collections.Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r:.80} is there twice")
    return found


def read_json(path: str | os.PathLike, remedy: str = "", kind: type = object) -> Any:
    """Reads a JSON file.

    Args:
        path: the file.
        remedy: what to do about a damaged file, as whole sentences that end the message.
        kind: of the value; `dict`, say.

    Raises:
        FailureError: the file is missing, unreadable, not JSON or of another kind; names it.
    """
    try:
        value = parse_json(pathlib.Path(path).read_bytes())
        if not isinstance(value, kind):
            raise ValueError(f"expected {_KINDS[kind]}, not {_KINDS.get(type(value), 'null')}")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FailureError(
            f"{path} could not be read as JSON: {reason}. {remedy}".rstrip()
        ) from error
    return value


_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
}
