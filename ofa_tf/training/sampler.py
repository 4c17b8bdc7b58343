"""Which subnets a training step trains: a function of (seed, step), the same on every worker."""

from __future__ import annotations

import numpy as np

from ofa_tf.spaces import Arch, SearchSpace
from ofa_tf.training.phases import OF_ONE_SUBNET, SANDWICH, Phase


def step_archs(
    phase: Phase,
    space: SearchSpace,
    seed: int,
    step: int,
    arch: Arch | None = None,
    coupling: float = 0.0,
) -> list[Arch]:
    """The subnets of a step.

    Args:
        phase: says how many; the sandwich phase begins with the largest and the smallest.
        space: the space as the phase opens it (`phase.restrict`).
        seed: of the run.
        step: of the run.
        arch: the one subnet of the phases finetune and single.
        coupling: see `SearchSpace.sample_codes`.
    """
    if phase.name in OF_ONE_SUBNET:
        assert arch is not None  # the recipe of these phases names one
        return [arch]
    always = [space.max(), space.min()] if phase.name == SANDWICH else []
    num_random = phase.subnets_per_step - len(always)
    codes = space.sample_codes(num_random, np.random.default_rng((seed, step)), coupling)
    return always + space.decode(codes)


def mixup_share(alpha: float, seed: int, step: int) -> float:
    """How much of each image mixup keeps in a step; 1 where alpha is 0 (arXiv 1710.09412)."""
    if not alpha:
        return 1.0
    return float(np.random.default_rng((seed, step, 1)).beta(alpha, alpha))
