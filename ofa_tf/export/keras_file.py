"""The .keras file of a network: its content, and the network back from it."""

from __future__ import annotations

import os
import pathlib
import tempfile

import keras

from ofa_tf.errors import FailureError, first_line
from ofa_tf.export.formats import FORMATS


def keras_file(model: keras.Model) -> bytes:
    """The content of a .keras file; Keras itself writes to paths that end so only.

    Raises:
        FailureError: the temporary folder is full.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch, FORMATS["keras"])
            model.save(path)
            return path.read_bytes()
    except OSError as error:
        raise FailureError(
            f"{FORMATS['keras']} could not be made in the temporary folder: "
            f"{error.strerror or error}."
        ) from error


def load_keras_file(path: str | os.PathLike) -> keras.Model:
    """The network of a .keras file, not compiled.

    Raises:
        FailureError: there is no such file, or Keras cannot read it; names the path.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the file's content leads to
        raise FailureError(
            f"{path} could not be loaded as a Keras model: {first_line(error)}"
        ) from error
