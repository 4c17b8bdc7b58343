"""Trainer: runs a recipe's phases on a supernet, and goes on where it was interrupted."""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from ofa_tf.data import ImageData
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_bytes
from ofa_tf.models import Supernet
from ofa_tf.spaces import Arch
from ofa_tf.training import checkpoints
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.corners import watched_archs
from ofa_tf.training.curriculum import Curriculum
from ofa_tf.training.interruptions import SIGNALS, SignalWatch, heed
from ofa_tf.training.metrics import EpochSummary, MetricsLog
from ofa_tf.training.optimizer import Optimizer
from ofa_tf.training.phases import (
    FINETUNE,
    GROWING,
    PHASE_NAMES,
    SANDWICH,
    SINGLE,
    Phase,
    Teacher,
    open_choices,
)
from ofa_tf.training.recipe import Recipe
from ofa_tf.training.sampler import mixup_share, step_archs
from ofa_tf.training.sorting import sort_channels
from ofa_tf.training.step import StepResult, TrainStep
from ofa_tf.training.strategy import (
    distributed_batches,
    is_chief,
    num_workers,
    step_errors_told,
)
from ofa_tf.workdir import Workdir

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """How a run goes about its recipe; none of it changes what is computed.

    Args:
        checkpoint_minutes: the most training time that a crash can cost.
        keep_checkpoints: how many of the newest are kept.
        eval_epochs: the corner subnets are evaluated every so many epochs, and at the start and
            the end of each phase.
        eval_resolutions: pixels at which they are; by default the least and the largest trained.
        max_skipped_steps: so many steps in a row without finite gradients end the run.
        xla: compile the gradients with XLA; needs a supernet with elastic="mask".
    """

    checkpoint_minutes: float = 2.0
    keep_checkpoints: int = 2
    eval_epochs: int = 1
    eval_resolutions: tuple[int, ...] = ()
    max_skipped_steps: int = 20
    xla: bool = False


@dataclasses.dataclass
class _Position:
    """Where a run is: `phase_step` steps of `phase` are done, `step` in all.

    `ended` says that what comes after the last step of a phase has been done, too.
    """

    phase: str
    phase_step: int = 0
    step: int = 0
    ended: bool = False


class _RunningStep(NamedTuple):
    """A step that was started: its number in the phase, and what it trains."""

    result: StepResult
    number: int
    rate: float
    archs: Sequence[Arch]


# What a run that goes on reads of a checkpoint's state.
_STATE_KINDS = {"phase": str, "phase_step": int, "step": int, "ended": bool, "has_average": bool}


class Trainer:
    """Trains a supernet or one of its subnets, phase by phase as the recipe says.

    Args:
        supernet: trained in place; made within the strategy's scope.
        data: the images.
        recipe: what to do.
        workdir: where checkpoints and metrics go; with several workers, one that all can read.
        evaluator: accuracies of the corner subnets.
        settings: how to go about it.
        strategy: where it runs; the present one by default.
        init: a checkpoint of an earlier phase to start from. The teacher is the largest net's
            checkpoint beside it.
        largest: the trained supernet whose largest net teaches, and with whose weights phase
            finetune begins. By default the workdir's checkpoint of the largest net.

    Raises:
        UsageError: the recipe's batch, resolutions or phases do not fit the rest.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ImageData,
        recipe: Recipe,
        workdir: Workdir,
        evaluator: SubnetEvaluator,
        settings: RunSettings | None = None,
        *,
        strategy: tf.distribute.Strategy | None = None,
        init: str | os.PathLike | None = None,
        largest: Supernet | None = None,
    ):
        self.supernet = supernet
        self.data = data
        self.recipe = recipe
        self.workdir = workdir
        self.evaluator = evaluator
        self.settings = settings or RunSettings()
        self.strategy = strategy or tf.distribute.get_strategy()
        self.init = init
        self.is_chief = is_chief(self.strategy)
        self.steps_per_epoch = data.steps_per_epoch(recipe.batch_size)
        self.largest = largest
        self._check()
        with self.strategy.scope():
            self.optimizer = self._make_optimizer()
        self._folder = checkpoints.CheckpointFolder(
            workdir.checkpoints, self.settings.keep_checkpoints
        )
        self._train_steps: dict[tuple[Teacher, bool], TrainStep] = {}
        self._restored: tuple[_Position, str | None] | None = None
        self._saved, self._asked_to_save = time.monotonic(), False
        self._signals = SignalWatch()

    def _check(self) -> None:
        recipe, replicas = self.recipe, self.strategy.num_replicas_in_sync
        if recipe.batch_size % (replicas * recipe.accumulation_steps):
            raise UsageError(
                f"batch_size is {recipe.batch_size}; it must be a multiple of {replicas} replicas "
                f"times {recipe.accumulation_steps} accumulation_steps."
            )
        # Checked to be of the space.
        self.supernet.space.restrict(resolutions=self._eval_resolutions)
        first = recipe.phases[0].name
        if first == FINETUNE and self.largest is None:
            raise UsageError("Phase finetune begins with a trained supernet: give it as largest.")
        has_teacher = first in (PHASE_NAMES[0], FINETUNE) or self.init is not None
        if self._needs_largest and not has_teacher:
            raise UsageError(
                f"phases begin with {first}, so the weights of an earlier phase are needed: give "
                f"its checkpoint as init, begin with {PHASE_NAMES[0]}, or set kd_ratio to 0, which "
                "needs no teacher."
            )
        if first == SINGLE and self.init is not None:
            raise UsageError("Phase single begins with new weights: it takes no init.")
        on_tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)
        if on_tpu and self.supernet.elastic != "mask":
            raise UsageError("A TPU needs static shapes: give elastic=mask as well.")
        if self.settings.xla and self.supernet.elastic != "mask":
            raise UsageError("xla needs static shapes: give elastic=mask as well.")

    @property
    def _needs_largest(self) -> bool:
        """Whether the trained largest net teaches in any phase."""
        return Teacher.LARGEST in map(self.recipe.teacher, self.recipe.phases)

    @property
    def _eval_resolutions(self) -> Sequence[int]:
        trained = self.recipe.resolutions
        return self.settings.eval_resolutions or sorted({min(trained), max(trained)})

    def _make_optimizer(self) -> Optimizer:
        variables, recipe = self.supernet.trainable_variables, self.recipe
        return Optimizer(
            variables,
            # Weight decay is for kernels, not for batch norm, biases and kernel transforms.
            [variable.name == "kernel" for variable in variables],
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            clip_norm=recipe.clip_norm,
            ema_decay=recipe.ema_decay,
            scale_loss=recipe.precision == "float16",
        )

    def fit(self) -> None:
        """Runs what is left of the recipe.

        Raises:
            Interrupted: by a signal, after a checkpoint.
            UsageError: see `restore`.
            FailureError: gradients stay not finite, a checkpoint is damaged, the disk refuses,
                an image cannot be read, another worker ended.
        """
        if self._restored is None:
            self.restore()
        assert self._restored is not None  # by restore
        (position, before), self._restored = self._restored, None
        phases = self._phases_from(position.phase)
        with self._signals, step_errors_told(self.strategy, lambda: _place(position)):
            self._metrics = self._open_metrics(position)
            for phase in phases:
                if phase.name != position.phase:
                    before = position.phase
                    position.phase, position.phase_step, position.ended = phase.name, 0, False
                # A changed recipe may have made the phase shorter or longer than it was.
                is_longer = position.phase_step < phase.num_steps(self.steps_per_epoch)
                if is_longer or not position.ended:
                    self._run_phase(phase, position, before)

    # -- where a run starts ---------------------------------------------------------------------

    def restore(self) -> None:
        """Takes over the newest checkpoint, or `init`. `fit` does it where it was not done before.

        Raises:
            UsageError: the checkpoint or `init` does not fit the recipe's phases.
            FailureError: it is damaged or of another network.
        """
        position, before = self._restore()
        self._phases_from(position.phase)
        self._restored = position, before

    def _restore(self) -> tuple[_Position, str | None]:
        """The position to go on from, and the phase whose weights a fresh run begins with."""
        state = self._folder.load_newest(
            optional=("average", "loss_scale"),
            kinds=_STATE_KINDS,
            weights=self.supernet.variables,
            velocities=self.optimizer.velocities,
            average=self.optimizer.average,
            loss_scale=self.optimizer.loss_scale,
        )
        first = self.recipe.phases[0].name
        if state is None:
            return _Position(first), self._begin(first)
        if not state["has_average"]:
            self.optimizer.start_average()
        place = {field.name: state[field.name] for field in dataclasses.fields(_Position)}
        return _Position(**place), None

    def _begin(self, first_phase: str) -> str | None:
        """Takes over the weights that a fresh run begins with, if any; gives their phase."""
        if self.recipe.zero_last_gamma and not self.init:
            for block in self.supernet.blocks:
                if block.last_batch_norm:
                    block.last_batch_norm.gamma.assign(tf.zeros_like(block.last_batch_norm.gamma))
        if first_phase == FINETUNE:
            trained = self.largest.variables
            for variable, value in zip(self.supernet.variables, trained, strict=True):
                variable.assign(value.numpy())
            return PHASE_NAMES[-1]
        return self._load_init(first_phase) if self.init else None

    def _load_init(self, first_phase: str) -> str:
        """Takes over the weights of an earlier phase, and its teacher; gives the phase's name."""
        state = checkpoints.load(
            self.init, remedy="Give another --init.", weights=self.supernet.variables
        )
        name = state.get("phase")
        order = (*PHASE_NAMES, GROWING, SANDWICH)
        if name not in order or order.index(name) >= order.index(first_phase):
            raise UsageError(f"{self.init} is of phase {name}, which is not before {first_phase}.")
        teacher = pathlib.Path(self.init).with_name(self.workdir.teacher.name)
        if self._needs_largest and self.is_chief:
            if not teacher.exists():
                raise UsageError(
                    f"{teacher} is missing: phase {first_phase} learns from the largest net, "
                    "whose checkpoint must be beside that of --init."
                )
            write_bytes(self.workdir.teacher, teacher.read_bytes())
        return name

    def _phases_from(self, name: str) -> Sequence[Phase]:
        names = [phase.name for phase in self.recipe.phases]
        if name not in names:
            raise UsageError(
                f"The run in {self.workdir.path} is in phase {name}, which the recipe does not "
                f"have; it has {', '.join(names)}. Add it, or train in another workdir."
            )
        return self.recipe.phases[names.index(name) :]

    # -- a phase --------------------------------------------------------------------------------

    def _run_phase(self, phase: Phase, position: _Position, before: str | None) -> None:
        """Trains what is left of a phase, evaluates its corners and saves.

        `before` is the phase that the weights come from, where this one is at its start.
        """
        position.ended = False
        teacher = self.recipe.teacher(phase)
        if teacher is Teacher.LARGEST and self.largest is None:
            self.largest = self._load_largest()
        if position.phase_step == 0:
            if phase.widens and before and self.recipe.sort_channels:
                sort_channels(self.supernet, open_choices(before, self.supernet.space))
            self.optimizer.reset()
            if before:
                self._evaluate(phase, position, "before")
        asked = self._train(phase, position)
        self.optimizer.adopt_average()
        self._save_phase(phase)
        accuracies = self._evaluate(phase, position, "after")
        position.ended = True
        self._save(position)
        self._tell(phase, accuracies)
        # Several workers stop together, so a signal that came later waits for the next step.
        heed(asked[1:] if num_workers(self.strategy) > 1 else self._signals.counts())

    def _train(self, phase: Phase, position: _Position) -> Sequence[int]:
        """The steps of a phase from `position` on, which moves with them.

        Gives what the workers asked for in the last step.
        """
        batch_size = self.recipe.batch_size
        curriculum = Curriculum(
            phase, self.recipe, self.supernet.space, self.supernet.num_classes, self.steps_per_epoch
        )
        steps = curriculum.num_steps
        batches = self._batches(position, curriculum)
        train_step = self._train_step(phase, batches.element_spec)
        epoch = EpochSummary(batch_size)
        running: collections.deque[_RunningStep] = collections.deque()
        skipped_in_row = 0
        asked: Sequence[int] = [0] * (1 + len(SIGNALS))
        bar = tqdm(
            total=steps * batch_size,
            initial=position.phase_step * batch_size,
            desc=phase.name,
            unit="img",
            disable=not self.is_chief,
        )
        batches = iter(batches)
        with bar:
            while position.phase_step < steps:
                with epoch.waiting():
                    batch = next(batches)
                running.append(self._start_step(train_step, batch, phase, curriculum, position))
                is_last = position.phase_step == steps
                ends_epoch = position.phase_step % self.steps_per_epoch == 0 or is_last
                # A step is read while the next one runs, so that no accelerator waits for Python.
                while len(running) > (not ends_epoch):
                    step = running.popleft()
                    result = step.result.read()
                    skipped_in_row = 0 if result.applied else skipped_in_row + 1
                    if skipped_in_row >= self.settings.max_skipped_steps:
                        raise self._diverged(phase, step, skipped_in_row)
                    asked = result.asked
                    epoch.add(result)
                    bar.update(batch_size)
                    bar.set_postfix(loss=f"{result.loss:.3f}", refresh=False)
                if ends_epoch:
                    self._end_epoch(phase, position, epoch, step.rate, is_last)
                    epoch = EpochSummary(batch_size)
                # The last step's checkpoint says that the phase is done, so it comes after all of
                # the phase's work.
                if any(asked) and not is_last:
                    self._save(position)
                    heed(asked[1:])
        return asked

    def _start_step(
        self,
        train_step: TrainStep,
        batch: Any,
        phase: Phase,
        curriculum: Curriculum,
        position: _Position,
    ) -> _RunningStep:
        """Starts the step at a position, which moves on."""
        recipe, space = self.recipe, curriculum.space(position.phase_step)
        archs = step_archs(phase, space, recipe.seed, position.step, recipe.arch, recipe.coupling)
        spent = curriculum.clock(position.phase_step)
        rate = phase.learning_rate(spent, self.steps_per_epoch, recipe.batch_size)
        result = train_step(
            batch,
            np.stack([space.sizes(arch) for arch in archs]),
            rate,
            position.step,
            mixup_share(recipe.mixup_alpha, recipe.seed, position.step),
            self._asks(),
        )
        started = _RunningStep(result, position.phase_step, rate, archs)
        position.phase_step += 1
        position.step += 1
        return started

    def _batches(self, position: _Position, curriculum: Curriculum) -> Any:
        recipe, count = self.recipe, self.strategy.num_replicas_in_sync
        resolutions = curriculum.resolutions(position.step - position.phase_step)
        return distributed_batches(
            self.strategy,
            lambda replicas: self.data.train_batches(
                recipe.batch_size,
                resolutions,
                seed=recipe.seed,
                first_step=position.step,
                augmentation=recipe.augmentation,
                num_replicas=count,
                replicas=replicas,
            ),
        )

    def _train_step(self, phase: Phase, batch_spec: Any) -> TrainStep:
        """The traced step; phases of one form share it."""
        form = (self.recipe.teacher(phase), phase.subnets_per_step > 1)
        if form not in self._train_steps:
            self._train_steps[form] = TrainStep(
                self.supernet,
                self.optimizer,
                self.recipe,
                self.strategy,
                batch_spec,
                teacher=form[0],
                largest=self.largest,
                several=form[1],
                xla=self.settings.xla,
            )
        return self._train_steps[form]

    def _load_largest(self) -> Supernet:
        """The teacher: the largest net as its phase left it."""
        with self.strategy.scope():
            largest = Supernet(
                self.supernet.space,
                self.supernet.num_classes,
                elastic=self.supernet.elastic,
                dtype=self.supernet.dtype_policy.name,
            )
        remedy = "Restore it from a copy, or train from phase largest on in another workdir."
        checkpoints.load(self.workdir.teacher, remedy=remedy, weights=largest.variables)
        return largest

    # -- accuracies and metrics -----------------------------------------------------------------

    def _end_epoch(
        self, phase: Phase, position: _Position, epoch: EpochSummary, rate: float, is_last: bool
    ) -> None:
        number = position.phase_step / self.steps_per_epoch
        self._write(
            position,
            phase=phase.name,
            epoch=round(number, 2),
            learning_rate=rate,
            **epoch.summary(),
        )
        if not is_last and number % self.settings.eval_epochs == 0:
            with self.optimizer.averaged():
                self._evaluate(phase, position, f"epoch {number:g}")

    def _evaluate(self, phase: Phase, position: _Position, when: str) -> dict[str, float]:
        """Accuracies of the subnets that are watched, by name, from the smallest to the largest."""
        archs = watched_archs(self.recipe, phase, self.supernet.space, self._eval_resolutions)
        title = f"{phase.name} accuracy"
        bar = tqdm(archs.items(), title, leave=False, disable=not self.is_chief)
        accuracies: dict[str, float] = {}
        for name, arch in bar:
            # One worker may stop early; the checkpoint after the phase comes after its evaluation.
            if self._signals.came and when != "after" and num_workers(self.strategy) == 1:
                return accuracies
            accuracies[name] = self.evaluator.accuracy(arch)
        images = {"split": self.evaluator.split, "num_images": self.evaluator.num_images}
        self._write(position, of=images, phase=phase.name, when=when, accuracy=accuracies)
        return accuracies

    def _open_metrics(self, position: _Position) -> MetricsLog | None:
        if not self.is_chief:
            return None
        return MetricsLog(self.workdir.metrics, self.workdir.tensorboard, position.step)

    def _write(self, position: _Position, **row: Any) -> None:
        if self._metrics:
            self._metrics.write(position.step, **row)

    def _tell(self, phase: Phase, accuracies: dict[str, float]) -> None:
        """Says that a phase is done, and how accurate its largest and smallest subnets are."""
        names = list(accuracies)
        ends = {f"largest ({names[-1]}) ": names[-1], f"smallest ({names[0]}) ": names[0]}
        if len(names) == 1:
            ends = {"": names[0]}
        told = ", ".join(f"{end}{100 * accuracies[name]:.1f} %" for end, name in ends.items())
        count, split = self.evaluator.num_images, self.evaluator.split
        if self.is_chief:
            _log.info(
                "Phase %s done; accuracy on %d %s images: %s.", phase.name, count, split, told
            )

    # -- checkpoints, divergence ----------------------------------------------------------------

    def _save(self, position: _Position) -> None:
        """All workers take part, since statistics are averaged over them; the chief writes."""
        state = {
            **dataclasses.asdict(position),
            "finished": position.ended and position.phase == self.recipe.phases[-1].name,
            "has_average": bool(self.optimizer.average),
            # All randomness is a function of the seed and the step.
            "recipe": self.recipe.to_dict(),
        }
        arrays = checkpoints.snapshot(
            weights=self.supernet.variables,
            velocities=self.optimizer.velocities,
            average=self.optimizer.average,
            loss_scale=self.optimizer.loss_scale,
        )
        if self.is_chief:
            self._folder.save(position.step, state, arrays)
        self._saved, self._asked_to_save = time.monotonic(), False

    def _save_phase(self, phase: Phase) -> None:
        """What a phase leaves: the weights that later phases, alone or not, start from."""
        arrays = checkpoints.snapshot(weights=self.supernet.variables)
        if self.is_chief:
            checkpoints.save(self.workdir.phase(phase.name), {"phase": phase.name}, arrays)

    def _asks(self) -> list[int]:
        """What this worker asks of all: to save, or to stop for a signal."""
        due = time.monotonic() - self._saved > 60 * self.settings.checkpoint_minutes
        asks = due and self.is_chief and not self._asked_to_save
        self._asked_to_save |= asks
        return [int(asks), *self._signals.counts()]

    def _diverged(self, phase: Phase, step: _RunningStep, count: int) -> FailureError:
        good = self._folder.newest()
        return FailureError(
            f"The loss or a gradient was not finite in {count} steps in a row. Phase {phase.name}, "
            f"step {step.number} of the phase, learning rate {step.rate:.4g}, arch "
            f"{json.dumps(step.archs[-1].to_dict())}. Last good checkpoint: {good or 'none'}. "
            "Train on from it with --allow_recipe_change and a lower base_lr, a longer warm-up or "
            "a clip_norm."
        )


def _place(position: _Position) -> str:
    return f"Phase {position.phase} failed at step {position.phase_step}"
