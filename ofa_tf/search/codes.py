"""Rows of codes: the same ones found, random ones drawn and varied, and all neighbors of one."""

from __future__ import annotations

import functools

import numpy as np

from ofa_tf.spaces import BlockCosts, SearchSpace
from ofa_tf.spaces.search_space import OFF

MUTATION_PROB = 0.1  # of each choice of a mutated arch; the published value


def keys(codes: np.ndarray) -> np.ndarray:
    """A number for each code, uint64 (n,): equal for equal codes, else practically never.

    Two different codes share one with a chance of about 1e-18.
    """
    return codes.astype(np.uint64) @ _factors(codes.shape[1])


@functools.cache
def _factors(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(2**64, size=length, dtype=np.uint64)


def distinct(codes: np.ndarray) -> np.ndarray:
    """Indices of the codes without repetitions, ascending: where each is first."""
    return np.sort(np.unique(keys(codes), return_index=True)[1])


def offspring(
    space: SearchSpace, first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One child of each pair of parents: half are mutations of the first, half crossings."""
    half = len(first) // 2
    mutated = space.mutate(first[:half], rng, MUTATION_PROB, MUTATION_PROB)
    return np.concatenate([mutated, space.crossover(first[half:], second[half:], rng)])


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


_KEEP = -2  # in an edit: a column that it leaves as it is


class Neighborhood:
    """All single changes that an arch of a space can have, as edits of its code.

    An edit sets the kernel and the expand ratio of a position, the depth of a stage, a width or
    the resolution. Positions that a new depth switches on get one kernel and one ratio, which
    are part of the edit.
    """

    def __init__(self, space: SearchSpace):
        self._space = space
        columns, length = space.columns, space.code_length
        edits, fills = [], []

        def add(changes: dict[int, int], kernel: int = 0, expand: int = 0) -> None:
            edit, fill = np.full(length, _KEEP, np.int32), np.zeros(length, np.int32)
            for column, choice in changes.items():
                edit[column] = choice
            fill[columns["kernel"]], fill[columns["expand"]] = kernel, expand
            edits.append(edit)
            fills.append(fill)

        blocks = [(k, e) for k in space.allowed("kernel") for e in space.allowed("expand")]
        for stage in range(space.num_stages):
            for depth in space.allowed("depth", stage):
                for kernel, expand in blocks:
                    add({stage: depth}, kernel, expand)
        for position in range(space.num_positions):
            at = [columns[axis].start + position for axis in ("kernel", "expand")]
            for block in blocks:
                add(dict(zip(at, block, strict=True)))
        for axis in ("width", "resolution"):
            for column in range(columns[axis].start, columns[axis].stop):
                for choice in space.allowed(axis):
                    add({column: choice})
        self._edits, self._fills = np.stack(edits), np.stack(fills)

    def singles(self, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The archs one change away: their codes (n, code length), and the edits that give them."""
        edits = np.arange(len(self._edits))
        codes = self._apply(np.broadcast_to(code, (len(edits), len(code))), edits)
        changed = np.flatnonzero(keys(codes) != keys(code[None]))
        kept = changed[distinct(codes[changed])]
        return codes[kept], edits[kept]

    def pairs(
        self, singles: np.ndarray, edits: np.ndarray, gains: np.ndarray, count: int
    ) -> np.ndarray:
        """Archs two changes away, those that promise most.

        Args:
            singles: the archs one change away, as `singles` gives them.
            edits: theirs.
            gains: what each of them has more (or less) than the arch itself; two changes are
                taken to add up. NaN for one that is not to be part of a pair.
            count: at most so many pairs.

        Returns: codes (n, code length), the most promising first.
        """
        first, second = np.triu_indices(len(singles), 1)
        promised = gains[first] + gains[second]
        promising = np.flatnonzero(promised > 0)
        if len(promising) > count:
            best = np.argpartition(-promised[promising], count - 1)[:count]
            promising = np.sort(promising[best])
        chosen = promising[np.argsort(-promised[promising], kind="stable")]
        return self._apply(singles[first[chosen]], edits[second[chosen]])

    def _apply(self, codes: np.ndarray, edits: np.ndarray) -> np.ndarray:
        changes = self._edits[edits]
        codes = np.where(changes != _KEEP, changes, codes)
        return self._space.canonical(np.where(codes == OFF, self._fills[edits], codes))
