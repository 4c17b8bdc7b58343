"""Convolution, depthwise convolution with kernel transforms, squeeze-excite, dense: in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from layers_helpers import (
    convolve,
    convolve_depthwise,
    draw,
    images,
    squeeze_excite,
    transformed_kernel,
)

from ofa_tf import layers
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


def test_dense(rng):
    layer = layers.ElasticDense(5)
    layer.build((None, 7))
    draw(layer, rng)
    batch = images(rng, 3, 4)
    expected = batch @ layer.kernel.numpy()[:4] + layer.bias.numpy()
    np.testing.assert_allclose(layer(batch), expected, **CLOSE)


def test_classifier_drops_in_training_only(rng):
    keras.utils.set_random_seed(0)
    layer = layers.ClassifierBlock(Classifier("classifier", 400, 3, 0.5))
    layer.build((None, 1, 1, 400))
    draw(layer, rng)
    batch = images(rng, 2, 1, 1, 400)
    kernel, bias = layer.dense.kernel.numpy(), layer.dense.bias.numpy()
    np.testing.assert_allclose(layer(batch), batch[:, 0, 0] @ kernel + bias, rtol=1e-3, atol=1e-4)
    first, second = layer(batch, training=True), layer(batch, training=True)
    assert np.abs(first - second).min() > 1e-3
