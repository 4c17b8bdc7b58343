"""The blocks of a Blueprint as elastic layers, built to the plan of the largest net.

`active_weights(plan)` of each gives the weights of a subnet's block, by the name of the layer of
the plain Keras network that takes them (models/subnet.py).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ofa_tf.layers.activations import hard_swish
from ofa_tf.layers.depthwise import Size
from ofa_tf.layers.elastic import (
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
    ElasticLayer,
    ElasticSqueezeExcite,
)
from ofa_tf.spaces import blueprint

_ACTIVATIONS = {"relu": tf.nn.relu, "hard_swish": hard_swish}


class BlockSizes(NamedTuple):
    """What is active in an elastic block: Python ints, or scalar int32 tensors in a graph.

    `out_channels` is for the mask form, where a block that is off has no channel at all: then it
    adds zeros to its shortcut, and keeps its moving statistics. None stands for the plan's.
    """

    kernel_size: Size
    mid_channels: Size
    se_channels: Size
    out_channels: Size | None = None


class _PlannedBlock(ElasticLayer):
    """A layer that is made from one block of the largest net's Blueprint.

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
    def _form(self) -> dict:
        """What all layers of the block are made with."""
        return {"elastic": self.elastic, "dtype": self.dtype_policy}

    def _batch_norm(self, channels: int, name: str) -> ElasticBatchNormalization:
        layer = ElasticBatchNormalization(
            self.bn_momentum, self.bn_epsilon, name=name, **self._form
        )
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
        self.conv = ElasticConv2D(
            plan.out_channels, plan.kernel_size, plan.stride, name="conv", **self._form
        )
        self.conv.build((None, None, None, plan.in_channels))
        self.bn = self._batch_norm(plan.out_channels, "bn") if plan.batch_norm else None

    def call(self, inputs, training=False, bn_update=None):
        outputs = self.conv(inputs)
        if self.bn is not None:
            outputs = self.bn(outputs, training=training, bn_update=bn_update)
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
            self.expand_conv = ElasticConv2D(mid, name="expand_conv", **self._form)
            self.expand_conv.build((None, None, None, plan.in_channels))
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
        self.project_conv = ElasticConv2D(plan.out_channels, name="project_conv", **self._form)
        self.project_conv.build((None, None, None, mid))
        self.project_bn = self._batch_norm(plan.out_channels, "project_bn")

    def call(self, inputs, sizes=None, training=False, bn_update=None):
        plan = self.plan
        sizes = sizes or BlockSizes(plan.kernel_size, plan.mid_channels, plan.se_channels)
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

    def active_weights(self, plan: blueprint.Classifier) -> dict[str, list[tf.Tensor]]:
        return {"dense": self.dense.active_weights(plan.in_channels)}


def draw_seed() -> tf.Tensor:
    """A seed for dropout from TensorFlow's global random numbers: int64 (2,)."""
    return tf.random.uniform([2], maxval=tf.int64.max, dtype=tf.int64)
