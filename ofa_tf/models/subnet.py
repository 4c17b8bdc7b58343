"""The plain Keras network of a Blueprint: built-in layers only, nothing of ofa_tf inside."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from ofa_tf.spaces import Blueprint, blueprint

_ACTIVATIONS = {"relu": "relu", "hard_swish": "hard_silu"}


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
    outputs = _padded(inputs, block)
    outputs = layers.Conv2D(
        block.out_channels,
        block.kernel_size,
        block.stride,
        padding=_padding(block),
        use_bias=False,
        name=f"{block.name}_conv",
    )(outputs)
    if block.batch_norm:
        outputs = _batch_norm(block, "bn", plan)(outputs)
    return _activation(block, "act")(outputs)


def _inverted_residual(block: blueprint.InvertedResidual, plan: Blueprint, inputs):
    outputs = inputs
    if block.expand:
        outputs = _pointwise(block, "expand_conv", block.mid_channels)(outputs)
        outputs = _batch_norm(block, "expand_bn", plan)(outputs)
        outputs = _activation(block, "expand_act")(outputs)
    outputs = layers.DepthwiseConv2D(
        block.kernel_size,
        block.stride,
        padding=_padding(block),
        use_bias=False,
        name=f"{block.name}_depthwise_conv",
    )(_padded(outputs, block))
    outputs = _batch_norm(block, "depthwise_bn", plan)(outputs)
    outputs = _activation(block, "depthwise_act")(outputs)
    if block.se_channels:
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{block.name}_se_mean")(outputs)
        gate = _pointwise(block, "se_reduce", block.se_channels, "relu")(gate)
        gate = _pointwise(block, "se_expand", block.mid_channels, "hard_sigmoid")(gate)
        outputs = layers.Multiply(name=f"{block.name}_se_scale")([outputs, gate])
    outputs = _pointwise(block, "project_conv", block.out_channels)(outputs)
    outputs = _batch_norm(block, "project_bn", plan)(outputs)
    if block.shortcut:
        outputs = layers.Add(name=f"{block.name}_add")([outputs, inputs])
    return outputs


def _global_pool(block: blueprint.GlobalPool, plan: Blueprint, inputs):
    return layers.GlobalAveragePooling2D(keepdims=True, name=block.name)(inputs)


def _classifier(block: blueprint.Classifier, plan: Blueprint, inputs):
    outputs = layers.Flatten(name=f"{block.name}_flatten")(inputs)
    outputs = layers.Dropout(block.dropout, name=f"{block.name}_dropout")(outputs)
    return layers.Dense(block.out_channels, name=f"{block.name}_dense")(outputs)


_BUILDERS = {
    blueprint.Conv: _conv,
    blueprint.InvertedResidual: _inverted_residual,
    blueprint.GlobalPool: _global_pool,
    blueprint.Classifier: _classifier,
}


def _padded(inputs, block):
    """Padding of k // 2 on each side where Keras's "same" would pad less in front."""
    pad = block.kernel_size // 2
    if block.stride == 1 or pad == 0:
        return inputs
    return layers.ZeroPadding2D(pad, name=f"{block.name}_pad")(inputs)


def _padding(block) -> str:
    return "same" if block.stride == 1 else "valid"


def _pointwise(block, suffix: str, filters: int, activation: str | None = None):
    """A 1x1 convolution; the activated ones (squeeze-excite) have a bias, not a batch norm."""
    return layers.Conv2D(
        filters,
        1,
        activation=activation,
        use_bias=activation is not None,
        name=f"{block.name}_{suffix}",
    )


def _batch_norm(block, suffix: str, plan: Blueprint):
    return layers.BatchNormalization(
        momentum=plan.bn_momentum, epsilon=plan.bn_epsilon, name=f"{block.name}_{suffix}"
    )


def _activation(block, suffix: str):
    return layers.Activation(_ACTIVATIONS[block.activation], name=f"{block.name}_{suffix}")
