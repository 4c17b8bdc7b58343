"""Supernets with weights that show mistakes, archs, and plain Keras models to compare with.

Under default weights a network of this kind gives nearly the same logits for every image (the
signal dies on the way, the biases remain), and then any mistake in between goes unseen.
"""

from __future__ import annotations

import contextlib
import dataclasses

import keras
import numpy as np
import pytest

from ofa_tf.models import Supernet
from ofa_tf.spaces import Arch, SearchSpace, get_space
from ofa_tf.spaces.proxyless import ProxylessNAS
from ofa_tf.spaces.stages import Stage

NUM_CLASSES = 10
TINY_SPACES = {
    "mbv3": get_space("ofa_mbv3_tiny"),
    "resnet": get_space("ofa_resnet_tiny"),
    "proxyless": SearchSpace(
        "proxyless_tiny",
        ProxylessNAS(
            stem_width=16,
            first_width=8,
            stages=(
                Stage(16, 1, "relu6", False, blocks=2),
                Stage(24, 2, "relu6", False, blocks=2),
                Stage(40, 1, "relu6", False, blocks=1),
            ),
            feature_mix_width=96,
        ),
        depths=(1, 2),
        kernel_sizes=(3, 5, 7),
        expand_ratios=(2, 3),
        resolutions=(24, 28, 32),
    ),
}
# The tests that share the `supernet` of conftest.py run with each of these families.
every_family = pytest.mark.parametrize("supernet", TINY_SPACES, indirect=True)
two_families = pytest.mark.parametrize("supernet", ["mbv3", "resnet"], indirect=True)


def without_dropout(space: SearchSpace) -> SearchSpace:
    """The same networks without dropout, so that training mode can be compared."""
    return dataclasses.replace(space, family=dataclasses.replace(space.family, dropout=0.0))


def make_supernet(space: SearchSpace, seed: int = 0) -> Supernet:
    """He-normal weights, non-trivial batch norm and biases, transforms far from the identity."""
    supernet = Supernet(space, NUM_CLASSES)
    rng = np.random.default_rng(seed)
    for variable in supernet.trainable_variables:
        shape, name = variable.shape, variable.name
        if name == "gamma":
            value = rng.uniform(0.6, 1.5, shape)
        elif len(shape) == 1:  # betas and biases
            value = rng.normal(0, 0.3, shape)
        else:
            # A depthwise kernel (k, k, channels) sees k * k inputs; all others end in outputs.
            fan_in = np.prod(shape[:2]) if len(shape) == 3 else np.prod(shape[:-1])
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        variable.assign(value.astype(np.float32))
    # Statistics near those of the largest net: far from them a deep net's signals explode, and
    # rounding with them.
    images = make_images(min(space.resolutions), 8, seed)
    supernet(images, "largest", bn_update=(0, 1))
    means, variances = (
        [v for v in supernet.non_trainable_variables if v.name == name]
        for name in ("moving_mean", "moving_variance")
    )
    for mean, variance in zip(means, variances, strict=True):
        std = np.sqrt(variance.numpy())
        mean.assign(mean.numpy() + 0.3 * std * rng.normal(size=std.shape))
        variance.assign(variance.numpy() * rng.uniform(0.6, 1.5, std.shape))
    return supernet


def twin(supernet: Supernet, **options) -> Supernet:
    """Another supernet with the same weights."""
    other = Supernet(supernet.space, NUM_CLASSES, **options)
    for ours, theirs in zip(other.variables, supernet.variables, strict=True):
        ours.assign(theirs.numpy())
    return other


@contextlib.contextmanager
def calibrated(supernet: Supernet, arch: Arch, batches: list[np.ndarray]):
    """Within the block, the moving statistics are the means over the arch's batches."""
    with supernet.kept_statistics():
        for index, images in enumerate(batches):
            supernet(images, arch, bn_update=(float(index > 0), 1 / len(batches)))
        yield


def make_archs(space: SearchSpace, count: int) -> list[Arch]:
    """The largest, the smallest, and random ones."""
    rng = np.random.default_rng(0)
    return [space.max(), space.min(), *(space.sample(rng) for _ in range(count - 2))]


def make_images(side: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.2, 1, (count, side, side, 3)).astype(np.float32)


def deviation(actual, expected) -> float:
    """The largest difference, as a part of the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.isfinite(expected).all()
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def spread(logits) -> float:
    """How much the logits of different images differ, as `deviation` measures."""
    logits = np.asarray(logits)
    return min(deviation(a, b) for i, a in enumerate(logits) for b in logits[:i])


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert layers
    return layers


def run_plain(model: keras.Model, images: np.ndarray, momentum: float) -> np.ndarray:
    """The plain model on batch statistics; moves its moving ones with `momentum`."""
    for layer in batch_norms(model):
        layer.momentum = momentum
    return model(images, training=True).numpy()
