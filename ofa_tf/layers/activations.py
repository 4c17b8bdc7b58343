"""Activations of the mobile families, in few passes over memory and few graph nodes."""

from __future__ import annotations

import tensorflow as tf


def hard_sigmoid(inputs: tf.Tensor) -> tf.Tensor:
    """relu6(x + 3) / 6 (arXiv 1905.02244)."""
    return tf.nn.relu6(inputs + 3) * (1 / 6)


@tf.custom_gradient
def hard_swish(inputs: tf.Tensor) -> tf.Tensor:
    """x * relu6(x + 3) / 6 (arXiv 1905.02244).

    Where the gate, relu6(x + 3) / 6, is neither 0 nor 1, x is 6 * gate - 3. So the gradient is a
    function of the gate, and only one tensor has to be kept for it; autodiff keeps three.
    """
    six_gates = tf.nn.relu6(inputs + 3)

    def gradient(upstream):
        gate = six_gates * (1 / 6)
        slope = gate + tf.raw_ops.Relu6Grad(gradients=gate - 0.5, features=six_gates)
        return upstream * slope

    return inputs * six_gates * (1 / 6), gradient
