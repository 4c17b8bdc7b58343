"""ArchSampler: the archs on which predictors are fitted, each a function of seed and index."""

from __future__ import annotations

import numpy as np

from ofa_tf.spaces import BlockCosts, SearchSpace

_CANDIDATES = 96
_PULLS = 6


class ArchSampler:
    """Draws archs of a space, half uniformly and half spread evenly over MACs.

    Uniform draws alone almost never come near the ends of the space, where the smallest and the
    largest budgets search. Index 0 is the largest arch and 1 the smallest.
    """

    def __init__(self, space: SearchSpace, seed: int):
        self._space = space
        self._seed = seed
        self._macs = BlockCosts(space, lambda block, resolution: block.macs)
        self._ends = space.encode([space.min(), space.max()])

    def code(self, index: int) -> np.ndarray:
        """The code of the arch with that index: int32 (code length,)."""
        if index < 2:
            return self._ends[1 - index]
        rng = np.random.default_rng((self._seed, index))
        if index % 2 == 0:
            return self._space.sample_codes(1, rng)[0]
        return self._near(rng)

    def codes(self, count: int) -> np.ndarray:
        """The first `count` codes: int32 (count, code length)."""
        return np.stack([self.code(index) for index in range(count)])

    def _near(self, rng: np.random.Generator) -> np.ndarray:
        """An arch near MACs that are drawn uniformly between the least and the most."""
        low, high = self._macs(self._ends)
        share = rng.random()
        end = self._ends[int(share > 0.5)]
        codes = self._space.sample_codes(_CANDIDATES, rng)
        # Each crossing with the nearer end brings the candidates that it touches half-way to it.
        for pull in range(1, _PULLS):
            part = slice(pull * _CANDIDATES // _PULLS, None)
            crossed = codes[part]
            codes[part] = self._space.crossover(crossed, np.broadcast_to(end, crossed.shape), rng)
        distance = np.abs(self._macs(codes) - (low + share * (high - low)))
        return codes[distance.argmin()]
