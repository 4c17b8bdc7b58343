"""Locks: two commands do not write the same files at once, on this host or on one beside it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import socket
import sys
import time
from collections.abc import Iterator

from mobile_bench.errors import one_line
from ofa_tf.errors import FailureError
from ofa_tf.files import parse_json

_log = logging.getLogger(__name__)
_held: set[str] = set()  # by this process, which may ask again
_MAX_OWNER_BYTES = 10_000
_GIVING_BACK = 0.2  # seconds; the last of those who share a lock is alone with it to remove it


@contextlib.contextmanager
def lock(path: str | os.PathLike, what: str, *, shared: bool = False) -> Iterator[None]:
    """Keeps what a lock file stands for to this process within the block.

    The system lets go of it however the process ends. Whoever holds it already is let in. Where
    the file cannot be made or the file system has no locks, there is none: what is written then
    fails by itself, or is not watched over.

    Args:
        path: the lock file, which says who has it. It goes when the block ends, and so do the
            folders that were made for it, if nothing else was put there.
        what: what it stands for, for the message.
        shared: several processes may have it together, but none of them alone.

    Raises:
        FailureError: another process has it; names it and its host.
    """
    path = pathlib.Path(os.path.abspath(path))
    if str(path) in _held:
        yield
        return
    made = [folder for folder in path.parents if not folder.exists()]
    file = _taken(path, what, shared, made)
    if file is None:
        yield
        return
    try:
        _held.add(str(path))
        yield
    finally:
        _held.discard(str(path))
        _give_back(file, path, made)


def _taken(path: pathlib.Path, what: str, shared: bool, made: list[pathlib.Path]) -> int | None:
    """A descriptor of the locked file that is at the path; None where there can be no lock."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return None
    deadline = time.monotonic() + _GIVING_BACK
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _opened(path)
        except OSError:
            return None
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(file, path):
                _sign(file)
                return file
        except BlockingIOError as error:
            os.close(file)
            if time.monotonic() < deadline:
                time.sleep(_GIVING_BACK / 10)
                continue
            raise FailureError(
                f"{what}: {_owner(path)} is at work there. Wait until it ends, or end it."
            ) from error
        except OSError as error:
            os.close(file)
            _log.warning(
                "%s cannot be locked (%s): see to it that one command writes at a time.",
                path,
                error.strerror,
            )
            return None
        except BaseException:  # a signal
            _give_back(file, path, made)
            raise
        os.close(file)  # its holder ended meanwhile, and removed it: ask again


def _opened(path: pathlib.Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's, who may be at work
        return os.open(path, os.O_RDONLY)


def _give_back(file: int, path: pathlib.Path, made: list[pathlib.Path]) -> None:
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while others share it
        if _is_at(file, path):
            path.unlink()
    os.close(file)
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


def _is_at(file: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(file: int) -> None:
    """Says in a lock file who has it."""
    command = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    owner = {
        "command": " ".join(command)[:200],
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with contextlib.suppress(OSError):  # another user's file, or a full disk: it is locked anyway
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(owner).encode() + b"\n", 0)


def _owner(path: pathlib.Path) -> str:
    """Who has a lock, as its file says."""
    try:
        owner = parse_json(path.read_bytes()[:_MAX_OWNER_BYTES])
        return one_line(
            f"process {owner['process']} on {owner['host']} ({owner['command']}, "
            f"since {owner['since']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
