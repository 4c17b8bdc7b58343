"""Phases: which subnets a stage of training opens, how many a step, at which learning rate."""

from __future__ import annotations

import dataclasses
import enum
import math

from ofa_tf.errors import UsageError
from ofa_tf.spaces import SearchSpace

# How many of the largest choices of (depth, kernel size, expand ratio) each phase opens;
# None for all. From arXiv 1908.09791, section 3.3, and its released settings. Width multipliers
# open with the expand ratios: both are the width of a feature map.
_OPEN = {
    "largest": (1, 1, 1),
    "kernel": (1, None, 1),
    "depth1": (2, None, 1),
    "depth2": (None, None, 1),
    "expand1": (None, None, 2),
    "expand2": (None, None, None),
}
PHASE_NAMES = tuple(_OPEN)  # of progressive shrinking, in order
GROWING = "growing"  # of all choices, in one phase that grows (curriculum.py)
SANDWICH = "sandwich"
FINETUNE = "finetune"  # of one subnet, from the supernet's weights
SINGLE = "single"  # of one subnet, from new weights: what a supernet is compared with
OF_ONE_SUBNET = (FINETUNE, SINGLE)
# Phases that are a schedule of their own.
ALONE = (GROWING, SANDWICH, *OF_ONE_SUBNET)
# The phases that a schedule runs by default.
SCHEDULES = {
    GROWING: (GROWING,),
    "progressive": PHASE_NAMES,
    SANDWICH: (SANDWICH,),
    SINGLE: (SINGLE,),
}
# What the schedule growing does, as fields of a recipe; the others only where they are asked to.
GROWTH = {
    "low_resolution_first": True,
    "small_subnets_first": True,
    "coupling": 0.5,
    "zero_last_gamma": True,
}

# A step is saved and interrupted as a whole, so it should not take minutes.
MAX_SUBNETS_PER_STEP = 64


class Teacher(enum.Enum):
    """Whose probabilities the subnets of a phase learn from, besides or instead of the labels."""

    NONE = enum.auto()
    # The largest net as the first phase left it (arXiv 1908.09791); for fine-tuning, as it is in
    # the trained supernet.
    LARGEST = enum.auto()
    IN_PLACE = enum.auto()  # the largest net of the same step (arXiv 2003.11142)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stage of training.

    Args:
        name: one of PHASE_NAMES, which decides the choices that are open; GROWING, which opens
            them as the recipe says; SANDWICH, which opens all and trains the largest, the smallest
            and random subnets in every step; or FINETUNE or SINGLE, which train the recipe's one
            arch.
        epochs: passes over the training images, warm-up included.
        base_lr: peak learning rate for 64 images a step; it grows linearly with the batch.
        warmup_epochs: epochs of linear warm-up; then the rate falls as a half cosine.
        subnets_per_step: subnets whose gradients are summed in a step.

    Raises:
        UsageError: naming the field that is out of range.
    """

    name: str
    epochs: float
    base_lr: float
    warmup_epochs: float = 0.0
    subnets_per_step: int = 1

    def __post_init__(self):
        known = (*_OPEN, *ALONE)
        if self.name not in known:
            raise UsageError(f"There is no phase {self.name!r}; known: {', '.join(known)}.")
        positive = (self.epochs, self.base_lr, self.subnets_per_step)
        if not all(0 < value < math.inf for value in positive):  # NaN is not either
            raise UsageError(
                f"Phase {self.name} needs positive epochs, base_lr and subnets_per_step, not "
                f"{self.epochs}, {self.base_lr} and {self.subnets_per_step}."
            )
        if self.subnets_per_step > MAX_SUBNETS_PER_STEP:
            raise UsageError(
                f"Phase {self.name}: subnets_per_step is at most {MAX_SUBNETS_PER_STEP}, not "
                f"{self.subnets_per_step}; published recipes have 1 to 4."
            )
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UsageError(
                f"Phase {self.name}: warmup_epochs is from 0 to its {self.epochs} epochs, "
                f"not {self.warmup_epochs}."
            )
        if self.name == SANDWICH and self.subnets_per_step < 2:
            raise UsageError(
                "Phase sandwich trains the largest and the smallest net in every step: "
                f"subnets_per_step is at least 2, not {self.subnets_per_step}."
            )
        if self.name in OF_ONE_SUBNET and self.subnets_per_step != 1:
            raise UsageError(
                f"Phase {self.name} trains one subnet: subnets_per_step is 1, not "
                f"{self.subnets_per_step}."
            )

    def restrict(self, space: SearchSpace) -> SearchSpace:
        """The subnets that this phase trains."""
        return open_choices(self.name, space)

    @property
    def widens(self) -> bool:
        """Whether channels are sorted by importance before this phase."""
        return self.name.startswith("expand")

    @property
    def teacher(self) -> Teacher:
        if self.name == SANDWICH:
            return Teacher.IN_PLACE
        untaught = self.name in (PHASE_NAMES[0], GROWING, SINGLE)
        return Teacher.NONE if untaught else Teacher.LARGEST

    def num_steps(self, steps_per_epoch: int) -> int:
        return max(1, round(self.epochs * steps_per_epoch))

    def learning_rate(self, step: float, steps_per_epoch: int, batch_size: int) -> float:
        """The rate at a step of this phase: linear warm-up, then a half cosine to zero.

        Where steps differ in cost, `step` is what was spent, in steps of the mean cost.
        """
        peak = self.base_lr * batch_size / 64
        steps = self.num_steps(steps_per_epoch)
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return min(peak, peak * (step + 1) / warmup)
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def open_choices(phase_name: str, space: SearchSpace) -> SearchSpace:
    """The part of a space that is trained when a phase has ended."""
    if phase_name not in _OPEN:
        return space
    depth, kernel, expand = _OPEN[phase_name]
    counts = {"depths": depth, "kernel_sizes": kernel, "expand_ratios": expand, "widths": expand}
    largest = {
        field: getattr(space, field)[-count:]
        for field, count in counts.items()
        if count and getattr(space, field)
    }
    return space.restrict(**largest)
