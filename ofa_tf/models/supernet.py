"""Supernet: one set of weights, one traced graph, every subnet of a space."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from ofa_tf.layers import BlockSizes, ClassifierBlock, ConvBlock, InvertedResidualBlock
from ofa_tf.models.materialize import materialize
from ofa_tf.spaces import Arch, SearchSpace, blueprint
from ofa_tf.spaces.search_space import SIZE_FIELDS


class Supernet(keras.Model):
    """The largest weights of a space, run as any of its subnets.

    Inside a graph the arch travels as int32 tensors (`sizes`), so one `tf.function` trace serves
    every subnet and every resolution (arXiv 1908.09791).

    Args:
        space: the search space; `space.max()` decides the shapes of the weights.
        num_classes: outputs of the classifier.

    Call arguments:
        images: float32 (batch, height, width, 3), normalized.
        arch: an `Arch`, its dict, or its `sizes` tensor. Its resolution does not resize: the
            images decide.
        training: batch norm on batch statistics, and dropout.
        bn_momentum: batch statistics without dropout; see `ElasticBatchNormalization`.

    Returns: logits, float32 (batch, num_classes).

    Raises:
        UsageError: the arch is not in the space.

    Example:
        space = ofa_tf.get_space("ofa_mbv3_tiny")
        supernet = ofa_tf.Supernet(space, num_classes=10)
        logits = supernet(images, space.min())
    """

    def __init__(self, space: SearchSpace, num_classes: int = 1000, **kwargs):
        super().__init__(**kwargs)
        self.space = space.root
        self.num_classes = num_classes
        self.num_traces = 0  # how often the graphs below were traced
        plan = self.space.blueprint(self.space.max(), num_classes)
        self.blocks = [self._make(block, plan) for block in plan.blocks]
        self.build()
        signature = [
            tf.TensorSpec([None, None, None, 3], tf.float32),
            tf.TensorSpec([self.space.num_positions, len(SIZE_FIELDS)], tf.int32),
        ]
        self._inference = tf.function(
            lambda images, sizes: self._traced(images, sizes, False, None), signature
        )
        self._training = tf.function(
            lambda images, sizes: self._traced(images, sizes, True, None), signature
        )
        self._batch_statistics = tf.function(
            lambda images, sizes, momentum: self._traced(images, sizes, False, momentum),
            [*signature, tf.TensorSpec([], tf.float32)],
        )

    def _make(self, block: blueprint.Block, plan: blueprint.Blueprint) -> keras.layers.Layer:
        bn = {"bn_momentum": plan.bn_momentum, "bn_epsilon": plan.bn_epsilon}
        if isinstance(block, blueprint.Conv):
            return ConvBlock(block, **bn)
        if isinstance(block, blueprint.InvertedResidual):
            kernel_sizes = None if block.position is None else self.space.kernel_sizes
            return InvertedResidualBlock(block, kernel_sizes=kernel_sizes, **bn)
        if isinstance(block, blueprint.Classifier):
            return ClassifierBlock(block)
        return keras.layers.GlobalAveragePooling2D(keepdims=True, name=block.name)

    def build(self, input_shape=None):
        """Makes all weights. Their shapes come from the Blueprint, not from an input."""
        for block in self.blocks:
            block.build((None, None, None, None))
        self.built = True

    def __call__(self, images, arch, training=False, bn_momentum=None):
        if isinstance(arch, (Arch, dict)):
            sizes = self.space.sizes(arch)
            if tf.executing_eagerly():
                return self._run(images, sizes, training, bn_momentum)
            arch = sizes.tolist()  # a fixed arch in the caller's graph: all sizes are static
        return super().__call__(images, arch=arch, training=training, bn_momentum=bn_momentum)

    def _run(self, images, sizes, training, bn_momentum):
        """One of the graphs, which know the arch only when they run."""
        if bn_momentum is not None:
            return self._batch_statistics(images, sizes, bn_momentum)
        return self._training(images, sizes) if training else self._inference(images, sizes)

    def _traced(self, images, sizes, training, bn_momentum):
        self.num_traces += 1
        return self(images, sizes, training=training, bn_momentum=bn_momentum)

    def call(self, images, arch, training=False, bn_momentum=None):
        """`arch` has a row of SIZE_FIELDS, ints or tensors, per block position."""
        bn = {"training": training, "bn_momentum": bn_momentum}
        outputs = images
        for block in self.blocks:
            if isinstance(block, ConvBlock):
                outputs = block(outputs, **bn)
            elif isinstance(block, InvertedResidualBlock):
                outputs = self._inverted_residual(block, outputs, arch, bn)
            elif isinstance(block, ClassifierBlock):
                outputs = block(outputs, training=training)
            else:
                outputs = block(outputs)
        return outputs

    def _inverted_residual(self, block, inputs, sizes, bn):
        position = block.plan.position
        if position is None:
            return block(inputs, **bn)
        row = sizes[position]
        active, *active_sizes = tf.unstack(row) if tf.is_tensor(row) else row

        def run():
            return block(inputs, sizes=BlockSizes(*active_sizes), **bn)

        if self.space.always_active[position]:
            return run()
        if isinstance(active, int):
            return run() if active else inputs
        return tf.cond(active > 0, run, lambda: inputs)

    @contextlib.contextmanager
    def kept_statistics(self) -> Iterator[None]:
        """Puts the moving statistics of batch norm back as they were on leaving the block."""
        kept = [variable.numpy() for variable in self.non_trainable_variables]
        try:
            yield
        finally:
            for variable, value in zip(self.non_trainable_variables, kept, strict=True):
                variable.assign(value)

    def subnet(self, arch: Arch | dict, **options) -> keras.Model:
        """The subnet as a plain Keras model with the weights and statistics of this moment.

        Recalibrate first (`ofa_tf.training.calibration.calibrated`): the moving statistics are
        those of whichever subnets ran last. `options` are those of `materialize`.
        """
        return materialize(self, arch, **options)
