"""What commands print: nobody has to read it, and it steers no terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from mobile_bench.errors import one_line

# All that cannot be printed but what progress bars move the cursor with: names and messages of
# others may hold it.
_KEPT = re.compile(r"(\n|\r|\t|\x1b\[A)")


class Outlet:
    """A stream that drops what is written once it refused something, a closed pipe or a full disk.

    Args:
        stream: where the text goes, without what would steer a terminal.

    Attributes:
        error: why it refused; None as long as it did not.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error is None:
            self._try(self._stream.write, _plain(text))
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, call: Any, *args: str) -> None:
        try:
            call(*args)
        except OSError as error:
            self.error = error
            # Python flushes again at exit, and native code writes to the descriptor.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def outlets() -> Iterator[Outlet]:
    """Standard output and error are Outlets within the block; yields that of the output.

    Both write characters that their encoding lacks as escapes. What the caller closed, `>&-`, is
    written to nowhere.
    """
    before = sys.stdout, sys.stderr
    streams = [stream or _nowhere() for stream in before]
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = out, error = tuple(map(Outlet, streams))
    try:
        yield out
    finally:
        out.flush()
        error.flush()
        sys.stdout, sys.stderr = before


def _nowhere() -> TextIO:
    """In place of a stream that the caller closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else a file of ours takes it, and native code prints into that
            os.open(os.devnull, os.O_RDWR)  # the first that is free, which is this one
    return open(os.devnull, "w", encoding="utf-8")


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    parts = _KEPT.split(text)
    return "".join(part if _KEPT.fullmatch(part) else one_line(part, None) for part in parts)
