"""Classes that exported models predict for batches of raw pixels, and the share that is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ofa_tf.errors import UsageError

# (images, labels): float32 (n, height, width, 3) RGB pixels from 0 to 255, integers (n,)
Batches = Iterable[tuple[np.ndarray, np.ndarray]]


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
