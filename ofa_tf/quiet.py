"""Holds back what native code prints, which Python's own redirection does not reach."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def native_output_dropped() -> Iterator[None]:
    """Drops all that this process prints to standard output and error within the block.

    The converter and the TFLite runtime write their progress straight to file descriptors 1 and
    2; what goes wrong in them arrives as an exception all the same. The descriptors belong to the
    whole process, so other threads are silent for that time too.
    """
    with contextlib.ExitStack() as restored, tempfile.TemporaryFile() as dropped:
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            kept = os.dup(descriptor)
            restored.callback(os.close, kept)
            restored.callback(os.dup2, kept, descriptor)
            restored.callback(stream.flush)
            os.dup2(dropped.fileno(), descriptor)
        yield


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up lines, some of which heed no setting."""
    with native_output_dropped():
        importlib.import_module("tensorflow")
