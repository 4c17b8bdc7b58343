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

from ofa_tf.layers.elastic import (
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
    ElasticSqueezeExcite,
    Size,
)
from ofa_tf.spaces import blueprint

_ACTIVATIONS = {"relu": tf.nn.relu, "hard_swish": keras.activations.hard_silu}


class BlockSizes(NamedTuple):
    """What is active in an elastic block: Python ints, or scalar int32 tensors in a graph."""

    kernel_size: Size
    mid_channels: Size
    se_channels: Size


class _PlannedBlock(keras.layers.Layer):
    """A layer that is made from one block of the largest net's Blueprint.

    Args:
        plan: the block, or its fields as a dict (as `get_config` writes them).
        bn_momentum: share of the old moving statistics that an update keeps.
        bn_epsilon: added to the variance in batch norm.
    """

    plan_class: type[blueprint.Block]

    def __init__(self, plan, bn_momentum=0.9, bn_epsilon=1e-5, **kwargs):
        self.plan = self.plan_class(**plan) if isinstance(plan, dict) else plan
        super().__init__(name=kwargs.pop("name", self.plan.name), **kwargs)
        self.bn_momentum = bn_momentum
        self.bn_epsilon = bn_epsilon

    def get_config(self):
        return {
            **super().get_config(),
            "plan": dataclasses.asdict(self.plan),
            "bn_momentum": self.bn_momentum,
            "bn_epsilon": self.bn_epsilon,
        }

    def _batch_norm(self, channels: int, name: str) -> ElasticBatchNormalization:
        layer = ElasticBatchNormalization(self.bn_momentum, self.bn_epsilon, name=name)
        layer.build((None, None, None, channels))
        return layer


class ConvBlock(_PlannedBlock):
    """A `blueprint.Conv`: convolution, batch norm where there is one, activation.

    Input: (batch, height, width, in_channels). Output: (batch, height / stride, width / stride,
    out_channels).
    """

    plan_class = blueprint.Conv

    def build(self, input_shape):
        plan = self.plan
        self.conv = ElasticConv2D(plan.out_channels, plan.kernel_size, plan.stride, name="conv")
        self.conv.build((None, None, None, plan.in_channels))
        self.bn = self._batch_norm(plan.out_channels, "bn") if plan.batch_norm else None

    def call(self, inputs, training=False, bn_momentum=None):
        outputs = self.conv(inputs)
        if self.bn is not None:
            outputs = self.bn(outputs, training=training, bn_momentum=bn_momentum)
        return _ACTIVATIONS[self.plan.activation](outputs)

    def active_weights(self, plan: blueprint.Conv) -> dict[str, list[tf.Tensor]]:
        weights = {"conv": self.conv.active_weights(plan.in_channels, plan.out_channels)}
        if self.bn is not None:
            weights["bn"] = self.bn.active_weights(plan.out_channels)
        return weights


class InvertedResidualBlock(_PlannedBlock):
    """A `blueprint.InvertedResidual` with elastic kernel, middle width and squeeze-excite.

    Args:
        kernel_sizes: the depthwise kernels that can be active; by default the plan's only.

    Call arguments:
        inputs: (batch, height, width, in_channels).
        sizes: a BlockSizes; everything is active without it.

    Output: (batch, height / stride, width / stride, out_channels).
    """

    plan_class = blueprint.InvertedResidual

    def __init__(self, plan, kernel_sizes=None, **kwargs):
        super().__init__(plan, **kwargs)
        self.kernel_sizes = tuple(kernel_sizes or (self.plan.kernel_size,))

    def build(self, input_shape):
        plan, mid = self.plan, self.plan.mid_channels
        if plan.expand:
            self.expand_conv = ElasticConv2D(mid, name="expand_conv")
            self.expand_conv.build((None, None, None, plan.in_channels))
            self.expand_bn = self._batch_norm(mid, "expand_bn")
        self.depthwise_conv = ElasticDepthwiseConv2D(
            self.kernel_sizes, plan.stride, name="depthwise_conv"
        )
        self.depthwise_conv.build((None, None, None, mid))
        self.depthwise_bn = self._batch_norm(mid, "depthwise_bn")
        if plan.se_channels:
            self.squeeze_excite = ElasticSqueezeExcite(plan.se_channels, name="squeeze_excite")
            self.squeeze_excite.build((None, None, None, mid))
        self.project_conv = ElasticConv2D(plan.out_channels, name="project_conv")
        self.project_conv.build((None, None, None, mid))
        self.project_bn = self._batch_norm(plan.out_channels, "project_bn")

    def call(self, inputs, sizes=None, training=False, bn_momentum=None):
        plan = self.plan
        sizes = sizes or BlockSizes(plan.kernel_size, plan.mid_channels, plan.se_channels)
        bn = {"training": training, "bn_momentum": bn_momentum}
        activation = _ACTIVATIONS[plan.activation]
        outputs = inputs
        if plan.expand:
            outputs = self.expand_conv(outputs, out_channels=sizes.mid_channels)
            outputs = activation(self.expand_bn(outputs, **bn))
        outputs = self.depthwise_conv(outputs, kernel_size=sizes.kernel_size)
        outputs = activation(self.depthwise_bn(outputs, **bn))
        if plan.se_channels:
            outputs = self.squeeze_excite(outputs, se_channels=sizes.se_channels)
        outputs = self.project_bn(self.project_conv(outputs), **bn)
        return outputs + inputs if plan.shortcut else outputs

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

    def permute_channels(self, mid_order: np.ndarray, se_order: np.ndarray | None = None) -> None:
        """Reorders the middle channels, and those of squeeze-excite; the function stays the same.

        Args:
            mid_order: a permutation of the middle channels of the largest net.
            se_order: a permutation of the middle channels of squeeze-excite, where there is one.
        """
        mid_axes = [(self.depthwise_conv.kernel, 2), (self.project_conv.kernel, 2)]
        mid_axes += [(weight, 0) for weight in self.depthwise_bn.weights]
        if self.plan.expand:
            mid_axes += [(self.expand_conv.kernel, 3)]
            mid_axes += [(weight, 0) for weight in self.expand_bn.weights]
        se_axes = []
        if self.plan.se_channels:
            reduce, expand = self.squeeze_excite.reduce, self.squeeze_excite.expand
            mid_axes += [(reduce.kernel, 2), (expand.kernel, 3), (expand.bias, 0)]
            se_axes = [(reduce.kernel, 3), (reduce.bias, 0), (expand.kernel, 2)]
        for order, axes in ((mid_order, mid_axes), (se_order, se_axes)):
            for weight, axis in axes:
                weight.assign(np.take(weight.numpy(), order, axis))

    def get_config(self):
        return {**super().get_config(), "kernel_sizes": self.kernel_sizes}


class ClassifierBlock(_PlannedBlock):
    """A `blueprint.Classifier`: dropout and a dense layer on the (batch, 1, 1, channels) mean.

    Output: logits (batch, classes).
    """

    plan_class = blueprint.Classifier

    def build(self, input_shape):
        self.dropout = keras.layers.Dropout(self.plan.dropout)
        self.dense = ElasticDense(self.plan.out_channels, name="dense")
        self.dense.build((None, self.plan.in_channels))

    def call(self, inputs, training=False):
        features = tf.squeeze(inputs, axis=[1, 2])
        return self.dense(self.dropout(features, training=training))

    def active_weights(self, plan: blueprint.Classifier) -> dict[str, list[tf.Tensor]]:
        return {"dense": self.dense.active_weights(plan.in_channels)}
