"""Files of this host that are gone with the process that made them, however it ended."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO

from mobile_bench.errors import TargetError
from mobile_bench.processes import is_running, this_host

_NAME = re.compile(r"mobile_bench\.(?P<host>.+)\.(?P<process>\d{1,9})\.\w+", re.ASCII)


def temporary_file() -> IO[bytes]:
    """Returns an open file that has no name. Raises TargetError where there is no room for one."""
    with _told():
        return tempfile.TemporaryFile()


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Makes a folder, and removes those that killed processes left.

    Raises:
        TargetError: There is no room for one.
    """
    with _told():
        _remove_leftovers(tempfile.gettempdir())
        return tempfile.TemporaryDirectory(prefix=f"mobile_bench.{_host()}.{os.getpid()}.")


def _remove_leftovers(folder: str) -> None:
    with contextlib.suppress(OSError):  # one may be made where nobody may look around
        for entry in list(os.scandir(folder)):
            found = _NAME.fullmatch(entry.name)
            if found and found["host"] == _host() and not is_running(int(found["process"])):
                shutil.rmtree(entry.path, ignore_errors=True)


def _host() -> str:
    return this_host().replace("/", "-")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"no temporary file can be made ({error.strerror or error}); name a folder with room "
            "for one in TMPDIR"
        ) from error
