"""A supernet's subnets fitted to ten kinds of images, and exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from ofa_tf.data import MEAN, STD
from ofa_tf.export import Interface, SubnetSpec, export_subnet
from ofa_tf.export.evaluation import as_inputs, classify, top1
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.models import Supernet, build_subnet
from ofa_tf.spaces import Blueprint, get_space

NUM_CLASSES = 10
EXPORTED = ("keras", "tflite_float32", "tflite_int8")
INTERFACE = Interface((MEAN, STD))
CLASS_NAMES = tuple(f"kind {i}" for i in range(NUM_CLASSES))


@dataclasses.dataclass(frozen=True)
class Exported:
    """A subnet's folder and all that it was made from."""

    spec: SubnetSpec
    folder: Path
    card: dict
    model: keras.Model
    images: np.ndarray
    labels: np.ndarray

    @property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(self.images[:50], self.labels[:50]), (self.images[50:], self.labels[50:])]


def draw_weights(model: keras.Model) -> None:
    """Gives a network weights under which outputs differ between images and archs."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        shape, name = variable.shape, variable.name
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.7, 1.4, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.2, shape)
        else:
            fan_in = np.prod(shape[:-1]) if shape[-1] > 1 else np.prod(shape[:2])
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        variable.assign(value.astype(np.float32))


def random_subnet(plan: Blueprint, interface: Interface) -> keras.Model:
    """A plain network whose outputs differ between images."""
    model = build_subnet(plan, **interface.build_options)
    draw_weights(model)
    return model


def make_spec(arch, **changes) -> SubnetSpec:
    settings = {
        "name": "small",
        "space": get_space("ofa_mbv3_tiny"),
        "class_names": CLASS_NAMES,
        "interface": INTERFACE,
        "fingerprint": "weights 1",
    }
    return SubnetSpec.of_arch(arch=arch, **(settings | changes))


def cut_out(supernet: Supernet, spec: SubnetSpec) -> Callable[[], keras.Model]:
    """The spec's plain network with the supernet's weights, when it is asked for."""
    return lambda: supernet.subnet(spec.arch, name=spec.name, **spec.interface.build_options)


def separated_images(side: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy copies of ten coarse color patterns, pixels from 0 to 255, and their kinds."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(7).uniform(20, 235, (NUM_CLASSES, 4, 4, 3))
    patterns = patterns.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    labels = rng.integers(0, NUM_CLASSES, count)
    images = patterns[labels] + rng.normal(0, 8, (count, side, side, 3))
    return images.clip(0, 255).astype(np.float32), labels


def fit_classifier(supernet: Supernet, spec: SubnetSpec, images, labels) -> None:
    """Solves the dense layer by least squares, so that the logits mean something."""
    model = cut_out(supernet, spec)()
    dense = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    features = keras.Model(model.input, dense.input).predict(images, verbose=0)
    ones = np.ones((len(features), 1))
    targets = 10 * np.eye(NUM_CLASSES)[labels]
    gram = np.hstack([features, ones])
    solved = np.linalg.solve(gram.T @ gram + 0.1 * np.eye(gram.shape[1]), gram.T @ targets)
    kernel, bias = supernet.blocks[-1].dense.weights
    kernel.assign(solved[:-1].reshape(kernel.shape))
    bias.assign(solved[-1])


def supernet_classes(supernet: Supernet, spec: SubnetSpec, images: np.ndarray) -> np.ndarray:
    logits = supernet(as_inputs(images, Interface((MEAN, STD), "float32")), spec.arch)
    return np.argmax(logits, axis=-1)


def export(supernet: Supernet, which: str, folder: Path) -> Exported:
    """Exports and evaluates `space.max()` or `space.min()` in the formats of EXPORTED."""
    spec = make_spec(getattr(supernet.space, which)())
    side = spec.arch.resolution
    train_images, train_labels = separated_images(side, 200, seed=1)
    fit_classifier(supernet, spec, train_images, train_labels)
    images, labels = separated_images(side, 120, seed=2)
    card = export_subnet(
        cut_out(supernet, spec),
        spec,
        folder,
        formats=EXPORTED,
        calibration_images=train_images[:64],
        test_batches=[(images[:50], labels[:50]), (images[50:], labels[50:])],
        supernet_classes=supernet_classes(supernet, spec, images),
    )
    model = cut_out(supernet, spec)()
    return Exported(spec, folder, card, model, images, labels)


def keras_accuracy(model: keras.Model, batches) -> float:
    return top1(*classify(model.predict_on_batch, batches))


def tflite_accuracy(path, batches, *, num_threads: int = 1) -> float:
    return top1(*classify(TFLiteClassifier(path, num_threads), batches))
