"""TrainStep: one training step, traced once for every subnet, resolution and phase of a form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ofa_tf.layers import KEEP_STATISTICS
from ofa_tf.models import Supernet
from ofa_tf.training.distillation import smooth_labels, subnet_loss
from ofa_tf.training.optimizer import Optimizer
from ofa_tf.training.phases import Teacher
from ofa_tf.training.recipe import Recipe
from ofa_tf.training.strategy import first_local


class StepResult(NamedTuple):
    """What a step tells, equal on every worker.

    Attributes:
        loss: mean over the replicas and the step's subnets.
        gradient_norm: global norm of the summed gradients, before clipping.
        applied: False where the loss or a gradient was not finite, and the step was skipped.
        asked: the sum over the workers of what each asked for.
    """

    loss: float | tf.Tensor
    gradient_norm: float | tf.Tensor
    applied: bool | tf.Tensor
    asked: np.ndarray | tf.Tensor

    def read(self) -> StepResult:
        """As numbers: waits for the end of the step, where a device runs it in the background."""
        return StepResult(
            float(self.loss), float(self.gradient_norm), bool(self.applied), np.array(self.asked)
        )


class _Weights(NamedTuple):
    """What counts in the loss of one subnet."""

    label: float | tf.Tensor
    kd: float | tf.Tensor
    dropout: float | tf.Tensor


class TrainStep:
    """Sums the gradients of a step's subnets on one batch and moves the weights.

    Args:
        supernet: trained in place; made within the strategy's scope.
        optimizer: of its weights.
        recipe: losses, micro-batches, mixup and seed.
        strategy: where the step runs. Every replica trains the same subnets on its own images.
        batch_spec: of the images and labels that `__call__` takes, as the dataset gives it.
        teacher: where the subnets' soft targets come from.
        largest: the trained largest net, for Teacher.LARGEST.
        several: whether a step may have more than one subnet; without, the loop over them and
            the sums are left out.
        xla: compile the gradients with XLA; needs a supernet with elastic="mask".

    Attributes:
        num_traces: how often the step was traced.
    """

    def __init__(
        self,
        supernet: Supernet,
        optimizer: Optimizer,
        recipe: Recipe,
        strategy: tf.distribute.Strategy,
        batch_spec: Any,
        *,
        teacher: Teacher = Teacher.NONE,
        largest: Supernet | None = None,
        several: bool = True,
        xla: bool = False,
    ):
        self.supernet = supernet
        self.optimizer = optimizer
        self.recipe = recipe
        self.strategy = strategy
        self.teacher = teacher
        self.largest = largest
        self.several = several
        self.num_traces = 0
        self._gradients: Any = self._all_gradients
        if xla:
            self._gradients = tf.function(self._all_gradients, jit_compile=True, autograph=False)
        self._step = tf.function(
            self._on_all_replicas,
            input_signature=[
                batch_spec,
                tf.TensorSpec([None, *supernet.space.sizes_shape], tf.int32),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([2], tf.int64),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([None], tf.int32),
            ],
            autograph=False,  # nothing to convert, and a graph of this size would take seconds
        )

    def __call__(
        self,
        batch: Any,
        sizes: np.ndarray,
        rate: float,
        step: int,
        mixup_share: float = 1.0,
        asked: Sequence[int] = (),
    ) -> StepResult:
        """Runs a step, or starts it: its result may still be under way, see `StepResult.read`.

        Args:
            batch: images and labels, one value per replica.
            sizes: the subnets, int32 (subnets, positions, size fields).
            rate: the learning rate.
            step: of the run; with the recipe's seed it decides the dropout.
            mixup_share: how much of each image is its own.
            asked: numbers that are summed over the workers on the way.
        """
        seed = (self.recipe.seed, step)
        loss, update, asked = self._step(batch, sizes, rate, seed, mixup_share, list(asked))
        return StepResult(loss, update.gradient_norm, update.applied, asked)

    def _on_all_replicas(self, batch, sizes, rate, seed, mixup_share, asked):
        self.num_traces += 1
        results = self.strategy.run(
            self._on_replica, args=(batch, sizes, rate, seed, mixup_share, asked)
        )
        return tf.nest.map_structure(lambda result: first_local(self.strategy, result), results)

    def _on_replica(self, batch, sizes, rate, seed, mixup_share, asked):
        replica = tf.distribute.get_replica_context()
        loss, gradients = self._gradients(
            *batch, sizes, seed, mixup_share, replica.replica_id_in_sync_group
        )
        if replica.num_replicas_in_sync > 1:
            mean, total = tf.distribute.ReduceOp.MEAN, tf.distribute.ReduceOp.SUM
            # Of its own on each replica: one tensor for all of them cannot be reduced.
            asked = replica.all_reduce(total, tf.identity(asked))
            loss = replica.all_reduce(mean, loss)
        update = self.optimizer.apply(gradients, loss, rate)
        return loss, update, asked

    def _all_gradients(self, images, labels, sizes, seed, mixup_share, replica):
        """This replica's loss and gradients, over all micro-batches and subnets."""
        count = self.recipe.accumulation_steps
        first_group = tf.cast(replica, tf.int64) * count
        if count == 1:
            return self._micro_batch(images, labels, sizes, seed, mixup_share, first_group)
        size = tf.shape(images)[0] // count

        def add_micro_batch(index, total_loss, totals):
            part = slice(index * size, (index + 1) * size)
            group = first_group + tf.cast(index, tf.int64)
            loss, gradients = self._micro_batch(
                images[part], labels[part], sizes, seed, mixup_share, group
            )
            totals = [t + g / count for t, g in zip(totals, gradients, strict=True)]
            return index + 1, total_loss + loss / count, totals

        _, loss, gradients = self._loop(count, add_micro_batch)
        return loss, gradients

    def _micro_batch(self, images, labels, sizes, seed, mixup_share, group):
        """Loss and gradients on the images that batch norm sees together.

        `group` numbers them over all replicas; it takes part in the seed of dropout, so that one
        device with micro-batches computes what as many replicas compute.
        """
        targets = smooth_labels(labels, self.supernet.num_classes, self.recipe.label_smoothing)
        if self.recipe.mixup_alpha:
            images = mixup_share * images + (1.0 - mixup_share) * images[::-1]
            targets = mixup_share * targets + (1.0 - mixup_share) * targets[::-1]
        logits = None
        if self.teacher is Teacher.LARGEST:
            # The teacher normalizes with the batch's statistics, as published, and keeps its own.
            # A fixed arch makes a graph without slices and branches.
            logits = self.largest(images, "largest", bn_update=KEEP_STATISTICS)
        seed = tf.random.experimental.stateless_fold_in(seed, group)
        if self.several:
            return self._subnets(images, targets, logits, sizes, seed)
        weights = _Weights(1.0, self.recipe.kd_ratio, 1.0)
        _, loss, gradients = self._subnet(images, targets, logits, sizes[0], seed, weights)
        return loss, gradients

    def _subnets(self, images, targets, teacher_logits, sizes, seed):
        """Sums over the subnets, in a loop that is traced once; the loss is their mean."""
        in_place = self.teacher is Teacher.IN_PLACE
        count = tf.shape(sizes)[0]

        def add_subnet(index, total_loss, totals, *in_place_logits):
            soft = in_place_logits[0] if in_place else teacher_logits
            weights = self._weights(index)
            own_seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(index, tf.int64))
            logits, loss, gradients = self._subnet(
                images, targets, soft, sizes[index], own_seed, weights
            )
            totals = [total + gradient for total, gradient in zip(totals, gradients, strict=True)]
            next_logits = [tf.where(index == 0, logits, soft)] if in_place else []
            return index + 1, total_loss + loss, totals, *next_logits

        carried = [tf.zeros_like(targets)] if in_place else []
        _, loss, gradients, *_ = self._loop(count, add_subnet, *carried)
        return loss / tf.cast(count, tf.float32), gradients

    def _weights(self, index: tf.Tensor) -> _Weights:
        """Of the subnet at an index of the step."""
        if self.teacher is not Teacher.IN_PLACE:
            return _Weights(1.0, self.recipe.kd_ratio, 1.0)
        # The first, largest net learns from the labels; the others learn from it alone, and only
        # it is regularized by dropout (arXiv 2003.11142).
        first = tf.cast(index == 0, tf.float32)
        return _Weights(first, (1.0 - first) * self.recipe.kd_ratio, first)

    def _subnet(
        self,
        images: tf.Tensor,
        targets: tf.Tensor,
        teacher_logits: tf.Tensor | None,
        sizes: tf.Tensor,
        seed: tf.Tensor,
        weights: _Weights,
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = self.supernet(
                images,
                sizes,
                training=True,
                dropout_seed=seed,
                dropout_scale=weights.dropout,
            )
            loss = subnet_loss(
                logits,
                targets,
                teacher_logits,
                label_weight=weights.label,
                kd_weight=weights.kd,
                kd_loss=self.recipe.kd_loss,
            )
            scaled = self.optimizer.scaled(loss)
        variables = self.supernet.trainable_variables
        gradients = tape.gradient(scaled, variables, unconnected_gradients="zero")
        return logits, loss, gradients

    def _loop(self, count, body, *carried):
        """Runs `body(index, loss, gradients, *carried)` `count` times, from zeros.

        One after the other: the batch-norm updates of two subnets must not interleave.
        """
        zeros = [tf.zeros(v.shape) for v in self.supernet.trainable_variables]
        return tf.while_loop(
            lambda index, *_: index < count,
            body,
            (tf.constant(0), tf.constant(0.0), zeros, *carried),
            parallel_iterations=1,
        )
