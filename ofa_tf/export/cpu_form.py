"""The CPU form: the same function in operations that XNNPACK runs fast.

Some operations of the plain network are slow there, or fall out of the delegate:

- A depthwise convolution of more than 25 taps has no kernel of its own and runs as a grouped
  convolution. Here it is a sum of convolutions with bands of the kernel's rows. Rows and columns
  that meet padding only, on the smallest feature maps, are left out.
- HARD_SWISH is not taken in int8 and breaks the network into many pieces. Here it is
  x * relu6(x + 3), six times as large, and hard-sigmoid is relu6(x + 3), whose 3 is in the bias
  before it. The kernels that read such activations are divided by the factor: nothing is
  computed for it.
- AVERAGE_POOL_2D is not taken in int8. Here it is a depthwise convolution, where all its windows
  are whole.
- Operations on three channels are slow. Here pixels are normalized in rows of all their channels.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from ofa_tf.errors import UsageError
from ofa_tf.models.subnet import SubnetBuilder, Weights
from ofa_tf.spaces import Blueprint, blueprint

# The most taps that XNNPACK's depthwise kernels have, on all its architectures.
MAX_TAPS = 25

# How many times too large an activation is as a product.
FACTORS = {"hard_swish": 6.0, "hard_sigmoid": 6.0}


class BandedBuilder(SubnetBuilder):
    """Writes large depthwise convolutions as sums, with their batch norm folded in."""

    def adapted(self, weights):
        adapted = dict(super().adapted(weights))
        for block in self.plan.blocks:
            if isinstance(block, blueprint.InvertedResidual):
                adapted |= _depthwise_weights(weights, block, self.plan.bn_epsilon)
        return adapted

    def normalize(self, inputs, mean, std):
        _, height, width, channels = inputs.shape
        rows = self.layers.Reshape((height, width * channels), name="rows")(inputs)
        rows = super().normalize(rows, np.tile(mean, width), np.tile(std, width))
        return self.layers.Reshape((height, width, channels), name="pixels")(rows)

    def depthwise(self, block, inputs):
        kernel = block.needed_kernel_size
        if kernel**2 <= MAX_TAPS:
            return super().depthwise(dataclasses.replace(block, kernel_size=kernel), inputs)
        layers, name = self.layers, f"{block.name}_depthwise_conv"
        padded = layers.ZeroPadding2D(kernel // 2, name=f"{block.name}_pad")(inputs)
        outputs = None
        for number, (start, end) in enumerate(bands(kernel)):
            rows = layers.Cropping2D(((start, kernel - end), (0, 0)), name=f"{name}_rows_{number}")(
                padded
            )
            band = layers.DepthwiseConv2D(
                (end - start, kernel), block.stride, use_bias=number == 0, name=f"{name}_{number}"
            )(rows)
            outputs = (
                band if number == 0 else layers.Add(name=f"{name}_sum_{number}")([outputs, band])
            )
        return outputs


class ProductBuilder(BandedBuilder):
    """Writes hard-swish as a product too, and means as convolutions, for integers."""

    def adapted(self, weights):
        return super().adapted(_divided_by_factors(weights, self.plan))

    def activation(self, kind, inputs, name):
        if kind == "hard_sigmoid":
            return self.gate(inputs, name)
        if kind != "hard_swish":
            return super().activation(kind, inputs, name)
        shifted = self.layers.Rescaling(1.0, 3.0, name=f"{name}_shift")(inputs)
        gate = self.gate(shifted, f"{name}_gate")
        return self.layers.Multiply(name=name)([inputs, gate])

    def average_pool(self, block, inputs):
        if block.in_size % block.stride:
            return super().average_pool(block, inputs)
        return self.layers.DepthwiseConv2D(
            block.stride, block.stride, use_bias=False, name=f"{block.name}_shortcut_pool"
        )(inputs)

    def gate(self, inputs, name: str):
        """relu6."""
        return self.layers.Activation("relu6", name=name)(inputs)


class Int8Builder(ProductBuilder):
    """Writes the products with gates that are quantized to 8 bits from 0 to 6."""

    def gate(self, inputs, name):
        return _Gate(name=name, dtype="float32")(inputs)


class _Gate(keras.layers.Layer):
    """relu6 with its range in the graph.

    The converter's calibration must not measure it: the runtime may write the product in the
    gate's place before the calibration looks, and the gate would get the product's range.
    """

    def call(self, inputs):
        return tf.quantization.fake_quant_with_min_max_args(tf.nn.relu6(inputs), 0.0, 6.0)


def bands(kernel_size: int) -> list[tuple[int, int]]:
    """Rows of a square kernel, from and to, in bands of no more than MAX_TAPS taps."""
    rows = MAX_TAPS // kernel_size
    return [(start, min(start + rows, kernel_size)) for start in range(0, kernel_size, rows)]


def _depthwise_weights(
    weights: Weights, block: blueprint.InvertedResidual, bn_epsilon: float
) -> Weights:
    """A block's depthwise kernel cut to what is needed, or its bands, batch norm folded in."""
    name = f"{block.name}_depthwise_conv"
    (kernel,), needed = weights[name], block.needed_kernel_size
    cut = (block.kernel_size - needed) // 2
    kernel = kernel[cut : cut + needed, cut : cut + needed]
    if needed**2 <= MAX_TAPS:
        return {name: [kernel]}
    gamma, beta, mean, variance = weights[f"{block.name}_depthwise_bn"]
    scale = gamma / np.sqrt(variance + bn_epsilon)
    kernel, bias = kernel * scale[:, None], beta - mean * scale
    return {
        f"{name}_{number}": [kernel[start:end], *([bias] if number == 0 else [])]
        for number, (start, end) in enumerate(bands(needed))
    }


def _divided_by_factors(weights: Weights, plan: Blueprint) -> Weights:
    """Weights that read activations that are too large, and make the sums of blocks as large.

    Raises UsageError for a block, of no built-in space, whose sum would mix two sizes.
    """
    weights, factor = dict(weights), 1.0  # of what enters the block
    for block in plan.blocks:
        if isinstance(block, blueprint.InvertedResidual):
            factor = _divide_inverted_residual(weights, block, factor)
        elif isinstance(block, blueprint.Bottleneck):
            if factor != 1 or block.activation in FACTORS:
                raise _unfit(block)
            shape = (block.stride, block.stride, block.in_channels, 1)
            weights[f"{block.name}_shortcut_pool"] = [np.full(shape, 1 / block.stride**2)]
        elif isinstance(block, blueprint.Conv):
            _divide(weights, f"{block.name}_conv", factor)
            entering, factor = factor, FACTORS.get(block.activation, 1.0)
            if block.shortcut and entering != factor:
                raise _unfit(block)
        elif isinstance(block, blueprint.Classifier):
            _divide(weights, f"{block.name}_dense", factor)
            factor = 1.0
    return weights


def _unfit(block: blueprint.Block) -> UsageError:
    return UsageError(
        f"The integer files of the cpu form have no way to write {block.name}: what it adds or "
        f"reads is a hard-swish, which is six times too large in them. Use the plain form "
        f"(--form=plain)."
    )


def _divide_inverted_residual(
    weights: Weights, block: blueprint.InvertedResidual, factor: float
) -> float:
    name, inner = block.name, FACTORS.get(block.activation, 1.0)
    if block.expand:
        _divide(weights, f"{name}_expand_conv", factor)
    _divide(weights, f"{name}_depthwise_conv", inner if block.expand else factor)
    if block.se_channels:
        _divide(weights, f"{name}_se_reduce", inner)
        kernel, bias = weights[f"{name}_se_expand"]
        weights[f"{name}_se_expand"] = [kernel, bias + 3]
        inner *= FACTORS["hard_sigmoid"]
    _divide(weights, f"{name}_project_conv", inner)
    if not block.shortcut:
        return 1.0
    # What is added to the input must be as large as the input.
    gamma, beta, *statistics = weights[f"{name}_project_bn"]
    weights[f"{name}_project_bn"] = [gamma * factor, beta * factor, *statistics]
    return factor


def _divide(weights: Weights, layer: str, factor: float) -> None:
    kernel, *others = weights[layer]
    weights[layer] = [kernel / np.float32(factor), *others]
