"""The depthwise convolution with a gradient of its own, against TensorFlow's autodiff."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from layers_helpers import images

from ofa_tf.layers import depthwise
from ofa_tf.layers.depthwise import depthwise_conv2d

SHAPES = [(2, 9, 9, 5), (3, 8, 8, 4), (2, 5, 8, 3), (1, 4, 3, 2), (2, 1, 1, 3)]
CASES = list(itertools.product((3, 5, 7), (1, 2), SHAPES))


def reference(inputs, kernel, stride, size):
    """TensorFlow's own, on padded images; its gradients are autodiff's."""
    pad = size // 2
    padded = tf.pad(inputs, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    return tf.nn.depthwise_conv2d(padded, kernel, [1, stride, stride, 1], "VALID")


def values_and_gradients(convolve, inputs, kernel, upstream):
    with tf.GradientTape() as tape:
        inputs, kernel = tf.constant(inputs), tf.constant(kernel)
        tape.watch([inputs, kernel])
        outputs = convolve(inputs, kernel)
    return [outputs, *tape.gradient(outputs, [inputs, kernel], output_gradients=upstream)]


def check(convolve, stride, size, shape):
    rng = np.random.default_rng(0)
    inputs, kernel = images(rng, *shape), images(rng, size, size, shape[-1], 1)
    upstream = images(rng, shape[0], -(-shape[1] // stride), -(-shape[2] // stride), shape[-1])
    actual = values_and_gradients(convolve, inputs, kernel, upstream)
    expected = values_and_gradients(
        lambda inputs, kernel: reference(inputs, kernel, stride, size), inputs, kernel, upstream
    )
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=["cpu", "gpu"])
def form(request, monkeypatch):
    """The gradient as each kind of device computes it; both forms run on a CPU."""
    monkeypatch.setattr(depthwise, "on_gpu", lambda: request.param == "gpu")


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("size", "stride", "shape"), CASES)
def test_static_kernel(size, stride, shape):
    check(lambda x, kernel: depthwise_conv2d(x, kernel, stride, size), stride, size, shape)


# In double precision TensorFlow has no oneDNN kernels, as on devices that are no CPU.
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
@pytest.mark.parametrize("stride", [1, 2])
def test_kernel_size_as_a_tensor_in_one_trace(stride, dtype, tolerance):
    traces = 0

    @tf.function(
        input_signature=[
            *[tf.TensorSpec([None] * 4, dtype)] * 3,
            tf.TensorSpec([], tf.int32),
        ]
    )
    def run(inputs, kernel, upstream, size):
        nonlocal traces
        traces += 1
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            outputs = depthwise_conv2d(inputs, kernel, stride, size)
        return [outputs, *tape.gradient(outputs, [inputs, kernel], output_gradients=upstream)]

    rng = np.random.default_rng(0)
    for size, shape in itertools.product((3, 5, 7), SHAPES):
        out_shape = (shape[0], -(-shape[1] // stride), -(-shape[2] // stride), shape[-1])
        inputs, kernel, upstream = (
            images(rng, *each).astype(dtype)
            for each in (shape, (size, size, shape[-1], 1), out_shape)
        )
        expected = values_and_gradients(
            lambda x, k, size=size: reference(x, k, stride, size), inputs, kernel, upstream
        )
        for ours, theirs in zip(run(inputs, kernel, upstream, size), expected, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    assert traces == 1


def test_gradients_in_double_precision():
    """Against finite differences, which need more digits than float32 has."""
    rng = np.random.default_rng(0)
    inputs, kernel = rng.normal(size=(1, 5, 4, 2)), rng.normal(size=(5, 5, 2, 1))
    for size in (5, tf.constant(5)):
        theory, numeric = tf.test.compute_gradient(
            tf.function(lambda x, k, size=size: depthwise_conv2d(x, k, 2, size)), [inputs, kernel]
        )
        for ours, theirs in zip(theory, numeric, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
