"""Which subnets a training step trains: a function of (seed, step), the same on every worker."""

from __future__ import annotations

import numpy as np

from ofa_tf.spaces import SearchSpace


def step_sizes(space: SearchSpace, seed: int, step: int, count: int) -> np.ndarray:
    """The sizes of the subnets of a step: int32 (count, positions, size fields)."""
    archs = space.decode(space.sample_codes(count, np.random.default_rng((seed, step))))
    return np.stack([space.sizes(arch) for arch in archs])
