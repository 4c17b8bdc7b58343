"""Nesterov SGD in one pass per weight, with clipping, loss scaling, EMA, and steps skipped.

Keras's SGD decays every weight alike and takes several passes over each; here the whole update is
one fused TensorFlow kernel, left out as a whole where a gradient is not finite.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

_FIRST_LOSS_SCALE = 2.0**15
_LOSS_SCALE_GROWS_AFTER = 2000  # steps without an overflow; then it doubles


class Update(NamedTuple):
    """What became of a step's gradients."""

    gradient_norm: tf.Tensor  # global norm before clipping, float32
    applied: tf.Tensor  # bool; False where loss or gradients were not finite


class Optimizer:
    """Nesterov SGD as the published recipe has it (arXiv 1908.09791).

    Created within the strategy's scope; `apply` is called on its replicas.

    Args:
        variables: the weights.
        decayed: for each of them, whether weight decay is added to its gradient.
        momentum: of SGD.
        weight_decay: times the weight, added to the gradient.
        clip_norm: gradients are scaled down to this global norm; 0 for no clipping.
        ema_decay: share of the old average that a step keeps; 0 for no average.
        scale_loss: whether the loss is scaled so that float16 gradients do not vanish.

    Attributes:
        velocities: of each weight, for momentum.
        average: the moving average of each weight; empty without EMA.
        loss_scale: the scale and the steps since it changed; empty where the loss is not scaled.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        decayed: Sequence[bool],
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        clip_norm: float = 0.0,
        ema_decay: float = 0.0,
        scale_loss: bool = False,
    ):
        self._variables = list(variables)
        self._decay = [weight_decay if decay else 0.0 for decay in decayed]
        self.momentum = momentum
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.velocities = [_zeros_like(v, "velocity") for v in self._variables]
        self.average = [_zeros_like(v, "average") for v in self._variables] if ema_decay else []
        self._averaged = list(zip(self.average, self._variables, strict=False))
        self.loss_scale = []
        if scale_loss:
            self.loss_scale += [_scalar(_FIRST_LOSS_SCALE, "loss_scale")]
            self.loss_scale += [_scalar(0.0, "steps_at_scale")]

    def reset(self) -> None:
        """As at the start of a phase: at rest, the average at the weights."""
        for velocity in self.velocities:
            velocity.assign(tf.zeros_like(velocity))
        self.start_average()

    def start_average(self) -> None:
        """The average begins anew at the weights."""
        for average, variable in self._averaged:
            average.assign(variable)

    def adopt_average(self) -> None:
        """The weights become their average; nothing without EMA."""
        for average, variable in self._averaged:
            variable.assign(average)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block, the weights are their average; then as they were."""
        kept = [variable.numpy() for _, variable in self._averaged]
        self.adopt_average()
        try:
            yield
        finally:
            for (_, variable), value in zip(self._averaged, kept, strict=True):
                variable.assign(value)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss to take gradients of."""
        return loss * tf.convert_to_tensor(self.loss_scale[0]) if self.loss_scale else loss

    def apply(self, gradients: Sequence[tf.Tensor], loss: tf.Tensor, rate: tf.Tensor) -> Update:
        """Averages the gradients over the replicas and moves the weights, or skips the step.

        Args:
            gradients: this replica's, of the scaled loss; one per weight.
            loss: averaged over the replicas; a step whose loss is not finite is skipped.
            rate: the learning rate.
        """
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync > 1:
            gradients = replica.all_reduce(tf.distribute.ReduceOp.MEAN, list(gradients))
        norm = tf.linalg.global_norm(gradients)
        factor = tf.constant(1.0)
        if self.loss_scale:
            factor /= tf.convert_to_tensor(self.loss_scale[0])
            norm *= factor
        if self.clip_norm:
            factor *= tf.minimum(1.0, self.clip_norm / norm)
        applied = tf.math.is_finite(norm) & tf.math.is_finite(loss)
        replica.merge_call(self._update_all, args=(gradients, factor, rate, applied))
        return Update(norm, applied)

    def _update_all(self, strategy, gradients, factor, rate, applied):
        """Once for all replicas, so that a step is skipped by all of them or by none."""

        def update():
            for index, variable in enumerate(self._variables):
                state = [self.velocities[index].value]
                state += [self.average[index].value] if self.average else []
                strategy.extended.update(
                    variable.value,
                    self._update_one,
                    args=(*state, gradients[index], factor, rate),
                    kwargs={"decay": self._decay[index]},
                )
            return tf.constant(True)

        first = strategy.experimental_local_results(applied)[0]
        tf.cond(first, update, lambda: tf.constant(False))
        if self.loss_scale:
            scale, steps = (variable.value for variable in self.loss_scale)
            strategy.extended.update(scale, _rescale, args=(steps, applied))

    def _update_one(self, variable, velocity, *rest, decay):
        *average, gradient, factor, rate = rest
        if self.clip_norm or self.loss_scale:
            gradient *= factor
        if decay:
            gradient += decay * variable
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=True,
        )
        for mean in average:
            mean.assign_sub((1.0 - self.ema_decay) * (mean - variable))


def _rescale(scale: tf.Variable, steps: tf.Variable, applied: tf.Tensor) -> None:
    """Halves the loss scale after an overflow; doubles it after many steps without one."""
    grown = steps + 1.0 >= _LOSS_SCALE_GROWS_AFTER
    kept = tf.where(grown, scale * 2.0, scale)
    scale.assign(tf.where(applied, kept, tf.maximum(scale / 2.0, 1.0)))
    steps.assign(tf.where(applied & ~grown, steps + 1.0, 0.0))


def _zeros_like(variable: keras.Variable, name: str) -> keras.Variable:
    return keras.Variable(
        "zeros", variable.shape, "float32", trainable=False, name=f"{variable.name}_{name}"
    )


def _scalar(value: float, name: str) -> keras.Variable:
    return keras.Variable(value, dtype="float32", trainable=False, name=name)
