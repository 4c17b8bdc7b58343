"""The .keras file of a network: its content, and the network back from it."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import pathlib
import tempfile
import zipfile
from typing import Any

import keras

from ofa_tf.errors import FailureError, first_line
from ofa_tf.export.formats import FORMATS

# The files of the archive.
_CONFIG, _METADATA = "config.json", "metadata.json"


def keras_file(model: keras.Model) -> bytes:
    """The content of a .keras file that older versions of Keras load too, from 3.6 on.

    Keras writes all arguments of all layers, those too that older ones do not know and that are
    at their defaults. These are left out.

    Raises:
        FailureError: the temporary folder is full.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch, FORMATS["keras"])
            model.save(path)  # Keras itself writes to paths that end so only
            return _without_defaults(path)
    except OSError as error:
        raise FailureError(
            f"{FORMATS['keras']} could not be made in the temporary folder: "
            f"{error.strerror or error}."
        ) from error


def load_keras_file(path: str | os.PathLike) -> keras.Model:
    """The network of a .keras file, not compiled.

    Raises:
        FailureError: there is no such file, or Keras cannot read it; names the path, and which
            Keras wrote it where that is another.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the file's content leads to
        written_by = _keras_version(path)
        reason = first_line(error)
        if written_by not in (None, keras.__version__):
            reason = (
                f"Keras {written_by} wrote it, and this is Keras {keras.__version__}, which may "
                f"not know all that is in it: {reason}"
            )
        raise FailureError(f"{path} could not be loaded as a Keras model: {reason}") from error


def _without_defaults(path: pathlib.Path) -> bytes:
    """The content of a .keras file whose config has no arguments that are at their defaults."""
    content = io.BytesIO()
    with zipfile.ZipFile(path) as written, zipfile.ZipFile(content, "w") as archive:
        for entry in written.infolist():
            data = written.read(entry)
            if entry.filename == _CONFIG:
                data = json.dumps(_needed(json.loads(data))).encode()
            archive.writestr(entry, data)
    return content.getvalue()


def _needed(config: Any) -> Any:
    """A part of a config without the arguments that are at their defaults."""
    if isinstance(config, list):
        return [_needed(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: _needed(value) for key, value in config.items()}
    if config.get("module") and isinstance(config.get("config"), dict):
        made = getattr(importlib.import_module(config["module"]), config["class_name"])
        defaults = _defaults(made)
        config["config"] = {
            key: value
            for key, value in config["config"].items()
            if key not in defaults or not _is_same(value, defaults[key])
        }
    return config


def _defaults(made: type) -> dict[str, Any]:
    """Of the arguments of a class, and of those that it hands on."""
    defaults: dict[str, Any] = {}
    for base in reversed(made.__mro__):
        for name, argument in inspect.signature(base.__init__).parameters.items():
            if argument.default is not argument.empty:
                defaults[name] = argument.default
    return defaults


def _is_same(value: Any, default: Any) -> bool:
    """Whether a value from JSON says what the default says; Keras writes False for None."""
    off = (None, False)
    if any(value is each for each in off) and any(default is each for each in off):
        return True
    return type(value) is type(default) and value == default


def _keras_version(path: str | os.PathLike) -> str | None:
    """Which Keras wrote a file; None where it does not say so."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(_METADATA))["keras_version"]
    except Exception:  # whatever a damaged file leads to
        return None
