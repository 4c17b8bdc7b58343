"""Curriculum: which subnets a phase trains at each of its steps, at which resolutions."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ofa_tf.spaces import Arch, SearchSpace
from ofa_tf.training.phases import SANDWICH, Phase, Teacher
from ofa_tf.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a phase.

    Attributes:
        share: of the phase's cost.
        side: of the images, as a share of the least one that is trained; None for those that are.
        depths: how many of the least depths are open; None for all.
        kernel_sizes: how many of the least kernels.
        expand_ratios: how many of the least expand ratios, and of the width multipliers.
    """

    share: float
    side: float | None = None
    depths: int | None = None
    kernel_sizes: int | None = None
    expand_ratios: int | None = None

    def restrict(self, space: SearchSpace) -> SearchSpace:
        """The part of a space that is open."""
        counts = {
            "depths": self.depths,
            "kernel_sizes": self.kernel_sizes,
            "expand_ratios": self.expand_ratios,
            "widths": self.expand_ratios,
        }
        least = {
            field: getattr(space, field)[:count]
            for field, count in counts.items()
            if count and getattr(space, field)
        }
        return space.restrict(**least)

    def resolutions(self, trained: Sequence[int]) -> tuple[int, ...]:
        """Pixels, a multiple of 4."""
        return tuple(trained) if self.side is None else (4 * round(min(trained) * self.side / 4),)


# Shares and sides were found on CIFAR-10's validation images (docs/RESULTS.md).
_GROWING = (
    Stage(0.20, 2 / 3, depths=1, kernel_sizes=1, expand_ratios=2),
    Stage(0.20, 2 / 3, depths=2, kernel_sizes=2),
    Stage(0.05, 5 / 6, depths=2),
    Stage(0.15, 5 / 6),
    Stage(0.40),
)
# What a step costs besides its images, in multiply-accumulates for each weight of the largest net:
# its update, and the dispatch of its operations.
_STEP_COST_PER_WEIGHT = 170
_SAMPLED_ARCHS = 100  # for the mean cost of a stage's


class Work(NamedTuple):
    """What a phase computes, in multiply-accumulates; estimated from some of its random subnets.

    Attributes:
        subnets: the forward passes of its subnets, over all images.
        teacher: the forward passes of a teacher that is no subnet of the same step.
        steps: what steps of subnets cost besides their images.
    """

    subnets: float
    teacher: float
    steps: float

    @property
    def cost(self) -> float:
        """To compare phases by: in forward passes with the backward pass that goes with each.

        A backward pass costs as much as two forward ones; a teacher has none.
        """
        return self.subnets + self.teacher / 3 + self.steps

    @property
    def flops(self) -> float:
        """Floating-point operations of the forward and backward passes."""
        return 6 * self.subnets + 2 * self.teacher


class Curriculum:
    """What a phase trains at each of its steps, and how far it is by what the steps cost.

    The cost is counted, in multiply-accumulates, and not timed: so each stage has its number of
    steps beforehand, the same on every machine and after every interruption. The learning rate
    follows the cost: low-resolution steps of small subnets are many and cheap.

    Args:
        phase: what is trained.
        recipe: its images, and how it grows.
        space: of the supernet.
        num_classes: of the images.
        steps_per_epoch: of the images.

    Attributes:
        num_steps: of the phase.
    """

    def __init__(
        self,
        phase: Phase,
        recipe: Recipe,
        space: SearchSpace,
        num_classes: int,
        steps_per_epoch: int,
    ):
        self.num_steps = phase.num_steps(steps_per_epoch)
        self._phase, self._recipe, self._num_classes = phase, recipe, num_classes
        self._largest = space.max()
        params = space.blueprint(self._largest, num_classes).params
        self._step_cost = _STEP_COST_PER_WEIGHT * params
        stages = _stages(recipe)
        space = phase.restrict(space)
        self._spaces = [stage.restrict(space) for stage in stages]
        self._resolutions = [stage.resolutions(recipe.resolutions) for stage in stages]
        if len(stages) == 1:
            costs = np.ones(1)
        else:
            parts = zip(self._spaces, self._resolutions, strict=True)
            costs = np.array([_mean_macs(*part, num_classes, recipe.arch) for part in parts])
            costs *= recipe.batch_size
            costs += self._step_cost
        shares = [stage.share for stage in stages]
        ends = np.cumsum(shares / costs)
        self._ends = [round(float(end)) for end in ends * (self.num_steps / ends[-1])]
        self._starts = [0, *self._ends[:-1]]
        # The clock: what was spent at the end of each stage.
        spent = np.cumsum(np.diff([0, *self._ends]) * costs)
        self._rates = costs * (self.num_steps / spent[-1])
        self._clock = [0.0, *(spent * (self.num_steps / spent[-1]))]

    def space(self, step: int) -> SearchSpace:
        """The subnets that are open at a step of the phase."""
        return self._spaces[self._stage(step)]

    def clock(self, step: int) -> float:
        """What the steps before a step cost, in steps of the phase's mean cost."""
        stage = self._stage(step)
        return self._clock[stage] + (step - self._starts[stage]) * float(self._rates[stage])

    def resolutions(self, first_step: int = 0) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """For `ImageData.train_batches`: from which step on which pixels are drawn.

        Args:
            first_step: the global step of the phase's first.
        """
        return tuple(
            (first_step + start, choices)
            for start, choices in zip(self._starts, self._resolutions, strict=True)
        )

    def work(self) -> Work:
        """What all steps of the phase compute."""
        phase, recipe = self._phase, self._recipe
        taught = recipe.teacher(phase) is Teacher.LARGEST
        subnets = teacher = steps = 0.0
        parts = zip(np.diff([0, *self._ends]), self._spaces, self._resolutions, strict=True)
        for num_steps, space, pixels in parts:
            count = phase.subnets_per_step
            always = [space.max(), space.min()] if phase.name == SANDWICH else []
            macs = sum(_mean_macs(space, pixels, self._num_classes, arch) for arch in always)
            if count > len(always):
                drawn = _mean_macs(space, pixels, self._num_classes, recipe.arch)
                macs += (count - len(always)) * drawn
            images = int(num_steps) * recipe.batch_size
            subnets += images * macs
            steps += int(num_steps) * count * self._step_cost
            if taught:
                teacher += images * _mean_macs(space, pixels, self._num_classes, self._largest)
        return Work(subnets, teacher, steps)

    def _stage(self, step: int) -> int:
        return min(bisect.bisect_right(self._ends, step), len(self._ends) - 1)


def _stages(recipe: Recipe) -> list[Stage]:
    """The stages of growth that a recipe asks for; those in a row that are alike are one."""
    stages: list[Stage] = []
    for stage in _GROWING:
        if not recipe.low_resolution_first:
            stage = dataclasses.replace(stage, side=None)
        if not recipe.small_subnets_first:
            stage = Stage(stage.share, stage.side)
        if stages and dataclasses.replace(stages[-1], share=stage.share) == stage:
            stage = dataclasses.replace(stage, share=stage.share + stages.pop().share)
        stages.append(stage)
    return stages


def _mean_macs(
    space: SearchSpace, resolutions: Sequence[int], num_classes: int, arch: Arch | None
) -> float:
    """Of the subnets of a space, or of an arch, at resolutions that need not be the space's."""
    if arch:
        archs = [arch] * len(resolutions)
    else:
        codes = space.sample_codes(_SAMPLED_ARCHS, np.random.default_rng(0))
        archs = space.decode(codes)
    networks = [
        space.family.blueprint(dataclasses.replace(each, resolution=pixels), num_classes)
        for each, pixels in zip(archs, itertools.cycle(resolutions), strict=False)
    ]
    return float(np.mean([network.macs for network in networks]))
