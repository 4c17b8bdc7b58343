"""This project's side of train_step.py."""

from __future__ import annotations

import time

import keras
import numpy as np
import tensorflow as tf
from workers import Setting

import ofa_tf
from ofa_tf.spaces import Arch
from ofa_tf.training.distillation import smooth_labels, subnet_loss
from ofa_tf.training.optimizer import Optimizer
from ofa_tf.training.phases import Phase
from ofa_tf.training.recipe import Recipe
from ofa_tf.training.step import TrainStep
from ofa_tf.training.strategy import skip_graph_optimizer

_RATE = 1e-3


class Side:
    """The supernet with the trainer's step, and standalone subnets with an equal one."""

    def __init__(self, setting: Setting):
        tf.config.threading.set_intra_op_parallelism_threads(setting.threads)
        tf.config.threading.set_inter_op_parallelism_threads(setting.threads)
        skip_graph_optimizer()  # as ofa-train does
        phase = Phase("largest", epochs=1, base_lr=_RATE)
        self.recipe = Recipe(
            phases=(phase,),
            batch_size=setting.batch_size,
            resolutions=(setting.resolution,),
            precision=setting.dtype,
        )
        self.space = ofa_tf.get_space(setting.space)
        self.supernet = ofa_tf.Supernet(
            self.space, setting.num_classes, setting.elastic, self.recipe.dtype_policy
        )
        self.xla = setting.xla
        self.optimizer = _optimizer(self.supernet, self.recipe)
        self._train_step = self._make_step(several=False)
        rng = np.random.default_rng(0)
        size = (setting.batch_size, setting.resolution, setting.resolution, 3)
        self.images = tf.constant(rng.normal(size=size), tf.float32)
        self.labels = tf.constant(rng.integers(0, setting.num_classes, size[0]), tf.int32)
        self._standalone = {}

    def _make_step(self, several: bool) -> TrainStep:
        count = self.recipe.batch_size
        return TrainStep(
            self.supernet,
            self.optimizer,
            self.recipe,
            tf.distribute.get_strategy(),
            (tf.TensorSpec([count, None, None, 3]), tf.TensorSpec([count], tf.int32)),
            several=several,
            xla=self.xla,
        )

    def train(self, arch: Arch) -> float:
        """Seconds of a step."""
        sizes = self.space.sizes(arch)[None]
        start = time.perf_counter()
        self._train_step((self.images, self.labels), sizes, _RATE, 0).read()
        return time.perf_counter() - start

    def first_step(self, archs: list[Arch]) -> float:
        """Seconds from an untraced step to the end of the first one, which trains all `archs`."""
        step = self._make_step(several=True)
        sizes = np.stack([self.space.sizes(arch) for arch in archs])
        start = time.perf_counter()
        step((self.images, self.labels), sizes, _RATE, 0).read()
        return time.perf_counter() - start

    def traces(self) -> int:
        return self._train_step.num_traces

    def prepare_standalone(self, arch: Arch) -> None:
        """Cuts the subnet out; it takes its first step here."""
        model = self.supernet.subnet(arch)
        for layer in model.layers:
            layer.dtype_policy = self.recipe.dtype_policy
        optimizer = _optimizer(model, self.recipe)

        @tf.function(autograph=False)
        def step():
            targets = smooth_labels(
                self.labels, self.supernet.num_classes, self.recipe.label_smoothing
            )
            with tf.GradientTape() as tape:
                logits = tf.cast(model(self.images, training=True), tf.float32)
                loss = subnet_loss(logits, targets, None)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, loss, tf.constant(_RATE))
            return loss

        step()
        self._standalone = {arch: step}

    def train_standalone(self, arch: Arch) -> float:
        """Seconds of a step of the subnet that was prepared."""
        start = time.perf_counter()
        float(self._standalone[arch]())
        return time.perf_counter() - start

    def evaluate(self, arch: Arch, calibration_batches: int, batches: int) -> float:
        """Seconds to recalibrate a subnet and classify some batches with it."""
        start = time.perf_counter()
        with self.supernet.kept_statistics():
            for index in range(calibration_batches):
                update = (float(index > 0), 1 / calibration_batches)
                self.supernet(self.images, arch, bn_update=update)
            for _ in range(batches):
                self.supernet(self.images, arch).numpy()
        return time.perf_counter() - start


def _optimizer(model: keras.Model, recipe: Recipe) -> Optimizer:
    variables = model.trainable_variables
    decayed = [variable.name == "kernel" for variable in variables]
    return Optimizer(variables, decayed, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
