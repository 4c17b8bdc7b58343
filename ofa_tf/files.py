"""Files that are either whole or not there, and errors of the disk told in one line."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ofa_tf.errors import FailureError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; what is written there is `path` after the block.

    On any error nothing is left at the temporary path and `path` stays as it was.

    Raises:
        FailureError: the disk refused (read-only, full, no such folder); names the file.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FailureError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        FailureError: the file is missing, unreadable or not JSON; names it.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise FailureError(f"{path} could not be read as JSON: {error}.") from error
