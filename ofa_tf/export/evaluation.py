"""Accuracy of exported models on batches of raw pixels, in Keras and through the TFLite runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import keras
import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.export.runtime import TFLiteClassifier

# (images, labels): float32 (n, height, width, 3) RGB pixels from 0 to 255, integers (n,)
Batches = Iterable[tuple[np.ndarray, np.ndarray]]


def keras_accuracy(model: keras.Model, batches: Batches) -> float:
    """Top-1 accuracy from 0 to 1 of a model that takes raw pixels.

    Raises:
        UsageError: there are no images.
    """
    return top1(*classify(model.predict_on_batch, batches))


def tflite_accuracy(path: str | os.PathLike, batches: Batches, *, num_threads: int = 1) -> float:
    """Top-1 accuracy from 0 to 1 of a .tflite file that takes raw pixels, float32 or quantized.

    Raises:
        UsageError: there are no images, or they have another size than the file takes.
        FailureError: the runtime refuses the file.
    """
    return top1(*classify(TFLiteClassifier(path, num_threads), batches))


def classify(
    predict: Callable[[np.ndarray], np.ndarray], batches: Batches
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes and labels of all images, int (n,) each.

    Args:
        predict: from images to a score for each class, (n, classes).
        batches: the images and their labels.

    Raises:
        UsageError: there are no images.
    """
    classes, labels = [], []
    for images, batch_labels in batches:
        classes.append(np.argmax(predict(np.asarray(images)), axis=-1))
        labels.append(np.asarray(batch_labels))
    if not labels:
        raise UsageError("There are no images to evaluate on.")
    return np.concatenate(classes), np.concatenate(labels)


def top1(classes: np.ndarray, labels: np.ndarray) -> float:
    """The share of equal entries."""
    return float(np.mean(classes == labels))
