"""Verification: how far an exported file is from the Keras model, and how far it may be."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mobile_bench import delegation
from ofa_tf.errors import FailureError
from ofa_tf.export.arena import arena_bytes
from ofa_tf.export.evaluation import Batches, Predict, Scores, as_inputs, score, top1
from ofa_tf.export.formats import FORMATS
from ofa_tf.export.interface import Interface
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.files import no_pattern
from ofa_tf.quiet import native_output_dropped

# The least share of images whose class is the Keras model's; for the Keras model itself, the
# supernet's.
MIN_AGREEMENT = {
    "keras": 0.98,
    "saved_model": 0.99,
    "tflite_float32": 0.99,
    "tflite_float16": 0.98,
    "tflite_dynamic": 0.9,
    "tflite_int8": 0.85,
    "tflite_int16x8": 0.9,
    "tflite_qat": 0.75,  # it was trained on
}

_REMEDY = "train the network further, or export it with other --weights"
_CALIBRATE = "calibrate it on more images (--int8_images), or train it (--qat_epochs)"
_REMEDIES = {
    "tflite_dynamic": "leave this format for tflite_int8 or tflite_float16",
    "tflite_int8": _CALIBRATE,
    "tflite_int16x8": _CALIBRATE,
    "tflite_qat": "train it for more --qat_epochs, or with another --qat_lr",
}


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What a file must reach.

    Args:
        min_agreement: share of images whose class is the Keras model's; None for MIN_AGREEMENT.
        max_accuracy_drop: points of accuracy that may be lost against the Keras model; None for
            any number.
    """

    min_agreement: float | None = None
    max_accuracy_drop: float | None = None

    def problem(self, name: str, entry: dict[str, Any]) -> str | None:
        """What is wrong with a verified file of a format, as a clause; None where it is fine."""
        least = MIN_AGREEMENT[name] if self.min_agreement is None else self.min_agreement
        other = "supernet" if name == "keras" else "keras"
        agreement = entry.get(f"{other}_agreement", 1.0)
        if agreement < least:
            return (
                f"on {entry['verified_images']} images its class is that of the "
                f"{'supernet' if name == 'keras' else 'Keras model'} for a share of "
                f"{agreement:.3f}, less than --min_agreement={least:g}"
            )
        drop, most = 100 * entry.get("accuracy_drop", 0.0), self.max_accuracy_drop
        if most is not None and drop > most:
            return (
                f"on {entry['num_images']} test images its accuracy is {drop:.2f} points below "
                f"the Keras model's, more than --max_accuracy_drop={most:g}"
            )
        return None


class UnfitError(FailureError):
    """A file does not reach what it must; the others may."""


class Verifier:
    """Holds files of one subnet against its Keras model.

    Args:
        model: the Keras model.
        interface: how it and the files take images.
        batches: the images, raw pixels; the same each time they are iterated.
        num_images: the outputs are compared on so many of them.
        supernet_classes: as for `compare`.
        thresholds: what each file must reach.
        num_threads: of the TFLite runtime.
    """

    def __init__(
        self,
        model: keras.Model,
        interface: Interface,
        batches: Batches,
        num_images: int,
        supernet_classes: np.ndarray | None,
        thresholds: Thresholds,
        num_threads: int,
    ):
        self._model, self._interface = model, interface
        self._batches, self._num_images = batches, num_images
        self._supernet_classes = supernet_classes
        self._thresholds, self._num_threads = thresholds, num_threads

    def verify(self, name: str, path: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
        """What `compare` and `describe_graph` tell of a file.

        Args:
            name: its format.
            path: where it is.
            folder: where it shall be.

        Raises:
            UnfitError: it does not reach the thresholds.
            FailureError: the runtime refuses it.
        """
        scores = self._reference if name == "keras" else self._score(self._runner(name, path))
        entry = compare(scores, self._reference, self._supernet_classes)
        if name.startswith("tflite_"):
            entry |= describe_graph(path, self._num_threads)
        problem = self._thresholds.problem(name, entry)
        if problem is not None:
            raise UnfitError(
                f"{folder / FORMATS[name]} is not made: {problem}. Lower the threshold, or make "
                f"the file better: {_REMEDIES.get(name, _REMEDY)}."
            )
        return entry

    @functools.cached_property
    def _reference(self) -> Scores:
        return self._score(self._model.predict_on_batch)

    def _score(self, run: Predict) -> Scores:
        def predict(pixels: np.ndarray) -> np.ndarray:
            return run(as_inputs(pixels, self._interface))

        return score(predict, self._batches, self._num_images)

    def _runner(self, name: str, path: pathlib.Path) -> Predict:
        if name == "saved_model":
            return _Served(path, self._interface.output_name)
        return TFLiteClassifier(path, self._num_threads)


class _Served:
    """The serving signature of a SavedModel."""

    def __init__(self, path: pathlib.Path, output_name: str):
        with no_pattern(path) as named:
            self._loaded = tf.saved_model.load(os.fspath(named))  # kept, for it owns the variables
        self._signature = self._loaded.signatures["serving_default"]
        self._output_name = output_name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._signature(image=tf.constant(images))[self._output_name].numpy()


def compare(
    scores: Scores, reference: Scores, supernet_classes: np.ndarray | None
) -> dict[str, Any]:
    """How a file's outputs differ from the Keras model's, for the card.

    Args:
        scores: the file's, on the images of the reference.
        reference: the Keras model's.
        supernet_classes: that the supernet gives for the images whose outputs were kept, int (n,);
            None where there is no supernet.

    Returns: verified_images, keras_agreement and, where there is a supernet, supernet_agreement
        (shares from 0 to 1), max_deviation of an output, and the same relative to the largest
        output; where there are labels, accuracy, num_images and accuracy_drop.
    """
    classes, expected = scores.outputs.argmax(axis=-1), reference.outputs
    deviation = float(np.abs(scores.outputs - expected).max())
    entry = {
        "verified_images": len(expected),
        "keras_agreement": top1(classes, expected.argmax(axis=-1)),
        "max_deviation": deviation,
        "relative_deviation": deviation / max(float(np.abs(expected).max()), 1e-30),
    }
    if supernet_classes is not None:
        entry["supernet_agreement"] = top1(classes, supernet_classes)
    if reference.labels is not None:
        entry["accuracy"] = scores.accuracy
        entry["num_images"] = len(reference.labels)
        entry["accuracy_drop"] = reference.accuracy - scores.accuracy
    return entry


def most_accurate(
    files: Mapping[str, bytes], interface: Interface, batches: Batches
) -> tuple[str, dict[str, float]]:
    """Which of some .tflite files classifies best, the first of equals, and each one's accuracy.

    Args:
        files: their contents, by name.
        interface: of all of them.
        batches: raw pixels with labels.
    """
    accuracies = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, content) in enumerate(files.items()):
            path = pathlib.Path(folder, f"{number}.tflite")
            path.write_bytes(content)
            file = TFLiteClassifier(path)
            scores = score(lambda pixels, file=file: file(as_inputs(pixels, interface)), batches)
            accuracies[name] = scores.accuracy
    return max(accuracies, key=accuracies.get), accuracies


def describe_graph(path: str | os.PathLike, num_threads: int) -> dict[str, Any]:
    """What the real runtime says of a .tflite file, for the card.

    Returns: ops, the partitions that its XNNPACK delegate takes and ops_outside of them by name,
        and arena_bytes (see arena.py).

    Raises:
        FailureError: the runtime refuses the file.
    """
    with native_output_dropped():
        taken = delegation(path, threads=num_threads)
    return {
        "ops": taken.ops,
        "delegate_partitions": taken.partitions,
        "ops_outside": taken.ops_outside,
        "arena_bytes": arena_bytes(path),
    }
