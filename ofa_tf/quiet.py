"""Holds back what native code prints, which Python's own redirection does not reach."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator

from ofa_tf.errors import FailureError, first_line

_ADDRESS_SPACE = 5_000_000_000  # bytes, with which the quickstart gets through


@contextlib.contextmanager
def native_output_dropped() -> Iterator[None]:
    """Drops all that this process prints to standard output and error within the block.

    The converter and the TFLite runtime write their progress straight to file descriptors 1 and
    2; what goes wrong in them arrives as an exception all the same. The descriptors belong to the
    whole process, so other threads are silent for that time too.
    """
    with contextlib.ExitStack() as restored, open(os.devnull, "wb") as dropped:
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            kept = os.dup(descriptor)
            restored.callback(os.close, kept)
            restored.callback(os.dup2, kept, descriptor)
            restored.callback(stream.flush)
            os.dup2(dropped.fileno(), descriptor)
        yield


def _check_address_space() -> None:
    """Where native code gets no memory, it ends the process without a word of ours."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ADDRESS_SPACE:
        raise FailureError(
            f"TensorFlow needs {_ADDRESS_SPACE / 1e9:.0f} GB of address space, but this process "
            f"may have {limit / 1e9:.1f} GB only. Raise the limit: ulimit -v unlimited."
        )


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up lines, some of which heed no setting.

    Raises:
        FailureError: it, or Keras, cannot be loaded; says why.
    """
    _check_address_space()
    try:
        with native_output_dropped():
            importlib.import_module("tensorflow")
            importlib.import_module("keras")
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        # TensorFlow imports Keras, which says nothing of the kind where a setting of its is none.
        raise FailureError(
            "Keras cannot be loaded: look at its settings in ~/.keras/keras.json, or in the folder "
            f"KERAS_HOME, or remove that file ({type(error).__name__}: {first_line(error)})."
        ) from error
    except ImportError as error:
        raise FailureError(
            f"TensorFlow cannot be loaded: {first_line(error)}. There may be too little memory, or "
            "`pip install ofa_tf` is to be run again."
        ) from error
