"""Supernet: one set of weights, one traced graph, every subnet of a space."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from ofa_tf.errors import UsageError
from ofa_tf.layers import (
    BLOCK_LAYERS,
    ELASTIC_FORMS,
    ClassifierBlock,
    InvertedResidualBlock,
    draw_seed,
)
from ofa_tf.models.arguments import (
    as_images,
    as_num_classes,
    as_sizes,
    as_space,
    check_resolution,
)
from ofa_tf.models.materialize import materialize
from ofa_tf.models.subnet import scope_name
from ofa_tf.spaces import Arch, SearchSpace, blueprint, built_in_space

DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")


def _refused(instead: str) -> Callable[..., NoReturn]:
    """A method of a Keras model that a supernet cannot have, since it is many networks."""

    def refuse(self, *args, **options):
        raise UsageError(f"A supernet is many networks: {instead}.")

    return refuse


@keras.saving.register_keras_serializable("ofa_tf")
class Supernet(keras.Model):
    """The largest weights of a space, run as any of its subnets.

    Inside a graph the arch travels as int32 tensors (`sizes`), so one `tf.function` trace serves
    every subnet and every resolution (arXiv 1908.09791).

    It is copied (`copy.deepcopy`), pickled and saved as other Keras models are, `save` only where
    its space is a built-in one; `save_weights` goes with all. What takes one network, such as
    `predict` and `export`, is done with a subnet, `supernet.subnet(arch).predict(images)`, and
    `fit` by ofa-train or `ofa_tf.training.trainer.Trainer`.

    Args:
        space: the search space, or what `get_space` takes; `space.max()` decides the shapes of
            the weights.
        num_classes: outputs of the classifier, at least 1.
        elastic: "slice" computes what is active; "mask" computes the largest shapes with zeros
            in them, so that XLA can compile it. Same weights, same results.
        dtype: one of DTYPES, or that dtype policy; "mixed_bfloat16" and "mixed_float16" compute
            in 16 bits, with weights, batch norm and logits in float32. Keras's global policy and
            keras.json change nothing.
        name: any text; the model gets its `scope_name`.

    Call arguments:
        images: floats (batch, height, width, 3), normalized: `(pixels - MEAN) / STD` with those of
            `ofa_tf.data`.
        arch: an `Arch` or its dict, with images of its resolution; or, with images of any size,
            its `sizes`, as an array or tensor, or "largest" or "smallest".
        training: batch norm on batch statistics, and dropout.
        bn_update: (keep, take), numbers or scalar tensors: batch statistics without dropout, and
            each moving one becomes keep * moving + take * batch; see `ElasticBatchNormalization`.
        dropout_seed: int64 (2,); equal seeds drop equal features (under XLA, others). None draws.
        dropout_scale: factor of the dropout rate, a number or a scalar tensor.

    Returns: logits, float32 (batch, num_classes).

    Raises:
        UsageError: the arch is not in the space or missing, the images are not of such a shape or
            type, or an argument is not as above.

    Example:
        space = ofa_tf.get_space("ofa_mbv3_tiny")
        supernet = ofa_tf.Supernet(space, num_classes=10)
        logits = supernet(images, space.min())
    """

    def __init__(
        self,
        space: SearchSpace | str | os.PathLike,
        num_classes: int = 1000,
        elastic: str = "slice",
        dtype: str | keras.DTypePolicy = "float32",
        name: str | None = None,
    ):
        space, num_classes = as_space(space), as_num_classes(num_classes)
        dtype = getattr(dtype, "name", dtype)
        for field, value, known in (("elastic", elastic, ELASTIC_FORMS), ("dtype", dtype, DTYPES)):
            if value not in known:
                raise UsageError(f"{field} is one of {list(known)}, not {value!r}.")
        super().__init__(autocast=False, dtype=dtype, name=name and scope_name(name))
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

    def __call__(self, images, arch=None, training=False, **options):
        images = as_images(images)
        if isinstance(arch, (Arch, dict)):
            arch = self.space.arch(arch)
            check_resolution(images, arch)
        fixed = isinstance(arch, (Arch, str))
        sizes = self.space.sizes(self._arch(arch)) if fixed else as_sizes(arch, self.space)
        if tf.executing_eagerly():
            return self._run(images, tf.cast(sizes, tf.int32), training, **options)
        # A fixed arch in the caller's graph: all sizes are static.
        sizes = sizes.tolist() if fixed else sizes
        return super().__call__(images, arch=sizes, training=training, **options)

    def _arch(self, arch: Arch | dict | str) -> Arch | dict:
        """The arch itself, or the one that a word stands for."""
        if not isinstance(arch, str):
            return arch
        words = {"largest": self.space.max, "smallest": self.space.min}
        if arch not in words:
            raise UsageError(f"arch is an Arch, its dict, or one of {list(words)}, not {arch!r}.")
        return words[arch]()

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
        kept = self._read_statistics()
        try:
            yield
        finally:
            self._write_statistics(kept)

    def average_statistics(self) -> None:
        """Gives each replica of a tf.distribute strategy the mean of all replicas' statistics."""
        self._write_statistics(self._read_statistics())

    # Graphs, since a hundred reads by themselves take longer than to evaluate a small subnet.

    @tf.function(autograph=False)
    def _read_statistics(self):
        return [tf.identity(variable.value) for variable in self.non_trainable_variables]

    @tf.function(autograph=False)
    def _write_statistics(self, values):
        for variable, value in zip(self.non_trainable_variables, values, strict=True):
            variable.assign(value)

    def subnet(self, arch: Arch | dict | str, **options) -> keras.Model:
        """The subnet as a plain Keras model with the weights and statistics of this moment.

        Recalibrate first (`SubnetEvaluator.calibrated` in ofa_tf/training/calibration.py): the
        moving statistics are those of whichever subnets ran last.

        Args:
            arch: an `Arch`, its dict, "largest" or "smallest".
            **options: those of `materialize`.
        """
        return materialize(self, self._arch(arch), **options)

    # -- what Keras asks of a model ----------------------------------------------------------------

    compile = fit = train_on_batch = _refused(
        "train it with ofa-train or ofa_tf.training.trainer.Trainer, or one of them as any Keras "
        "model, supernet.subnet(arch).fit(...)"
    )
    evaluate = test_on_batch = _refused(
        "evaluate one with ofa_tf.training.calibration.SubnetEvaluator, or all with ofa-eval"
    )
    predict = predict_on_batch = _refused(
        "run one with supernet(images, arch), or supernet.subnet(arch).predict(images)"
    )
    export = quantize = _refused(
        "export one with ofa-export or ofa_tf.export.export_subnet, or as any Keras model, "
        "supernet.subnet(arch)"
    )

    def get_config(self) -> dict[str, Any]:
        """What makes the same supernet, but for its weights, as JSON can hold it.

        Raises:
            UsageError: the space is no built-in one, whose name says all.
        """
        if not _is_built_in(self.space):
            raise UsageError(
                f"{self.space.name} is no built-in space, and a Keras config cannot hold it: use "
                f"save_weights, and load_weights of a Supernet that was made of the space."
            )
        return {
            "space": self.space.name,
            "num_classes": self.num_classes,
            "elastic": self.elastic,
            "dtype": self.dtype_policy.name,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> Supernet:
        """Takes a name of a built-in space only: a config from a file must not run another."""
        return cls(**{**config, "space": built_in_space(config["space"])})

    def __reduce__(self):
        options = (self.num_classes, self.elastic, self.dtype_policy.name, self.name)
        return _copied, (type(self), (self.space, *options), self.get_weights())


def _copied(kind: type[Supernet], arguments: tuple, weights: list[np.ndarray]) -> Supernet:
    """A supernet from what its pickle has."""
    supernet = kind(*arguments)
    supernet.set_weights(weights)
    return supernet


def _is_built_in(space: SearchSpace) -> bool:
    try:
        return built_in_space(space.name) == space
    except UsageError:
        return False
