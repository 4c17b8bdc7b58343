"""The plain Keras network of a Blueprint: built-in layers only, nothing of ofa_tf inside."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.spaces import Blueprint, blueprint

HEADS = ("logits", "softmax", "features")

# What a network's layers hold, by their names.
Weights = dict[str, list[np.ndarray]]

_ACTIVATIONS = {"relu6": "relu6", "swish": "silu", "hard_swish": "hard_silu"}


def build_subnet(
    plan: Blueprint,
    *,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    batch_size: int | None = None,
    input_dtype: str = "float32",
    head: str = "logits",
    name: str = "subnet",
    builder: type[SubnetBuilder] | None = None,
) -> keras.Model:
    """Builds a functional `keras.Model` from a Blueprint, with fresh weights.

    Args:
        plan: the network. A plan whose blocks are cut short gives that part of the network.
        normalization: mean and standard deviation per input channel, with which a first layer
            normalizes the images; None where the images come normalized.
        batch_size: a fixed batch, as TFLite files have it; None for any.
        input_dtype: of the images, "float32" or "uint8"; the latter needs the normalization.
        head: "logits"; "softmax" for probabilities; "features" for a backbone: no classifier, but
            the last feature map of each stride in `Blueprint.feature_blocks`, by "stride_4" etc.
        name: of the subnet, any text; the model gets its `scope_name`.
        builder: writes the blocks; `SubnetBuilder` by default.

    Returns: a model from images (batch, resolution, resolution, channels) to float32 (batch,
        classes), or to a dict of feature maps.

    Raises:
        UsageError: an unknown head, raw images without their normalization, or a network without
            such feature maps.
    """
    if head not in HEADS:
        raise UsageError(f"head is one of {', '.join(HEADS)}, not {head!r}.")
    if input_dtype == "uint8" and not normalization:
        raise UsageError("A model of uint8 images needs their normalization.")
    if head == "features" and not plan.feature_blocks:
        raise UsageError("The network has no feature map at a stride of 4, 8, 16 or 32.")
    made = (builder or SubnetBuilder)(plan)
    first = plan.blocks[0]
    shape = (first.in_size, first.in_size, first.in_channels)
    inputs = made.library.Input(shape, batch_size=batch_size, dtype=input_dtype, name="image")
    outputs = made.normalize(inputs, *normalization) if normalization else inputs
    if head == "features":
        outputs = made.features(outputs)
    else:
        for block in plan.blocks:
            outputs = made.add(block, outputs)
    if head == "softmax":
        outputs = made.layers.Softmax(name="softmax")(outputs)
    return made.library.Model(inputs, outputs, name=scope_name(name))


def scope_name(name: str) -> str:
    """What a model is called whose subnet has this name.

    Keras makes a scope of TensorFlow's of it. Other characters than ASCII letters, digits and
    _.- become _, and the first one is a letter or a digit.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return plain if plain[:1].isalnum() else f"subnet{plain}"


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Gives each layer of a network the weights of the other's layer of the same name."""
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())


def rewrite(
    model: keras.Model, plan: Blueprint, builder: type[SubnetBuilder], **options
) -> keras.Model:
    """The same network as another builder writes it, or with another input or head.

    Args:
        model: what `build_subnet(plan)` built.
        plan: its Blueprint.
        builder: writes the blocks anew.
        **options: of `build_subnet`.

    Returns: a model of the builder's library that computes what the given one computes.

    Raises:
        UsageError: as `build_subnet`, or the builder does not write such a network.
    """
    written = build_subnet(plan, builder=builder, **options)
    plain = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    weights = builder(plan).adapted(plain)
    for layer in written.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])
    return written


class _PlainLayers:
    """Makes layers of float32 and with channels last, instead of what Keras's settings say.

    Args:
        module: `layers` of a version of Keras.
    """

    def __init__(self, module: Any):
        self._module = module

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        layer = getattr(self._module, kind)
        settings = {"dtype": "float32", "data_format": "channels_last"}
        if "data_format" not in inspect.signature(layer.__init__).parameters:
            del settings["data_format"]
        return functools.partial(layer, **settings)


class SubnetBuilder:
    """Adds the blocks of a Blueprint to a network, as the plain layers that they name.

    Subclasses write some of it in another way, or in another version of Keras.

    Args:
        plan: the network.

    Attributes:
        library: where `layers`, `Input` and `Model` come from.
        layers: its layers, whatever keras.json or a global policy says.
    """

    library = keras

    def __init__(self, plan: Blueprint):
        self.plan = plan
        self.layers = _PlainLayers(self.library.layers)

    def adapted(self, weights: Weights) -> Weights:
        """The weights of the plain network as the layers of this builder hold them."""
        return weights

    def normalize(self, inputs, mean: Sequence[float], std: Sequence[float]):
        """Pixels with their means and standard deviations taken out, by channel."""
        mean, std = (np.asarray(values, np.float32) for values in (mean, std))
        # For images with channels first, which the layer takes ours for where Keras's settings say
        # so, it would move the axis of a scale that has less than three.
        scale, offset = ([[values.tolist()]] for values in (1 / std, -mean / std))
        return self.layers.Rescaling(scale, offset, name="normalize")(inputs)

    def features(self, inputs) -> dict:
        """The last feature map of each stride, by name; what comes after them is not built."""
        strides = {block.name: stride for stride, block in self.plan.feature_blocks.items()}
        found, outputs = {}, inputs
        for block in self.plan.backbone.blocks:
            outputs = self.add(block, outputs)
            if block.name in strides:
                found[f"stride_{strides[block.name]}"] = outputs
        return found

    def add(self, block: blueprint.Block, inputs):
        """The outputs of a block."""
        return _BLOCKS[type(block)](self, block, inputs)

    def activation(self, kind: str, inputs, name: str):
        """An activation of a Blueprint, or "hard_sigmoid", as a layer of that name."""
        return self.layers.Activation(_ACTIVATIONS.get(kind, kind), name=name)(inputs)

    def conv(self, block: blueprint.Conv, inputs):
        outputs = self._conv2d(
            block, "conv", inputs, block.out_channels, block.kernel_size, block.stride
        )
        if block.batch_norm:
            outputs = self._batch_norm(block, "bn", outputs)
        outputs = self._activation(block, "act", outputs)
        if block.shortcut:
            outputs = self.layers.Add(name=f"{block.name}_add")([outputs, inputs])
        return outputs

    def inverted_residual(self, block: blueprint.InvertedResidual, inputs):
        outputs = inputs
        if block.expand:
            outputs = self._conv2d(block, "expand_conv", outputs, block.mid_channels)
            outputs = self._batch_norm(block, "expand_bn", outputs)
            outputs = self._activation(block, "expand_act", outputs)
        outputs = self.depthwise(block, outputs)
        outputs = self._activation(block, "depthwise_act", outputs)
        if block.se_channels:
            outputs = self._squeeze_excite(block, outputs)
        outputs = self._conv2d(block, "project_conv", outputs, block.out_channels)
        outputs = self._batch_norm(block, "project_bn", outputs)
        if block.shortcut:
            outputs = self.layers.Add(name=f"{block.name}_add")([outputs, inputs])
        return outputs

    def depthwise(self, block: blueprint.InvertedResidual, inputs):
        """The depthwise convolution and its batch norm."""
        outputs = self.layers.DepthwiseConv2D(
            block.kernel_size,
            block.stride,
            padding=_padding(block.stride),
            use_bias=False,
            name=f"{block.name}_depthwise_conv",
        )(self._padded(block, inputs, block.kernel_size, block.stride))
        return self._batch_norm(block, "depthwise_bn", outputs)

    def _squeeze_excite(self, block: blueprint.InvertedResidual, inputs):
        layers, name = self.layers, block.name
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_se_mean")(inputs)
        gate = layers.Conv2D(block.se_channels, 1, name=f"{name}_se_reduce")(gate)
        gate = self.activation("relu", gate, f"{name}_se_reduce_act")
        gate = layers.Conv2D(block.mid_channels, 1, name=f"{name}_se_expand")(gate)
        gate = self.activation("hard_sigmoid", gate, f"{name}_se_expand_act")
        return layers.Multiply(name=f"{name}_se_scale")([inputs, gate])

    def bottleneck(self, block: blueprint.Bottleneck, inputs):
        outputs = self._conv2d(block, "reduce_conv", inputs, block.mid_channels)
        outputs = self._batch_norm(block, "reduce_bn", outputs)
        outputs = self._activation(block, "reduce_act", outputs)
        outputs = self._conv2d(
            block, "spatial_conv", outputs, block.mid_channels, block.kernel_size, block.stride
        )
        outputs = self._batch_norm(block, "spatial_bn", outputs)
        outputs = self._activation(block, "spatial_act", outputs)
        outputs = self._conv2d(block, "widen_conv", outputs, block.out_channels)
        outputs = self._batch_norm(block, "widen_bn", outputs)
        shortcut = inputs
        if block.shortcut == "avg_pool_conv" and block.stride > 1:
            shortcut = self.average_pool(block, inputs)
        if block.shortcut != "identity":
            stride = block.stride if block.shortcut == "conv" else 1
            shortcut = self._conv2d(block, "shortcut_conv", shortcut, block.out_channels, 1, stride)
            shortcut = self._batch_norm(block, "shortcut_bn", shortcut)
        outputs = self.layers.Add(name=f"{block.name}_add")([outputs, shortcut])
        return self._activation(block, "act", outputs)

    def average_pool(self, block: blueprint.Bottleneck, inputs):
        """The means that a shortcut takes over its stride."""
        return self.layers.AveragePooling2D(
            block.stride, padding="same", name=f"{block.name}_shortcut_pool"
        )(inputs)

    def max_pool(self, block: blueprint.MaxPool, inputs):
        # Zeros at the border are never larger than what a ReLU gives.
        padded = self._padded(block, inputs, block.kernel_size, block.stride)
        return self.layers.MaxPooling2D(
            block.kernel_size, block.stride, padding=_padding(block.stride), name=block.name
        )(padded)

    def global_pool(self, block: blueprint.GlobalPool, inputs):
        return self.layers.GlobalAveragePooling2D(keepdims=True, name=block.name)(inputs)

    def classifier(self, block: blueprint.Classifier, inputs):
        layers, name = self.layers, block.name
        outputs = layers.Flatten(name=f"{name}_flatten")(inputs)
        outputs = layers.Dropout(block.dropout, name=f"{name}_dropout")(outputs)
        return layers.Dense(block.out_channels, name=f"{name}_dense")(outputs)

    def _conv2d(
        self, block, suffix: str, inputs, filters: int, kernel_size: int = 1, stride: int = 1
    ):
        """A convolution without bias, padded by k // 2 on each side."""
        return self.layers.Conv2D(
            filters,
            kernel_size,
            stride,
            padding=_padding(stride),
            use_bias=False,
            name=f"{block.name}_{suffix}",
        )(self._padded(block, inputs, kernel_size, stride))

    def _padded(self, block, inputs, kernel_size: int, stride: int):
        """Padding of k // 2 on each side where Keras's "same" would pad less in front."""
        pad = kernel_size // 2
        if stride == 1 or pad == 0:
            return inputs
        return self.layers.ZeroPadding2D(pad, name=f"{block.name}_pad")(inputs)

    def _batch_norm(self, block, suffix: str, inputs):
        plan = self.plan
        return self.layers.BatchNormalization(
            momentum=plan.bn_momentum, epsilon=plan.bn_epsilon, name=f"{block.name}_{suffix}"
        )(inputs)

    def _activation(self, block, suffix: str, inputs):
        return self.activation(block.activation, inputs, f"{block.name}_{suffix}")


_BLOCKS = {
    blueprint.Conv: SubnetBuilder.conv,
    blueprint.InvertedResidual: SubnetBuilder.inverted_residual,
    blueprint.Bottleneck: SubnetBuilder.bottleneck,
    blueprint.MaxPool: SubnetBuilder.max_pool,
    blueprint.GlobalPool: SubnetBuilder.global_pool,
    blueprint.Classifier: SubnetBuilder.classifier,
}


def _padding(stride: int) -> str:
    return "same" if stride == 1 else "valid"
