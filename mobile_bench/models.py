"""Model files: finding them from paths and patterns, and telling one from another."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mobile_bench.errors import FailureError, UsageError


@dataclass(frozen=True)
class ModelFile:
    """A model file: its path as given, the hash and the number of its bytes."""

    path: str
    sha256: str
    size_bytes: int

    @classmethod
    def read(cls, path: str) -> ModelFile:
        """Hashes a file.

        Raises:
            FailureError: It is missing, empty, not a regular file or cannot be read.
        """
        if not os.path.exists(path):
            raise FailureError(f"{path}: no such file")
        if not os.path.isfile(path):
            raise FailureError(f"{path}: expected a .tflite file, not a folder or device")
        digest, size = hashlib.sha256(), 0
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            raise FailureError(f"{path}: cannot be read: {error.strerror}") from error
        if not size:
            raise FailureError(f"{path}: the file is empty")
        return cls(path, digest.hexdigest(), size)


def expand(patterns: Iterable[str]) -> list[str]:
    """Returns the paths that the patterns name, each once, in order.

    What exists stands for itself, whatever signs are in its name, be it a file or the first folders
    of a pattern. So does a path without wildcards: whether it can be read shows when it is
    measured. `**` goes through folders.

    Raises:
        UsageError: A pattern matches nothing.
    """
    paths: dict[str, None] = {}
    for pattern in patterns:
        paths.update(dict.fromkeys(_matches(pattern) or [_plain(pattern)]))
    return list(paths)


def split_and_expand(patterns: str) -> list[str]:
    """Returns the paths that patterns with commas between name, as `expand` does.

    A comma may also be in a name: of the words that it parts, those belong together that name
    something together, and no file alone.

    Raises:
        UsageError: A pattern matches nothing, or is empty.
    """
    words = [patterns] if _matches(patterns) else patterns.split(",") if patterns else []
    parted = []
    while words:
        count = _together(words)
        pattern = ",".join(words[:count])
        parted.append(pattern if _matches(pattern) else pattern.strip())
        del words[:count]
    return expand(parted)


def _together(words: Sequence[str]) -> int:
    """Returns how many of the first words make one pattern: 1 where nothing else names a file."""
    if not any(map(os.path.isfile, _matches(words[0]))):
        for count in range(2, len(words) + 1):
            if _matches(",".join(words[:count])):
                return count
    return 1


def _matches(pattern: str) -> list[str]:
    """Returns what there is: the path itself, or what the pattern matches."""
    if os.path.lexists(pattern):
        return [pattern]
    if not glob.has_magic(pattern):
        return []
    start = 0  # of what is no folder by its own name
    for slash in re.finditer("/+", pattern):
        if not os.path.isdir(pattern[: slash.start()] or "/"):
            break
        start = slash.end()
    return sorted(glob.glob(glob.escape(pattern[:start]) + pattern[start:], recursive=True))


def _plain(pattern: str) -> str:
    if not pattern or glob.has_magic(pattern):
        raise UsageError(f"no file matches {pattern or 'an empty name'}")
    return pattern
