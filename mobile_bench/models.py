"""Model files: finding them from paths and patterns, and telling one from another."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable
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

    A path without wildcards, or of a file that exists, stands for itself; whether it can be read
    shows when it is measured. `**` goes through folders.

    Raises:
        UsageError: A pattern matches nothing, or there is none.
    """
    paths: dict[str, None] = {}
    for pattern in patterns:
        if os.path.exists(pattern) or not glob.has_magic(pattern):
            matches = [pattern]
        else:
            matches = sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise UsageError(f"no file matches {pattern}")
        paths.update(dict.fromkeys(matches))
    if not paths:
        raise UsageError("no models: give .tflite files or patterns, or --models=PATTERN[,..]")
    return list(paths)
