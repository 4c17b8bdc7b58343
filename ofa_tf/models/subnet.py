"""The plain Keras network of a Blueprint: built-in layers only, nothing of ofa_tf inside."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from ofa_tf.spaces import Blueprint, blueprint

_ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "hard_swish": "hard_silu"}


def build_subnet(
    plan: Blueprint,
    *,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    batch_size: int | None = None,
    name: str = "subnet",
) -> keras.Model:
    """Builds a functional `keras.Model` from a Blueprint, with fresh weights.

    Args:
        plan: the network. A plan whose blocks are cut short gives that part of the network.
        normalization: mean and standard deviation per input channel, with which a first layer
            normalizes the images; None where the images come normalized.
        batch_size: a fixed batch, as TFLite files have it; None for any.
        name: the model's name.

    Returns: a model from float32 images (batch, resolution, resolution, channels) to logits
        (batch, classes).
    """
    first = plan.blocks[0]
    shape = (first.in_size, first.in_size, first.in_channels)
    inputs = outputs = keras.Input(shape, batch_size=batch_size, name="image")
    if normalization:
        mean, std = (np.asarray(values, np.float32) for values in normalization)
        outputs = layers.Rescaling((1 / std).tolist(), (-mean / std).tolist(), name="normalize")(
            outputs
        )
    for block in plan.blocks:
        outputs = _BUILDERS[type(block)](block, plan, outputs)
    return keras.Model(inputs, outputs, name=name)


def _conv(block: blueprint.Conv, plan: Blueprint, inputs):
    outputs = _conv2d(block, "conv", block.out_channels, block.kernel_size, block.stride)(inputs)
    if block.batch_norm:
        outputs = _batch_norm(block, "bn", plan)(outputs)
    outputs = _activation(block, "act")(outputs)
    if block.shortcut:
        outputs = layers.Add(name=f"{block.name}_add")([outputs, inputs])
    return outputs


def _inverted_residual(block: blueprint.InvertedResidual, plan: Blueprint, inputs):
    outputs = inputs
    if block.expand:
        outputs = _conv2d(block, "expand_conv", block.mid_channels)(outputs)
        outputs = _batch_norm(block, "expand_bn", plan)(outputs)
        outputs = _activation(block, "expand_act")(outputs)
    outputs = layers.DepthwiseConv2D(
        block.kernel_size,
        block.stride,
        padding=_padding(block.stride),
        use_bias=False,
        name=f"{block.name}_depthwise_conv",
    )(_padded(outputs, block, block.kernel_size, block.stride))
    outputs = _batch_norm(block, "depthwise_bn", plan)(outputs)
    outputs = _activation(block, "depthwise_act")(outputs)
    if block.se_channels:
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{block.name}_se_mean")(outputs)
        gate = _activated(block, "se_reduce", block.se_channels, "relu")(gate)
        gate = _activated(block, "se_expand", block.mid_channels, "hard_sigmoid")(gate)
        outputs = layers.Multiply(name=f"{block.name}_se_scale")([outputs, gate])
    outputs = _conv2d(block, "project_conv", block.out_channels)(outputs)
    outputs = _batch_norm(block, "project_bn", plan)(outputs)
    if block.shortcut:
        outputs = layers.Add(name=f"{block.name}_add")([outputs, inputs])
    return outputs


def _bottleneck(block: blueprint.Bottleneck, plan: Blueprint, inputs):
    outputs = _conv2d(block, "reduce_conv", block.mid_channels)(inputs)
    outputs = _batch_norm(block, "reduce_bn", plan)(outputs)
    outputs = _activation(block, "reduce_act")(outputs)
    outputs = _conv2d(block, "spatial_conv", block.mid_channels, block.kernel_size, block.stride)(
        outputs
    )
    outputs = _batch_norm(block, "spatial_bn", plan)(outputs)
    outputs = _activation(block, "spatial_act")(outputs)
    outputs = _conv2d(block, "widen_conv", block.out_channels)(outputs)
    outputs = _batch_norm(block, "widen_bn", plan)(outputs)
    shortcut = inputs
    if block.shortcut == "avg_pool_conv" and block.stride > 1:
        shortcut = layers.AveragePooling2D(
            block.stride, padding="same", name=f"{block.name}_shortcut_pool"
        )(inputs)
    if block.shortcut != "identity":
        stride = block.stride if block.shortcut == "conv" else 1
        shortcut = _conv2d(block, "shortcut_conv", block.out_channels, 1, stride)(shortcut)
        shortcut = _batch_norm(block, "shortcut_bn", plan)(shortcut)
    outputs = layers.Add(name=f"{block.name}_add")([outputs, shortcut])
    return _activation(block, "act")(outputs)


def _max_pool(block: blueprint.MaxPool, plan: Blueprint, inputs):
    # Zeros at the border are never larger than what a ReLU gives.
    padded = _padded(inputs, block, block.kernel_size, block.stride)
    return layers.MaxPooling2D(
        block.kernel_size, block.stride, padding=_padding(block.stride), name=block.name
    )(padded)


def _global_pool(block: blueprint.GlobalPool, plan: Blueprint, inputs):
    return layers.GlobalAveragePooling2D(keepdims=True, name=block.name)(inputs)


def _classifier(block: blueprint.Classifier, plan: Blueprint, inputs):
    outputs = layers.Flatten(name=f"{block.name}_flatten")(inputs)
    outputs = layers.Dropout(block.dropout, name=f"{block.name}_dropout")(outputs)
    return layers.Dense(block.out_channels, name=f"{block.name}_dense")(outputs)


_BUILDERS = {
    blueprint.Conv: _conv,
    blueprint.InvertedResidual: _inverted_residual,
    blueprint.Bottleneck: _bottleneck,
    blueprint.MaxPool: _max_pool,
    blueprint.GlobalPool: _global_pool,
    blueprint.Classifier: _classifier,
}


def _conv2d(block, suffix: str, filters: int, kernel_size: int = 1, stride: int = 1):
    """A convolution without bias, padded by k // 2 on each side."""
    conv = layers.Conv2D(
        filters,
        kernel_size,
        stride,
        padding=_padding(stride),
        use_bias=False,
        name=f"{block.name}_{suffix}",
    )
    return lambda inputs: conv(_padded(inputs, block, kernel_size, stride))


def _padded(inputs, block, kernel_size: int, stride: int):
    """Padding of k // 2 on each side where Keras's "same" would pad less in front."""
    pad = kernel_size // 2
    if stride == 1 or pad == 0:
        return inputs
    return layers.ZeroPadding2D(pad, name=f"{block.name}_pad")(inputs)


def _padding(stride: int) -> str:
    return "same" if stride == 1 else "valid"


def _activated(block, suffix: str, filters: int, activation: str):
    """A 1x1 convolution with a bias and no batch norm, as squeeze-excite has them."""
    return layers.Conv2D(filters, 1, activation=activation, name=f"{block.name}_{suffix}")


def _batch_norm(block, suffix: str, plan: Blueprint):
    return layers.BatchNormalization(
        momentum=plan.bn_momentum, epsilon=plan.bn_epsilon, name=f"{block.name}_{suffix}"
    )


def _activation(block, suffix: str):
    return layers.Activation(_ACTIVATIONS[block.activation], name=f"{block.name}_{suffix}")
