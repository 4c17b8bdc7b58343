"""Refuses, when it is imported, a Keras that does not run on TensorFlow.

The rooms that import Keras import this first: another backend would end in a traceback, or later.
"""

from __future__ import annotations

import importlib

from ofa_tf.errors import UsageError, first_line

_REMEDY = (
    "ofa_tf needs the backend tensorflow: set KERAS_BACKEND=tensorflow before Keras is imported, "
    'or "backend": "tensorflow" in keras.json'
)


def check_backend() -> None:
    """Raises UsageError where Keras runs on another backend, or does not run."""
    try:
        backend = importlib.import_module("keras").config.backend()
    except Exception as error:  # whatever a backend that is not installed, or not known, raises
        raise UsageError(f"Keras cannot be imported: {first_line(error)}. {_REMEDY}.") from error
    if backend != "tensorflow":
        raise UsageError(f"Keras runs on {backend}, but {_REMEDY}.")


check_backend()
