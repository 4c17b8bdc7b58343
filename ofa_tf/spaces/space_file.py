"""A search space of one's own: a Python file that defines SPACE, or several as SPACES."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Callable
from typing import NamedTuple

from ofa_tf.errors import UsageError, first_line
from ofa_tf.spaces.checks import check_space
from ofa_tf.spaces.search_space import SearchSpace

# What the files that this process has read define, by their text: a copy of a file, as jobs keep
# one, then has the same spaces, and its classes are the same.
_read: dict[str, dict[str, SearchSpace]] = {}


class SpaceFile(NamedTuple):
    """A file, and the name of the space in it; None for the only one."""

    path: pathlib.Path
    space_name: str | None


def as_space_file(text: str | os.PathLike) -> SpaceFile | None:
    """What "my_space.py" or "my_space.py:small" says; None for what ends otherwise."""
    match = re.fullmatch(r"(.+\.py)(?::([^:/\\]+))?", os.fspath(text))
    return SpaceFile(pathlib.Path(match[1]), match[2]) if match else None


def read_space(file: SpaceFile, before_running: Callable[[str], None] | None = None) -> SearchSpace:
    """The space of a file, which is run once by a process, however often it is asked for.

    Args:
        file: the file.
        before_running: called with its text before that is run; raises an error to prevent it.

    Raises:
        UsageError: the file cannot be read or run, or has no such space, or one of which no
            supernet can be made; names the file, and the line that raised.
    """
    try:
        source = file.path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The search space {file.path} cannot be read: {error}.") from error
    if source not in _read:
        if before_running is not None:
            before_running(source)
        _read[source] = _run(source, file.path)
    spaces = _read[source]
    names = ", ".join(spaces)
    if file.space_name is None:
        if len(spaces) > 1:
            raise UsageError(
                f"{file.path} has several search spaces, {names}: give one of them as "
                f"{file.path}:{next(iter(spaces))}."
            )
        return next(iter(spaces.values()))
    if file.space_name not in spaces:
        raise UsageError(f"{file.path} has no search space {file.space_name!r}; it has {names}.")
    return spaces[file.space_name]


def source_hash(source: str) -> str:
    """Stands for the text of a file that defines a space."""
    return hashlib.sha256(source.encode()).hexdigest()


def _run(source: str, path: pathlib.Path) -> dict[str, SearchSpace]:
    """Runs a file; its spaces by name, checked."""
    name = f"_space_{source_hash(source)[:16]}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses look up what annotations mean
    try:
        # Not by an import, which would leave a folder of byte code beside the file.
        exec(compile(source, str(path), "exec"), vars(module))
        spaces = _defined(module)
        for space in spaces:
            check_space(space)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise UsageError(f"{_place(error, path)}: {_said(error)}") from error
    return {space.name: dataclasses.replace(space, source=source) for space in spaces}


def _defined(module: types.ModuleType) -> tuple[SearchSpace, ...]:
    """What SPACE or SPACES of a module holds."""
    given = [name for name in ("SPACE", "SPACES") if hasattr(module, name)]
    if len(given) != 1:
        raise UsageError(
            f"it has to define SPACE, a SearchSpace, or SPACES, a tuple of several; it defines "
            f"{'both' if given else 'neither'}."
        )
    value = getattr(module, given[0])
    spaces = (value,) if given == ["SPACE"] else value
    if not isinstance(spaces, (tuple, list)) or not spaces:
        raise UsageError(f"SPACES is a tuple of search spaces, not {value!r}.")
    for space in spaces:
        if not isinstance(space, SearchSpace):
            raise UsageError(f"{given[0]} holds a SearchSpace, not {space!r}.")
    names = [space.name for space in spaces]
    if len(set(names)) < len(names):
        raise UsageError(f"SPACES has two search spaces of one name: {', '.join(names)}.")
    return tuple(spaces)


def _said(error: BaseException) -> str:
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"this is no Python: {error.msg}."
    return f"{type(error).__name__}: {first_line(error)}."


def _place(error: BaseException, path: pathlib.Path) -> str:
    """The file, and the last line of it that was at work when an error was raised."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f"{path}:{lines[-1]}" if lines else str(path)
