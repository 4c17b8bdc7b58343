"""Writes a network in each format: the file, and what the card says of it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.export.card import SubnetSpec, describe_file
from ofa_tf.export.evaluation import Batches, as_inputs
from ofa_tf.export.formats import FORMATS
from ofa_tf.export.keras_file import keras_file
from ofa_tf.export.metadata import add_metadata
from ofa_tf.export.quantization import CALIBRATED
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.export.saved_model import write_saved_model
from ofa_tf.export.tflite import convert_subnet
from ofa_tf.export.verification import most_accurate


class Qat(NamedTuple):
    """How tflite_qat is made.

    Attributes:
        settings: what decides the file besides the subnet, ready for JSON.
        train: from the Keras model to the content of a file and, for the card, the history of
            the training, ready for JSON.
        validation_batches: raw pixels with labels, on which the file must be no worse than that
            of tflite_int8 to be kept.
    """

    settings: dict[str, Any]
    train: Callable[[keras.Model], tuple[bytes, list[dict[str, Any]]]]
    validation_batches: Batches


class Source(NamedTuple):
    """What the files of a subnet are made from.

    Attributes:
        model: the plain network.
        spec: the subnet.
        calibration_images: raw pixels, (n, resolution, resolution, 3), for CALIBRATED precisions
            and tflite_qat.
        qat: for tflite_qat.
    """

    model: keras.Model
    spec: SubnetSpec
    calibration_images: np.ndarray | None
    qat: Qat | None


def write_format(source: Source, name: str, path: pathlib.Path) -> dict[str, Any]:
    """Writes one format to a path and returns what the card says of it.

    Raises:
        UsageError: there are no fit calibration images, or no settings for tflite_qat.
        FailureError: the converter fails, or the disk refuses.
    """
    interface, entry = source.spec.interface, {}
    if name.startswith("tflite_"):
        content, entry = _tflite(source, name.removeprefix("tflite_"))
        path.write_bytes(add_metadata(content, source.spec))
        entry |= TFLiteClassifier(path).describe()
    else:
        if name == "keras":
            path.write_bytes(keras_file(source.model))
        else:
            write_saved_model(source.model, path, interface, source.spec.class_names)
        entry = {"dtype": "float32", "input": {"dtype": interface.dtype}}
        entry["output"] = {"dtype": "float32"}
    return {**describe_file(path), "file": FORMATS[name], **entry}


def _tflite(source: Source, precision: str) -> tuple[bytes, dict[str, Any]]:
    """The content of a file, and what the card says of how it was made."""
    if precision == "qat":
        return _trained_tflite(source)
    model, spec, images = source.model, source.spec, source.calibration_images
    if images is not None and spec.interface.input == "float32":
        images = as_inputs(images, spec.interface)
    content = convert_subnet(
        model,
        spec.plan,
        spec.interface,
        precision,
        images,
        form=spec.form,
        batch_size=spec.batch_size,
    )
    counted = {"num_calibration_images": len(images)} if precision in CALIBRATED else {}
    return content, {"dtype": precision, **counted}


def _trained_tflite(source: Source) -> tuple[bytes, dict[str, Any]]:
    """The better of the trained file and that of tflite_int8, and what the card says of it.

    Short of training, ranges of unchanged images may be better than those of augmented ones.
    """
    qat = source.qat
    if qat is None:
        raise UsageError("tflite_qat is trained: say for how many epochs, --qat_epochs=N.")
    trained, history = qat.train(source.model)
    post_training, _ = _tflite(source, "int8")
    files = {"trained": trained, "post-training": post_training}
    kept, accuracies = most_accurate(files, source.spec.interface, qat.validation_batches)
    history = [*history, {"kept": kept, "validation_accuracies": accuracies}]
    return files[kept], {"dtype": "int8", "qat": qat.settings, "qat_history": history}
