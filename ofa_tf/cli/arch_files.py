"""An arch as a flag names it: by name, or by a file in the published spelling."""

from __future__ import annotations

import pathlib

from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch, SearchSpace


def read_arch(space: SearchSpace, text: str, resolution: int | None = None) -> Arch:
    """The arch that --arch names.

    Args:
        space: the arch is of it.
        text: "largest", "smallest", or the path of an arch.json.
        resolution: pixels for the named ones, if not their own.

    Raises:
        UsageError: the file cannot be read, or its arch is not of the space.
    """
    if text in ("largest", "smallest"):
        if resolution:
            space = space.restrict(resolutions=[resolution])
        return space.max() if text == "largest" else space.min()
    try:
        content = pathlib.Path(text).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--arch is largest, smallest, or the path of an arch.json, not {text!r}: {error}."
        ) from error
    try:
        return space.arch(Arch.from_json(content))
    except UsageError as error:
        raise UsageError(f"{text}: {error}") from error
