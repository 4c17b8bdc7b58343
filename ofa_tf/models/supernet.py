"""Supernet: one set of weights, one traced graph, every subnet of a space."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import keras
import tensorflow as tf

from ofa_tf.errors import UsageError
from ofa_tf.layers import (
    BLOCK_LAYERS,
    ELASTIC_FORMS,
    ClassifierBlock,
    InvertedResidualBlock,
    draw_seed,
)
from ofa_tf.models.materialize import materialize
from ofa_tf.spaces import Arch, SearchSpace, blueprint


class Supernet(keras.Model):
    """The largest weights of a space, run as any of its subnets.

    Inside a graph the arch travels as int32 tensors (`sizes`), so one `tf.function` trace serves
    every subnet and every resolution (arXiv 1908.09791).

    Args:
        space: the search space; `space.max()` decides the shapes of the weights.
        num_classes: outputs of the classifier.
        elastic: "slice" computes what is active; "mask" computes the largest shapes with zeros
            in them, so that XLA can compile it. Same weights, same results.
        dtype: a Keras dtype policy or its name; "mixed_bfloat16" and "mixed_float16" compute in
            16 bits, with weights, batch norm and logits in float32.

    Call arguments:
        images: float32 (batch, height, width, 3), normalized.
        arch: an `Arch`, its dict, or its `sizes` tensor. Its resolution does not resize: the
            images decide.
        training: batch norm on batch statistics, and dropout.
        bn_update: (keep, take), numbers or scalar tensors: batch statistics without dropout, and
            each moving one becomes keep * moving + take * batch; see `ElasticBatchNormalization`.
        dropout_seed: int64 (2,); equal seeds drop equal features (under XLA, others). None draws.
        dropout_scale: factor of the dropout rate, a number or a scalar tensor.

    Returns: logits, float32 (batch, num_classes).

    Raises:
        UsageError: the arch is not in the space, or `elastic` is unknown.

    Example:
        space = ofa_tf.get_space("ofa_mbv3_tiny")
        supernet = ofa_tf.Supernet(space, num_classes=10)
        logits = supernet(images, space.min())
    """

    def __init__(
        self, space: SearchSpace, num_classes: int = 1000, elastic: str = "slice", **kwargs
    ):
        if elastic not in ELASTIC_FORMS:
            raise UsageError(f"elastic is one of {list(ELASTIC_FORMS)}, not {elastic!r}.")
        super().__init__(autocast=False, **kwargs)
        self.space = space.root
        self.num_classes = num_classes
        self.elastic = elastic
        self.num_traces = 0  # how often the graphs below were traced
        plan = self.space.blueprint(self.space.max(), num_classes)
        self.blocks = [self._make(block, plan) for block in plan.blocks]
        self.build()
        signature = [
            tf.TensorSpec([None, None, None, 3], tf.float32),
            tf.TensorSpec(self.space.sizes_shape, tf.int32),
        ]
        scalar = tf.TensorSpec([], tf.float32)
        self._inference = tf.function(lambda images, sizes: self._traced(images, sizes), signature)
        self._training = tf.function(
            lambda images, sizes, seed, scale: self._traced(
                images, sizes, training=True, dropout_seed=seed, dropout_scale=scale
            ),
            [*signature, tf.TensorSpec([2], tf.int64), scalar],
        )
        self._batch_statistics = tf.function(
            lambda images, sizes, keep, take: self._traced(images, sizes, bn_update=(keep, take)),
            [*signature, scalar, scalar],
        )

    def _make(self, block: blueprint.Block, plan: blueprint.Blueprint) -> keras.layers.Layer:
        layer = BLOCK_LAYERS[type(block)]
        options = {}
        if layer is InvertedResidualBlock and self.space.varies(block.name)["kernel_size"]:
            options["kernel_sizes"] = self.space.kernel_sizes
        return layer(
            block,
            bn_momentum=plan.bn_momentum,
            bn_epsilon=plan.bn_epsilon,
            elastic=self.elastic,
            dtype=self.dtype_policy,
            **options,
        )

    def build(self, input_shape=None):
        """Makes all weights. Their shapes come from the Blueprint, not from an input."""
        for block in self.blocks:
            block.build((None, None, None, None))
        self.built = True

    def __call__(self, images, arch, training=False, **options):
        if isinstance(arch, (Arch, dict)):
            sizes = self.space.sizes(arch)
            if tf.executing_eagerly():
                return self._run(images, sizes, training, **options)
            arch = sizes.tolist()  # a fixed arch in the caller's graph: all sizes are static
        return super().__call__(images, arch=arch, training=training, **options)

    def _run(self, images, sizes, training, bn_update=None, dropout_seed=None, dropout_scale=1.0):
        """One of the graphs, which know the arch only when they run."""
        if bn_update is not None:
            return self._batch_statistics(images, sizes, *bn_update)
        if not training:
            return self._inference(images, sizes)
        dropout_seed = draw_seed() if dropout_seed is None else dropout_seed
        return self._training(images, sizes, dropout_seed, dropout_scale)

    def _traced(self, images, sizes, **options):
        self.num_traces += 1
        return self(images, sizes, **options)

    def call(
        self,
        images,
        arch,
        training=False,
        bn_update=None,
        dropout_seed=None,
        dropout_scale=1.0,
    ):
        """`arch` is what `SearchSpace.sizes` gives, as a tensor or as rows of ints."""
        outputs = images
        for block in self.blocks:
            if isinstance(block, ClassifierBlock):
                outputs = block(
                    outputs,
                    training=training and bn_update is None,
                    dropout_seed=dropout_seed,
                    dropout_scale=dropout_scale,
                )
            else:
                outputs = self._run_block(
                    block, outputs, arch, {"training": training, "bn_update": bn_update}
                )
        return outputs

    def _run_block(self, block, inputs, all_sizes, bn):
        """A block with its active sizes; its inputs where the arch switches it off."""
        row = self.space.elastic_rows.get(block.plan.name)
        if row is None:
            return block(inputs, **bn)
        found = all_sizes[row]
        found = tf.unstack(found) if tf.is_tensor(found) else found
        varies = self.space.varies(block.plan.name)
        # What no arch changes stays an int, so that the graph does not compute it.
        active, *found = (
            new if varies[field] else own
            for field, new, own in zip(varies, found, (1, *block.plan.sizes.values()), strict=True)
        )
        sizes = blueprint.Sizes(*found)

        def run():
            return block(inputs, sizes=sizes, **bn)

        if isinstance(active, int):
            return run() if active else inputs
        if self.elastic == "mask":
            sizes = dataclasses.replace(sizes, out_channels=active * sizes.out_channels)
            return run()
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

        Recalibrate first (`SubnetEvaluator.calibrated` in ofa_tf/training/calibration.py): the
        moving statistics are those of whichever subnets ran last. `options` are those of
        `materialize`.
        """
        return materialize(self, arch, **options)
