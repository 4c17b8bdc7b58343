"""Trainer: runs a recipe's phases on a supernet, and goes on where it was interrupted."""

from __future__ import annotations

import logging
import math
import signal
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from ofa_tf.data import ImageData
from ofa_tf.errors import FailureError
from ofa_tf.files import append_json
from ofa_tf.models import Supernet
from ofa_tf.spaces.search_space import SIZE_FIELDS
from ofa_tf.training import checkpoints
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.distillation import smooth_labels, subnet_loss
from ofa_tf.training.phases import Phase, Recipe
from ofa_tf.training.sampler import step_sizes
from ofa_tf.training.sorting import sort_channels
from ofa_tf.workdir import Workdir

_log = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came; the step was finished and saved. `exit_code` is 128 + signal."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class _Signals:
    """Within the block, SIGINT and SIGTERM call `handler`; only the main thread may do that."""

    def __init__(self, handler):
        self._handler = handler

    def __enter__(self):
        self._before = {s: signal.signal(s, self._handler) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Trainer:
    """Progressive shrinking (arXiv 1908.09791) of one supernet, on one device.

    Args:
        supernet: trained in place.
        data: the images.
        recipe: what to do.
        workdir: where checkpoints and metrics go.
        evaluator: accuracies after each phase.
        checkpoint_minutes: the most training time that a crash can cost.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ImageData,
        recipe: Recipe,
        workdir: Workdir,
        evaluator: SubnetEvaluator,
        checkpoint_minutes: float = 2.0,
    ):
        self.supernet = supernet
        self.data = data
        self.recipe = recipe
        self.workdir = workdir
        self.evaluator = evaluator
        self.checkpoint_minutes = checkpoint_minutes
        self.teacher: Supernet | None = None
        self.steps_per_epoch = data.steps_per_epoch(recipe.batch_size)
        self.optimizer = keras.optimizers.SGD(momentum=recipe.momentum, nesterov=True)
        self.optimizer.build(supernet.trainable_variables)
        self._folder = checkpoints.CheckpointFolder(workdir.checkpoints)
        self._groups = {"weights": supernet.variables, "optimizer": self.optimizer.variables}
        # Weight decay is for kernels, not for batch norm, biases and kernel transforms.
        self._decayed = [v.name == "kernel" for v in supernet.trainable_variables]
        self._step_functions: dict[tuple[bool, bool], tf.types.experimental.GenericFunction] = {}
        self._signal: int | None = None

    def fit(self) -> None:
        """Runs what is left of the recipe.

        Raises:
            Interrupted: by a signal, after a checkpoint.
            FailureError: the loss is not finite, a checkpoint is damaged, the disk refuses.
        """
        state = self._folder.load_newest(**self._groups) or {"step": 0}
        first_of_phase = 0
        with _Signals(self._on_signal):
            for phase in self.recipe.phases:
                steps = phase.num_steps(self.steps_per_epoch)
                if state["step"] < first_of_phase + steps:
                    self._run_phase(phase, first_of_phase, state["step"] - first_of_phase)
                    state = {"step": first_of_phase + steps}
                first_of_phase += steps

    def _run_phase(self, phase: Phase, first_of_phase: int, done: int) -> None:
        """Trains what is left of a phase after `done` steps, evaluates its corners and saves."""
        if done <= 0:
            done = 0
            self._start_phase(phase)
        if phase.distills and self.teacher is None:
            self.teacher = self._load_teacher()
        self._train(phase, first_of_phase, done)
        self._finish_phase(phase, first_of_phase + phase.num_steps(self.steps_per_epoch))
        self._stop_if_asked()

    def _train(self, phase: Phase, first_of_phase: int, done: int) -> None:
        """The steps of a phase from `done` on; `first_of_phase` is the run's step of its first."""
        recipe, batch_size = self.recipe, self.recipe.batch_size
        space = phase.restrict(self.supernet.space)
        steps = phase.num_steps(self.steps_per_epoch)
        train_step = self._step_function(phase)
        batches = self.data.train_batches(
            batch_size,
            recipe.resolutions,
            seed=recipe.seed,
            first_step=first_of_phase + done,
            augmentation=recipe.augmentation,
        )
        losses, saved, epoch_start = [], time.monotonic(), time.monotonic()
        bar = tqdm(total=steps * batch_size, initial=done * batch_size, desc=phase.name, unit="img")
        with bar:
            for step, (images, labels) in zip(range(done, steps), batches, strict=False):
                run_step = first_of_phase + step
                sizes = step_sizes(space, recipe.seed, run_step, phase.subnets_per_step)
                rate = phase.learning_rate(step, self.steps_per_epoch, batch_size)
                loss = float(train_step(images, labels, sizes, rate))
                self._check(loss, phase, step, rate)
                losses.append(loss)
                bar.update(batch_size)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                is_last = step + 1 == steps
                if (step + 1) % self.steps_per_epoch == 0 or is_last:
                    seconds = time.monotonic() - epoch_start
                    self._log(
                        phase=phase.name,
                        epoch=round((step + 1) / self.steps_per_epoch, 2),
                        step=run_step + 1,
                        loss=float(np.mean(losses)),
                        learning_rate=rate,
                        images_per_second=len(losses) * batch_size / seconds,
                    )
                    losses, epoch_start = [], time.monotonic()
                due = self._signal or time.monotonic() - saved > 60 * self.checkpoint_minutes
                # The last step's checkpoint says that the phase is done, so it comes after all of
                # the phase's work.
                if due and not is_last:
                    self._save(run_step + 1)
                    saved = time.monotonic()
                    self._stop_if_asked()

    def _start_phase(self, phase: Phase) -> None:
        """A new phase starts with the optimizer at rest, and sorted channels before it widens."""
        for variable in self.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        if phase.widens:
            before = self.recipe.phases[self.recipe.phases.index(phase) - 1]
            sort_channels(self.supernet, before.restrict(self.supernet.space))

    def _finish_phase(self, phase: Phase, step: int) -> None:
        if phase.name == "largest":
            checkpoints.save(self.workdir.teacher, {}, weights=self.supernet.variables)
        space = phase.restrict(self.supernet.space)
        accuracies = {
            name: self.evaluator.accuracy(arch)
            for name, arch in (("largest", space.max()), ("smallest", space.min()))
        }
        self._log(phase=phase.name, step=step, accuracy=accuracies)
        _log.info(
            "Phase %s done; accuracy on the %s images: largest %.1f %%, smallest %.1f %%.",
            phase.name,
            self.evaluator.split,
            100 * accuracies["largest"],
            100 * accuracies["smallest"],
        )
        self._save(step, finished=phase == self.recipe.phases[-1])

    def _load_teacher(self) -> Supernet:
        teacher = Supernet(self.supernet.space, self.supernet.num_classes)
        checkpoints.load(self.workdir.teacher, weights=teacher.variables)
        return teacher

    def _step_function(self, phase: Phase) -> tf.types.experimental.GenericFunction:
        """The traced training step; phases of one form share it."""
        form = (phase.distills, phase.subnets_per_step > 1)
        if form not in self._step_functions:
            num_positions = self.supernet.space.num_positions
            signature = [
                tf.TensorSpec([None, None, None, 3], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None, num_positions, len(SIZE_FIELDS)], tf.int32),
                tf.TensorSpec([], tf.float32),
            ]
            run = self._train_many if form[1] else self._train_one
            self._step_functions[form] = tf.function(
                lambda images, labels, sizes, rate: run(images, labels, sizes, rate, form[0]),
                signature,
            )
        return self._step_functions[form]

    def _train_one(self, images, labels, sizes, rate, distills):
        targets, teacher_logits = self._targets(images, labels, distills)
        loss, gradients = self._gradients(images, targets, teacher_logits, sizes[0])
        self._update(gradients, rate)
        return loss

    def _train_many(self, images, labels, sizes, rate, distills):
        """Sums the gradients of several subnets on one batch, in a loop that is traced once."""
        targets, teacher_logits = self._targets(images, labels, distills)

        def add_subnet(index, total_loss, totals):
            loss, gradients = self._gradients(images, targets, teacher_logits, sizes[index])
            totals = [total + gradient for total, gradient in zip(totals, gradients, strict=True)]
            return index + 1, total_loss + loss, totals

        count = tf.shape(sizes)[0]
        zeros = [tf.zeros(v.shape, v.dtype) for v in self.supernet.trainable_variables]
        _, total_loss, gradients = tf.while_loop(
            lambda index, *_: index < count,
            add_subnet,
            (tf.constant(0), tf.constant(0.0), zeros),
            # One after the other: the batch-norm updates of two subnets must not interleave.
            parallel_iterations=1,
        )
        self._update(gradients, rate)
        return total_loss / tf.cast(count, tf.float32)

    def _targets(self, images, labels, distills):
        targets = smooth_labels(labels, self.supernet.num_classes, self.recipe.label_smoothing)
        if not distills:
            return targets, None
        # The teacher normalizes with the batch's statistics, as published, and keeps its own.
        return targets, self.teacher(images, self.supernet.space.max(), bn_momentum=1.0)

    def _gradients(self, images, targets, teacher_logits, sizes):
        with tf.GradientTape() as tape:
            logits = self.supernet(images, sizes, training=True)
            loss = subnet_loss(logits, targets, teacher_logits, self.recipe.kd_ratio)
        variables = self.supernet.trainable_variables
        return loss, tape.gradient(loss, variables, unconnected_gradients="zero")

    def _update(self, gradients, rate):
        variables = self.supernet.trainable_variables
        decayed = [
            gradient + self.recipe.weight_decay * tf.convert_to_tensor(variable)
            if decay
            else gradient
            for gradient, variable, decay in zip(gradients, variables, self._decayed, strict=True)
        ]
        self.optimizer.learning_rate = rate
        self.optimizer.apply(decayed, variables)

    def _check(self, loss: float, phase: Phase, step: int, rate: float) -> None:
        if not math.isfinite(loss):
            raise FailureError(
                f"The loss became {loss} in phase {phase.name} at step {step}, learning rate "
                f"{rate:.4g}. Train anew in another workdir, with a lower base_lr or a longer "
                "warm-up."
            )

    def _save(self, step: int, finished: bool = False) -> None:
        self._folder.save(step, {"finished": finished}, **self._groups)

    def _log(self, **row) -> None:
        append_json(self.workdir.metrics, row)

    def _stop_if_asked(self) -> None:
        if self._signal:
            raise Interrupted(self._signal)

    def _on_signal(self, signal_number: int, _frame) -> None:
        self._signal = signal_number
        _log.info("Finishing the step and saving; this run can be continued.")
