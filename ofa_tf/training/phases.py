"""Phases of progressive shrinking, and the recipe that chains them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ofa_tf.data import Augmentation
from ofa_tf.errors import UsageError
from ofa_tf.spaces import SearchSpace

# How many of the largest choices of (depth, kernel size, expand ratio) each phase opens;
# None for all. From arXiv 1908.09791, section 3.3, and its released settings.
_OPEN = {
    "largest": (1, 1, 1),
    "kernel": (1, None, 1),
    "depth1": (2, None, 1),
    "depth2": (None, None, 1),
    "expand1": (None, None, 2),
    "expand2": (None, None, None),
}
PHASE_NAMES = tuple(_OPEN)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stage of training.

    Args:
        name: one of PHASE_NAMES; decides which choices are open.
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
        if self.name not in _OPEN:
            raise UsageError(f"There is no phase {self.name!r}; known: {', '.join(_OPEN)}.")
        positive = (self.epochs, self.base_lr, self.subnets_per_step)
        if not all(0 < value < math.inf for value in positive):  # NaN is not either
            raise UsageError(
                f"Phase {self.name} needs positive epochs, base_lr and subnets_per_step, not "
                f"{self.epochs}, {self.base_lr} and {self.subnets_per_step}."
            )
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UsageError(
                f"Phase {self.name}: warmup_epochs is from 0 to its {self.epochs} epochs, "
                f"not {self.warmup_epochs}."
            )

    def restrict(self, space: SearchSpace) -> SearchSpace:
        """The subnets that this phase trains."""
        depths, kernel_sizes, expand_ratios = (
            choices[-count:] if count else choices
            for choices, count in zip(
                (space.depths, space.kernel_sizes, space.expand_ratios),
                _OPEN[self.name],
                strict=True,
            )
        )
        return space.restrict(depths=depths, kernel_sizes=kernel_sizes, expand_ratios=expand_ratios)

    @property
    def widens(self) -> bool:
        """Whether channels are sorted by importance before this phase."""
        return self.name.startswith("expand")

    @property
    def distills(self) -> bool:
        """Whether the trained largest net teaches in this phase."""
        return self.name != "largest"

    def num_steps(self, steps_per_epoch: int) -> int:
        return max(1, round(self.epochs * steps_per_epoch))

    def learning_rate(self, step: int, steps_per_epoch: int, batch_size: int) -> float:
        """The rate at a step of this phase: linear warm-up, then a half cosine to zero."""
        peak = self.base_lr * batch_size / 64
        steps = self.num_steps(steps_per_epoch)
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run does, apart from its images.

    Args:
        phases: in the order in which they run; the first one trains the largest net.
        batch_size: images per step.
        resolutions: sides of the images in pixels, one of them drawn per step.
        momentum: of Nesterov SGD.
        weight_decay: on kernels; not on batch norm, biases or kernel transforms.
        label_smoothing: share of the label that is spread over all classes.
        kd_ratio: weight of the cross-entropy with the teacher's probabilities.
        augmentation: of the training images.
        seed: of the weights, images and subnets.

    Raises:
        UsageError: no phase, or the first one is not "largest".
    """

    phases: tuple[Phase, ...]
    batch_size: int
    resolutions: tuple[int, ...]
    momentum: float = 0.9
    weight_decay: float = 3e-5
    label_smoothing: float = 0.1
    kd_ratio: float = 1.0
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    seed: int = 0

    def __post_init__(self):
        names = [phase.name for phase in self.phases]
        in_order = [name for name in PHASE_NAMES if name in names]
        if not names or names != in_order or names[0] != "largest":
            raise UsageError(
                f"phases begin with largest and keep the order {', '.join(PHASE_NAMES)}; "
                f"got {', '.join(names) or 'none'}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)
