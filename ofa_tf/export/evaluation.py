"""What exported models give for images: classes, and the share that is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.export.interface import Interface

# (images, labels): float32 (n, height, width, 3) RGB pixels from 0 to 255, integers (n,). Labels
# are None where nobody knows them.
Batches = Iterable[tuple[np.ndarray, np.ndarray | None]]

Predict = Callable[[np.ndarray], np.ndarray]

_BATCH = 100  # random images at once
_PATCHES = 8  # of one color, along each side of a random image


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model gives for some images.

    Attributes:
        outputs: of the first images, float (n, classes).
        classes: with the highest score, of all images, int (m,).
        labels: of all images, int (m,); None where nobody knows them.
    """

    outputs: np.ndarray
    classes: np.ndarray
    labels: np.ndarray | None

    @property
    def accuracy(self) -> float | None:
        return None if self.labels is None else top1(self.classes, self.labels)


def score(predict: Predict, batches: Batches, num_outputs: int = 0) -> Scores:
    """Runs a model on all images once.

    Args:
        predict: from images as the batches have them to a score for each class, (n, classes).
        batches: images and labels.
        num_outputs: of how many images the outputs themselves are kept.

    Raises:
        UsageError: there are no images.
    """
    outputs, classes, labels, missing = [], [], [], num_outputs
    for images, batch_labels in batches:
        given = np.asarray(predict(np.asarray(images)))
        classes.append(given.argmax(axis=-1))
        outputs.append(given[:missing])
        missing -= len(outputs[-1])
        if batch_labels is not None:
            labels.append(np.asarray(batch_labels))
    if not classes:
        raise UsageError("There are no images to evaluate on.")
    return Scores(
        np.concatenate(outputs), np.concatenate(classes), np.concatenate(labels) if labels else None
    )


def classify(predict: Predict, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes and labels of all images, int (n,) each; raises as `score`."""
    scores = score(predict, batches)
    return scores.classes, scores.labels


def as_inputs(pixels: np.ndarray, interface: Interface) -> np.ndarray:
    """Raw pixels as the Keras model and the float files of an interface take them."""
    if interface.input == "uint8":
        return np.round(pixels).astype(np.uint8)
    if interface.input == "pixels":
        return pixels
    mean, std = np.asarray(interface.normalization, np.float32)
    return (pixels - mean) / std


def random_batches(resolution: int, count: int, seed: int = 0) -> Batches:
    """Images of random colors, which are less alike than noise is, without labels.

    Args:
        resolution: height and width.
        count: of images in all.
        seed: equal ones give equal images.
    """
    rng = np.random.default_rng(seed)
    places = np.arange(resolution) * _PATCHES // resolution
    batches = []
    for start in range(0, count, _BATCH):
        size = (min(_BATCH, count - start), _PATCHES, _PATCHES, 3)
        colors = rng.integers(0, 256, size).astype(np.float32)
        batches.append((colors[:, places][:, :, places], None))
    return batches


def top1(classes: np.ndarray, labels: np.ndarray) -> float:
    """The share of equal entries."""
    return float(np.mean(classes == labels))
