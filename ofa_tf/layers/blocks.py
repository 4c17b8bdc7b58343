"""The blocks of a Blueprint as elastic layers, built to the plan of the largest net.

`active_weights(plan)` of each gives the weights of a subnet's block, by the name of the layer of
the plain Keras network that takes them (models/subnet.py).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ofa_tf.layers.activations import hard_swish
from ofa_tf.layers.elastic import (
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
    ElasticLayer,
    ElasticSqueezeExcite,
    pad_for_stride,
)
from ofa_tf.spaces import blueprint

_ACTIVATIONS = {
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "swish": tf.nn.silu,
    "hard_swish": hard_swish,
}


class ChannelGroup(NamedTuple):
    """Channels between two layers of a block, which can be reordered without a change of function.

    Args:
        size: the field of `Sizes` that says how many of them are active.
        reader: the kernel (k, k, channels, out) that reads them; its L1 norms rank them.
        axes: all variables with such an axis, the reader too, and the axis.
    """

    size: str
    reader: keras.Variable
    axes: tuple[tuple[keras.Variable, int], ...]

    def permute(self, order: np.ndarray) -> None:
        """Puts the channels into another order, a permutation of their indices."""
        for variable, axis in self.axes:
            variable.assign(np.take(variable.numpy(), order, axis))


class _PlannedBlock(ElasticLayer):
    """A layer that is made from one block of the largest net's Blueprint.

    Its call takes `sizes`, what is active: a `Sizes` of ints, or of scalar int32 tensors in a
    graph; the plan's own without it. In the mask form a block that is off has no output channel:
    then it adds zeros to its shortcut, and keeps its moving statistics.

    Args:
        plan: the block, or its fields as a dict (as `get_config` writes them).
        bn_momentum: share of the old moving statistics that an update keeps.
        bn_epsilon: added to the variance in batch norm.
        elastic: "slice" or "mask", see active.py.
    """

    plan_class: type[blueprint.Block]

    def __init__(self, plan, bn_momentum=0.9, bn_epsilon=1e-5, **kwargs):
        self.plan = self.plan_class(**plan) if isinstance(plan, dict) else plan
        # The layers inside cast what they compute with; the shares of a bn_update stay float32.
        super().__init__(name=kwargs.pop("name", self.plan.name), autocast=False, **kwargs)
        self.bn_momentum = bn_momentum
        self.bn_epsilon = bn_epsilon

    def get_config(self):
        return {
            **super().get_config(),
            "plan": dataclasses.asdict(self.plan),
            "bn_momentum": self.bn_momentum,
            "bn_epsilon": self.bn_epsilon,
        }

    @property
    def named_layers(self) -> dict[str, keras.layers.Layer]:
        """The layers with weights, by the names that the plain Keras network has for them."""
        return {}

    @property
    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """The channels inside the block that an arch can make narrower."""
        return ()

    @property
    def last_batch_norm(self) -> ElasticBatchNormalization | None:
        """Of the branch that a shortcut is added to, before any activation; None without."""
        return None

    @property
    def _form(self) -> dict:
        """What all layers of the block are made with."""
        return {"elastic": self.elastic, "dtype": self.dtype_policy}

    def _conv(
        self, in_channels: int, filters: int, name: str, kernel_size: int = 1, strides: int = 1
    ) -> ElasticConv2D:
        layer = ElasticConv2D(filters, kernel_size, strides, name=name, **self._form)
        layer.build((None, None, None, in_channels))
        return layer

    def _batch_norm(self, channels: int, name: str) -> ElasticBatchNormalization:
        layer = ElasticBatchNormalization(
            self.bn_momentum, self.bn_epsilon, name=name, **self._form
        )
        layer.build((None, None, None, channels))
        return layer


class ConvBlock(_PlannedBlock):
    """A `blueprint.Conv`: convolution, batch norm where there is one, activation, shortcut.

    Input: (batch, height, width, in_channels). Output: (batch, height / stride, width / stride,
    out_channels).
    """

    plan_class = blueprint.Conv

    def build(self, input_shape):
        plan = self.plan
        self.conv = self._conv(
            plan.in_channels, plan.out_channels, "conv", plan.kernel_size, plan.stride
        )
        self.bn = self._batch_norm(plan.out_channels, "bn") if plan.batch_norm else None

    def call(self, inputs, sizes=None, training=False, bn_update=None):
        plan = self.plan
        out = (sizes or plan.sizes).out_channels
        outputs = self.conv(inputs, out_channels=out)
        if self.bn is not None:
            outputs = self.bn(outputs, in_channels=out, training=training, bn_update=bn_update)
        outputs = _ACTIVATIONS[plan.activation](outputs)
        return outputs + inputs if plan.shortcut else outputs

    @property
    def named_layers(self):
        return {"conv": self.conv} if self.bn is None else {"conv": self.conv, "bn": self.bn}

    def active_weights(self, plan: blueprint.Conv) -> dict[str, list[tf.Tensor]]:
        weights = {"conv": self.conv.active_weights(plan.in_channels, plan.out_channels)}
        if self.bn is not None:
            weights["bn"] = self.bn.active_weights(plan.out_channels)
        return weights


class InvertedResidualBlock(_PlannedBlock):
    """A `blueprint.InvertedResidual` with elastic kernel, middle width and squeeze-excite.

    Args:
        kernel_sizes: the depthwise kernels that can be active; by default the plan's only.

    Input: (batch, height, width, in_channels). Output: (batch, height / stride, width / stride,
    out_channels).
    """

    plan_class = blueprint.InvertedResidual

    def __init__(self, plan, kernel_sizes=None, **kwargs):
        super().__init__(plan, **kwargs)
        self.kernel_sizes = tuple(kernel_sizes or (self.plan.kernel_size,))

    def build(self, input_shape):
        plan, mid = self.plan, self.plan.mid_channels
        if plan.expand:
            self.expand_conv = self._conv(plan.in_channels, mid, "expand_conv")
            self.expand_bn = self._batch_norm(mid, "expand_bn")
        self.depthwise_conv = ElasticDepthwiseConv2D(
            self.kernel_sizes, plan.stride, name="depthwise_conv", **self._form
        )
        self.depthwise_conv.build((None, None, None, mid))
        self.depthwise_bn = self._batch_norm(mid, "depthwise_bn")
        if plan.se_channels:
            self.squeeze_excite = ElasticSqueezeExcite(
                plan.se_channels, name="squeeze_excite", **self._form
            )
            self.squeeze_excite.build((None, None, None, mid))
        self.project_conv = self._conv(mid, plan.out_channels, "project_conv")
        self.project_bn = self._batch_norm(plan.out_channels, "project_bn")

    def call(self, inputs, sizes=None, training=False, bn_update=None):
        plan = self.plan
        sizes = sizes or plan.sizes
        mid = {"in_channels": sizes.mid_channels}
        bn = {"training": training, "bn_update": bn_update}
        activation = _ACTIVATIONS[plan.activation]
        outputs = inputs
        if plan.expand:
            outputs = self.expand_conv(outputs, out_channels=sizes.mid_channels)
            outputs = activation(self.expand_bn(outputs, **mid, **bn))
        outputs = self.depthwise_conv(outputs, **mid, kernel_size=sizes.kernel_size)
        outputs = activation(self.depthwise_bn(outputs, **mid, **bn))
        if plan.se_channels:
            outputs = self.squeeze_excite(outputs, **mid, se_channels=sizes.se_channels)
        outputs = self.project_conv(outputs, **mid)
        outputs = self.project_bn(outputs, in_channels=sizes.out_channels, **bn)
        return tf.add_n([outputs, inputs]) if plan.shortcut else outputs

    def active_weights(self, plan: blueprint.InvertedResidual) -> dict[str, list[tf.Tensor]]:
        mid = plan.mid_channels
        weights = {}
        if plan.expand:
            weights["expand_conv"] = self.expand_conv.active_weights(plan.in_channels, mid)
            weights["expand_bn"] = self.expand_bn.active_weights(mid)
        weights["depthwise_conv"] = self.depthwise_conv.active_weights(mid, plan.kernel_size)
        weights["depthwise_bn"] = self.depthwise_bn.active_weights(mid)
        if plan.se_channels:
            squeeze_excite, se = self.squeeze_excite, plan.se_channels
            weights["se_reduce"] = squeeze_excite.reduce.active_weights(mid, se)
            weights["se_expand"] = squeeze_excite.expand.active_weights(se, mid)
        weights["project_conv"] = self.project_conv.active_weights(mid, plan.out_channels)
        weights["project_bn"] = self.project_bn.active_weights(plan.out_channels)
        return weights

    @property
    def named_layers(self):
        plan, layers = self.plan, {}
        if plan.expand:
            layers |= {"expand_conv": self.expand_conv, "expand_bn": self.expand_bn}
        layers |= {"depthwise_conv": self.depthwise_conv, "depthwise_bn": self.depthwise_bn}
        if plan.se_channels:
            squeeze_excite = self.squeeze_excite
            layers |= {"se_reduce": squeeze_excite.reduce, "se_expand": squeeze_excite.expand}
        return layers | {"project_conv": self.project_conv, "project_bn": self.project_bn}

    @property
    def last_batch_norm(self):
        return self.project_bn if self.plan.shortcut else None

    @property
    def channel_groups(self):
        axes = [(self.depthwise_conv.kernel, 2), (self.project_conv.kernel, 2)]
        axes += [(weight, 0) for weight in self.depthwise_bn.weights]
        if self.plan.expand:
            axes += [(self.expand_conv.kernel, 3)]
            axes += [(weight, 0) for weight in self.expand_bn.weights]
        groups = []
        if self.plan.se_channels:
            reduce, expand = self.squeeze_excite.reduce, self.squeeze_excite.expand
            axes += [(reduce.kernel, 2), (expand.kernel, 3), (expand.bias, 0)]
            se_axes = ((reduce.kernel, 3), (reduce.bias, 0), (expand.kernel, 2))
            groups.append(ChannelGroup("se_channels", expand.kernel, se_axes))
        return (ChannelGroup("mid_channels", self.project_conv.kernel, tuple(axes)), *groups)

    def get_config(self):
        return {**super().get_config(), "kernel_sizes": self.kernel_sizes}


class BottleneckBlock(_PlannedBlock):
    """A `blueprint.Bottleneck` with elastic input, middle and output widths.

    Input: (batch, height, width, in_channels), or as many as are active. Output: (batch,
    height / stride, width / stride, out_channels), or as many as are active.
    """

    plan_class = blueprint.Bottleneck

    def build(self, input_shape):
        plan, mid, out = self.plan, self.plan.mid_channels, self.plan.out_channels
        self.reduce_conv = self._conv(plan.in_channels, mid, "reduce_conv")
        self.reduce_bn = self._batch_norm(mid, "reduce_bn")
        self.spatial_conv = self._conv(mid, mid, "spatial_conv", plan.kernel_size, plan.stride)
        self.spatial_bn = self._batch_norm(mid, "spatial_bn")
        self.widen_conv = self._conv(mid, out, "widen_conv")
        self.widen_bn = self._batch_norm(out, "widen_bn")
        if plan.shortcut != "identity":
            stride = plan.stride if plan.shortcut == "conv" else 1
            self.shortcut_conv = self._conv(plan.in_channels, out, "shortcut_conv", 1, stride)
            self.shortcut_bn = self._batch_norm(out, "shortcut_bn")

    def call(self, inputs, sizes=None, training=False, bn_update=None):
        sizes = sizes or self.plan.sizes
        mid, out = sizes.mid_channels, sizes.out_channels
        bn = {"training": training, "bn_update": bn_update}
        activation = _ACTIVATIONS[self.plan.activation]
        outputs = self.reduce_conv(inputs, out_channels=mid)
        outputs = activation(self.reduce_bn(outputs, in_channels=mid, **bn))
        outputs = self.spatial_conv(outputs, in_channels=mid, out_channels=mid)
        outputs = activation(self.spatial_bn(outputs, in_channels=mid, **bn))
        outputs = self.widen_conv(outputs, in_channels=mid, out_channels=out)
        outputs = self.widen_bn(outputs, in_channels=out, **bn)
        return activation(outputs + self._shortcut(inputs, out, bn))

    def _shortcut(self, inputs, out_channels, bn):
        plan = self.plan
        if plan.shortcut == "identity":
            return inputs
        if plan.shortcut == "avg_pool_conv" and plan.stride > 1:
            # At an odd edge the mean is over the pixels that there are.
            inputs = tf.nn.avg_pool2d(inputs, plan.stride, plan.stride, "SAME")
        outputs = self.shortcut_conv(inputs, out_channels=out_channels)
        return self.shortcut_bn(outputs, in_channels=out_channels, **bn)

    @property
    def named_layers(self):
        names = ["reduce", "spatial", "widen"]
        names += ["shortcut"] if self.plan.shortcut != "identity" else []
        return {
            f"{name}_{kind}": getattr(self, f"{name}_{kind}")
            for name in names
            for kind in ("conv", "bn")
        }

    def active_weights(self, plan: blueprint.Bottleneck) -> dict[str, list[tf.Tensor]]:
        widths = {
            "reduce": (plan.in_channels, plan.mid_channels),
            "spatial": (plan.mid_channels, plan.mid_channels),
            "widen": (plan.mid_channels, plan.out_channels),
            "shortcut": (plan.in_channels, plan.out_channels),
        }
        weights = {}
        for name, layer in self.named_layers.items():
            width, kind = name.split("_")
            ins, outs = widths[width]
            sizes = (ins, outs) if kind == "conv" else (outs,)
            weights[name] = layer.active_weights(*sizes)
        return weights

    @property
    def last_batch_norm(self):
        return self.widen_bn

    @property
    def channel_groups(self):
        chain = (
            (self.spatial_conv.kernel, self.spatial_bn, self.widen_conv.kernel),
            (self.reduce_conv.kernel, self.reduce_bn, self.spatial_conv.kernel),
        )
        return tuple(
            ChannelGroup(
                "mid_channels",
                reader,
                ((writer, 3), *((weight, 0) for weight in bn.weights), (reader, 2)),
            )
            for writer, bn, reader in chain
        )


class MaxPoolBlock(_PlannedBlock):
    """A `blueprint.MaxPool`, of inputs that are not negative.

    Input: (batch, height, width, channels). Output: (batch, height / stride, width / stride,
    channels).
    """

    plan_class = blueprint.MaxPool

    def call(self, inputs, sizes=None, training=False, bn_update=None):
        # Zeros at the border are never larger than what is inside.
        padded = pad_for_stride(inputs, self.plan.kernel_size)
        return tf.nn.max_pool2d(padded, self.plan.kernel_size, self.plan.stride, "VALID")


class GlobalPoolBlock(_PlannedBlock):
    """A `blueprint.GlobalPool`: (batch, height, width, channels) to (batch, 1, 1, channels)."""

    plan_class = blueprint.GlobalPool

    def call(self, inputs, sizes=None, training=False, bn_update=None):
        return tf.reduce_mean(inputs, axis=[1, 2], keepdims=True)


class ClassifierBlock(_PlannedBlock):
    """A `blueprint.Classifier`: dropout and a dense layer on the (batch, 1, 1, channels) mean.

    Call arguments:
        inputs: (batch, 1, 1, channels).
        training: whether features are dropped.
        dropout_seed: int64 (2,); equal seeds drop equal features (under XLA, others). None draws.
        dropout_scale: factor of the plan's dropout rate, a number or a scalar tensor.

    Output: logits, float32 (batch, classes).
    """

    plan_class = blueprint.Classifier

    def build(self, input_shape):
        self.dense = ElasticDense(self.plan.out_channels, name="dense", **self._form)
        self.dense.build((None, self.plan.in_channels))

    def call(self, inputs, training=False, dropout_seed=None, dropout_scale=1.0):
        # In float32, because a random number of few bits misses the rate.
        features = tf.cast(tf.squeeze(inputs, axis=[1, 2]), tf.float32)
        if training:
            if dropout_seed is None:
                dropout_seed = draw_seed()
            features = tf.nn.experimental.stateless_dropout(
                features, self.plan.dropout * dropout_scale, dropout_seed, rng_alg="philox"
            )
        return tf.cast(self.dense(features), tf.float32)

    @property
    def named_layers(self):
        return {"dense": self.dense}

    def active_weights(self, plan: blueprint.Classifier) -> dict[str, list[tf.Tensor]]:
        return {"dense": self.dense.active_weights(plan.in_channels)}


def draw_seed() -> tf.Tensor:
    """A seed for dropout from TensorFlow's global random numbers: int64 (2,)."""
    return tf.random.uniform([2], maxval=tf.int64.max, dtype=tf.int64)


# The layer of each kind of block.
BLOCK_LAYERS = {
    layer.plan_class: layer
    for layer in (
        ConvBlock,
        InvertedResidualBlock,
        BottleneckBlock,
        MaxPoolBlock,
        GlobalPoolBlock,
        ClassifierBlock,
    )
}
