"""Convolution, depthwise convolution with kernel transforms, squeeze-excite, dense: in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from layers_helpers import (
    convolve,
    convolve_depthwise,
    draw,
    images,
    squeeze_excite,
    transformed_kernel,
)

from ofa_tf import layers
from ofa_tf.layers.activations import hard_swish
from ofa_tf.spaces.blueprint import Classifier

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def built(layer, channels: int, rng):
    layer.build((None, None, None, channels))
    draw(layer, rng)
    return layer


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (8, 5)])
def test_conv_pads_symmetrically(rng, stride, kernel_size, size):
    layer = built(layers.ElasticConv2D(9, kernel_size, stride, use_bias=True), 6, rng)
    batch = images(rng, 2, *size, 4)
    kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
    expected = convolve(batch, kernel[:, :, :4, :5], stride) + bias[:5]
    np.testing.assert_allclose(layer(batch, out_channels=5), expected, **CLOSE)
    np.testing.assert_allclose(
        layer(batch), convolve(batch, kernel[:, :, :4], stride) + bias, **CLOSE
    )


def test_conv_without_bias_has_one_weight(rng):
    layer = built(layers.ElasticConv2D(9, 3), 6, rng)
    assert [weight.shape for weight in layer.weights] == [(3, 3, 6, 9)]
    (kernel,) = layer.active_weights(4, 5)
    np.testing.assert_array_equal(kernel, layer.kernel.numpy()[:, :, :4, :5])
    batch = images(rng, 2, 6, 6, 4)
    np.testing.assert_allclose(layer(batch, out_channels=5), convolve(batch, kernel, 1), **CLOSE)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("size", [(9, 9), (8, 8), (10, 7)])
def test_depthwise_with_kernel_transforms(rng, stride, kernel_size, size):
    layer = built(layers.ElasticDepthwiseConv2D((3, 5, 7), stride), 6, rng)
    stored = layer.kernel.numpy()
    transforms = {small: weight.numpy() for small, weight in layer.transforms.items()}
    assert {small: t.shape for small, t in transforms.items()} == {3: (9, 9), 5: (25, 25)}
    kernel = transformed_kernel(stored[:, :, :4].astype(np.float64), transforms, kernel_size)
    (active,) = layer.active_weights(4, kernel_size)
    np.testing.assert_allclose(active[..., 0], kernel, **CLOSE)
    batch = images(rng, 2, *size, 4)
    expected = convolve_depthwise(batch, kernel, stride)
    np.testing.assert_allclose(
        layer(batch, kernel_size=kernel_size), expected, rtol=1e-4, atol=1e-4
    )


def test_fresh_transforms_take_the_center(rng):
    layer = layers.ElasticDepthwiseConv2D((7, 3, 5))
    layer.build((None, None, None, 4))
    stored = layer.kernel.numpy()
    for kernel_size, margin in ((7, 0), (5, 1), (3, 2)):
        (kernel,) = layer.active_weights(4, kernel_size)
        center = stored[margin : margin + kernel_size, margin : margin + kernel_size]
        np.testing.assert_array_equal(kernel[..., 0], center)


def test_depthwise_of_one_size_has_no_transforms(rng):
    layer = built(layers.ElasticDepthwiseConv2D((5,), 2), 6, rng)
    assert len(layer.weights) == 1
    batch = images(rng, 2, 8, 8, 6)
    expected = convolve_depthwise(batch, layer.kernel.numpy(), 2)
    np.testing.assert_allclose(layer(batch), expected, **CLOSE)


@pytest.mark.parametrize("make", [layers.ElasticConv2D, layers.ElasticDepthwiseConv2D])
def test_even_kernels_are_refused(make):
    with pytest.raises(ValueError, match=r"odd.*got 4"):
        make(4, 4) if make is layers.ElasticConv2D else make((3, 4))


@pytest.mark.parametrize(("channels", "se"), [(6, 8), (4, 3)])
def test_squeeze_excite(rng, channels, se):
    layer = built(layers.ElasticSqueezeExcite(8), 6, rng)
    layer.expand.bias.assign([-5, 5, 0, 1, -1, 0.5])  # closed, open and in between
    batch = images(rng, 3, 5, 4, channels)
    expected = squeeze_excite(
        batch,
        layer.reduce.kernel.numpy()[0, 0, :channels, :se],
        layer.reduce.bias.numpy()[:se],
        layer.expand.kernel.numpy()[0, 0, :se, :channels],
        layer.expand.bias.numpy()[:channels],
    )
    np.testing.assert_allclose(layer(batch, se_channels=se), expected, **CLOSE)
    assert np.ptp(expected[..., 0]) == pytest.approx(0, abs=0.1)  # closed


def test_hard_swish_and_its_gradient():
    inputs = tf.constant([-5, -3.01, -2.9, -1.5, 0, 1, 2.9, 3.01, 5])
    upstream = tf.range(1.0, 10)

    def value_and_gradient(activation):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = activation(inputs)
        return outputs, tape.gradient(outputs, inputs, output_gradients=upstream)

    expected = value_and_gradient(keras.activations.hard_silu)
    for run in (hard_swish, tf.function(hard_swish)):
        for ours, theirs in zip(value_and_gradient(run), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_dense(rng):
    layer = layers.ElasticDense(5)
    layer.build((None, 7))
    draw(layer, rng)
    batch = images(rng, 3, 4)
    expected = batch @ layer.kernel.numpy()[:4] + layer.bias.numpy()
    np.testing.assert_allclose(layer(batch), expected, **CLOSE)


@pytest.fixture
def classifier(rng):
    layer = layers.ClassifierBlock(Classifier("classifier", 400, 3, 0.5))
    layer.build((None, 1, 1, 400))
    draw(layer, rng)
    return layer


def test_classifier_drops_in_training_only(rng, classifier):
    keras.utils.set_random_seed(0)
    batch = images(rng, 2, 1, 1, 400)
    kernel, bias = classifier.dense.kernel.numpy(), classifier.dense.bias.numpy()
    whole = batch[:, 0, 0] @ kernel + bias
    np.testing.assert_allclose(classifier(batch), whole, rtol=1e-3, atol=1e-4)
    first, second = classifier(batch, training=True), classifier(batch, training=True)
    assert np.abs(first - second).min() > 1e-3


def test_dropout_from_a_seed(rng, classifier):
    batch = images(rng, 2, 1, 1, 400)
    drop = {"training": True, "dropout_seed": tf.constant([1, 2], tf.int64)}
    first, again = classifier(batch, **drop), tf.function(classifier)(batch, **drop)
    np.testing.assert_allclose(again, first, rtol=1e-5)
    other = classifier(batch, training=True, dropout_seed=tf.constant([1, 3], tf.int64))
    assert np.abs(first - other).min() > 1e-3
    assert [weight.name for weight in classifier.variables] == ["kernel", "bias"]


@pytest.mark.parametrize("scale", [0.0, tf.constant(0.0)])
def test_dropout_scaled_to_nothing_is_exactly_the_input(rng, classifier, scale):
    batch = images(rng, 2, 1, 1, 400)
    np.testing.assert_array_equal(
        classifier(batch, training=True, dropout_scale=scale), classifier(batch)
    )


@pytest.mark.parametrize(("scale", "kept"), [(1.0, 0.5), (tf.constant(0.5), 0.75)])
def test_dropout_keeps_the_mean(rng, scale, kept):
    layer = layers.ClassifierBlock(Classifier("classifier", 5000, 5000, 0.5))
    layer.build((None, 1, 1, 5000))
    layer.dense.kernel.assign(np.eye(5000, dtype=np.float32))
    outputs = layer(np.ones((1, 1, 1, 5000), np.float32), training=True, dropout_scale=scale)
    values, counts = np.unique(outputs, return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / kept], rtol=1e-6)
    assert counts[1] / 5000 == pytest.approx(kept, abs=0.05)
