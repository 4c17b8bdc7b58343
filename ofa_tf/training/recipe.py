"""Recipe: everything that decides what a training run computes, apart from its images."""

from __future__ import annotations

import dataclasses
from typing import Any

from ofa_tf.data import Augmentation
from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch
from ofa_tf.training.phases import (
    ALONE,
    GROWING,
    GROWTH,
    OF_ONE_SUBNET,
    PHASE_NAMES,
    SINGLE,
    Phase,
    Teacher,
)

KD_LOSSES = ("cross_entropy", "mse")
PRECISIONS = ("float32", "bfloat16", "float16")

# Fields that the first recipes lacked; their defaults are what was done.
_ADDED = ("sort_channels", *GROWTH)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training run in numbers.

    Args:
        phases: phases of progressive shrinking in their order, or one of the phases growing,
            sandwich, finetune and single alone.
        batch_size: images per step, over all replicas.
        resolutions: sides of the images in pixels, one of them drawn per step.
        momentum: of Nesterov SGD.
        weight_decay: on kernels; not on batch norm, biases or kernel transforms.
        label_smoothing: share of the label that is spread over all classes.
        kd_ratio: weight of the distillation loss; 0 for no teacher, and labels alone.
        kd_loss: "cross_entropy" with the teacher's probabilities, or "mse" of the logits.
        clip_norm: gradients are scaled down to this global norm; 0 for no clipping.
        accumulation_steps: micro-batches that each replica's images are cut into, whose gradients
            are averaged. Batch norm sees one micro-batch at a time.
        ema_decay: the phase ends with the exponential moving average of the weights; 0 for none.
        mixup_alpha: of the Beta distribution that mixes pairs of images (arXiv 1710.09412); 0 for
            none.
        precision: of the computation; weights stay float32. float16 scales the loss.
        augmentation: of the training images.
        sort_channels: put the most important channels first before the width becomes elastic.
        seed: of the weights, images, subnets and dropout.
        arch: the subnet that phase finetune or single trains, at its one resolution; else None.
        low_resolution_first: phase growing or single begins with smaller images (curriculum.py).
        small_subnets_first: phase growing begins with the least depths, kernels and expand
            ratios.
        coupling: of the choices of random subnets, see `SearchSpace.sample_codes`.
        zero_last_gamma: blocks with a shortcut begin as the identity: the last gamma of each is 0
            where training begins with new weights (arXiv 1706.02677).

    Raises:
        UsageError: naming the field that is out of range, or phases that do not go together.
    """

    phases: tuple[Phase, ...]
    batch_size: int
    resolutions: tuple[int, ...]
    momentum: float = 0.9
    weight_decay: float = 3e-5
    label_smoothing: float = 0.1
    kd_ratio: float = 1.0
    kd_loss: str = "cross_entropy"
    clip_norm: float = 0.0
    accumulation_steps: int = 1
    ema_decay: float = 0.0
    mixup_alpha: float = 0.0
    precision: str = "float32"
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    sort_channels: bool = True
    seed: int = 0
    arch: Arch | None = None
    low_resolution_first: bool = False
    small_subnets_first: bool = False
    coupling: float = 0.0
    zero_last_gamma: bool = False

    def __post_init__(self):
        names = [phase.name for phase in self.phases]
        in_order = [name for name in PHASE_NAMES if name in names]
        alone = len(names) == 1 and names[0] in ALONE
        if not alone and (not names or names != in_order):
            raise UsageError(
                f"phases keep the order {', '.join(PHASE_NAMES)}, or are "
                f"{', '.join(ALONE[:-1])} or {ALONE[-1]} alone; got {', '.join(names) or 'none'}."
            )
        self._check_arch()
        growth = {"low_resolution_first": (GROWING, SINGLE), "small_subnets_first": (GROWING,)}
        for field, known in growth.items():
            if getattr(self, field) and names[0] not in known:
                raise UsageError(
                    f"{field} goes with phase {' or '.join(known)}, not with {names[0]}."
                )
        for field, choices in (("kd_loss", KD_LOSSES), ("precision", PRECISIONS)):
            if getattr(self, field) not in choices:
                raise UsageError(
                    f"{field} is one of {', '.join(choices)}, not {getattr(self, field)!r}."
                )
        if self.batch_size < 1 or self.accumulation_steps < 1:
            raise UsageError(
                "batch_size and accumulation_steps are at least 1, not "
                f"{self.batch_size} and {self.accumulation_steps}."
            )
        for field in ("momentum", "label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, field) < 1:
                raise UsageError(f"{field} is from 0 to below 1, not {getattr(self, field)}.")
        if not 0 <= self.coupling <= 1:
            raise UsageError(f"coupling is from 0 to 1, not {self.coupling}.")
        for field in ("weight_decay", "kd_ratio", "clip_norm", "mixup_alpha"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise UsageError(f"{field} is 0 or more, not {getattr(self, field)}.")

    def _check_arch(self) -> None:
        of_one = self.phases[0].name in OF_ONE_SUBNET
        if of_one != (self.arch is not None):
            raise UsageError(
                f"arch goes with phase {' or '.join(OF_ONE_SUBNET)}, which trains it; got the arch "
                f"{self.arch} with phase {self.phases[0].name}."
            )
        if self.arch and tuple(self.resolutions) != (self.arch.resolution,):
            raise UsageError(
                f"resolutions is the arch's own, {self.arch.resolution}, not "
                f"{', '.join(map(str, self.resolutions))}."
            )

    def teacher(self, phase: Phase) -> Teacher:
        """Whom the subnets of a phase learn from, besides or instead of the labels."""
        return phase.teacher if self.kd_ratio else Teacher.NONE

    @property
    def dtype_policy(self) -> str:
        """The Keras dtype policy of the supernet."""
        return dtype_policy(self.precision)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; "arch" in the published spelling, and only where there is one.

        What later versions added is there only where it is not as it was before: recipes on disk
        that are older lack it.
        """
        settings = dataclasses.asdict(self)
        del settings["arch"]
        for field in dataclasses.fields(self):
            if field.name in _ADDED and settings[field.name] == field.default:
                del settings[field.name]
        return settings | ({"arch": self.arch.to_dict()} if self.arch else {})


def dtype_policy(precision: str) -> str:
    """The Keras dtype policy for one of PRECISIONS."""
    return "float32" if precision == "float32" else f"mixed_{precision}"
