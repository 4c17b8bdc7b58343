"""evolve: the most accurate arch within budgets, by evolution on whole arrays of codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.spaces import Arch, SearchSpace

Predictor = Callable[[np.ndarray], np.ndarray]  # codes (n, code length) -> values (n,)

_START_ROUNDS = 30
_ATTEMPTS = 4


class Measure(Protocol):
    """What a budget can be set on: a `LatencyTable`, a `BlockCosts`."""

    space: SearchSpace

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """The values of encoded archs: int (n, code length) -> float (n,)."""

    def minimum(self) -> tuple[float, np.ndarray]:
        """The least value in the space, and the code of an arch that has it."""


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The best arch that was found.

    Args:
        arch: the arch.
        accuracy: its predicted accuracy.
        measures: its value of each constrained measure.
        generations: how many generations ran.
    """

    arch: Arch
    accuracy: float
    measures: dict[str, float]
    generations: int


def evolve(
    space: SearchSpace,
    accuracy: Predictor,
    constraints: Mapping[str, tuple[Measure, float]],
    *,
    seed: int = 0,
    population: int = 100,
    generations: int = 500,
    patience: int = 100,
    parent_fraction: float = 0.25,
    mutation_prob: float = 0.1,
    resolution_prob: float = 0.5,
) -> SearchResult:
    """Searches the arch of highest predicted accuracy that meets every budget.

    The published algorithm (arXiv 1908.09791) on arrays: the best quarter of a generation stays,
    half of the rest are its mutations and half its crossings. No arch is twice in a generation,
    and none that breaks a budget ever enters one. Equal arguments give equal results.

    Args:
        space: where to search; a restriction of a space is searched on its own.
        accuracy: predicted accuracy of codes, e.g. an `AccuracyPredictor`.
        constraints: by name, a measure of codes and the most that it may be:
            `{"latency_ms": (table, 25.0), "macs": (BlockCosts(space, ...), 3e8)}`.
        seed: of everything random.
        population: archs in a generation.
        generations: at most so many.
        patience: generations without a better arch after which it ends early.
        parent_fraction: share of a generation that stays and has children.
        mutation_prob: chance to redraw each block, width and stage's depth of a mutated arch.
        resolution_prob: chance to redraw its resolution.

    Raises:
        UsageError: no arch meets a budget, said at once with the least value that one can have;
            or a measure is of another space.
    """
    search = _Search(
        space, constraints, np.random.default_rng(seed), mutation_prob, resolution_prob
    )
    codes = search.first_generation(population)
    values = accuracy(codes)
    num_parents = max(1, round(parent_fraction * population))
    best, stale, ran = -np.inf, 0, 0
    while ran < generations and stale < patience:
        order = np.argsort(-values, kind="stable")[:num_parents]
        codes, values = codes[order], values[order]
        stale, best = (0, values[0]) if values[0] > best else (stale + 1, best)
        children = search.children(codes, population - len(codes))
        if len(children):
            codes = np.concatenate([codes, children])
            values = np.concatenate([values, accuracy(children)])
        ran += 1
    winner = int(np.argmax(values))
    return SearchResult(
        arch=space.decode(codes[winner : winner + 1])[0],
        accuracy=float(values[winner]),
        measures={
            name: float(measure(codes[winner : winner + 1])[0])
            for name, (measure, _) in constraints.items()
        },
        generations=ran,
    )


def check_reachable(space: SearchSpace, name: str, measure: Measure, budget: float) -> np.ndarray:
    """The code of the arch with the least of a measure, which is within the budget.

    Raises:
        UsageError: no arch is, said with the least value that one can have; or the measure,
            called `name`, is of another space.
    """
    if measure.space != space:
        raise UsageError(
            f"The measure {name} is of {measure.space.name} or of another restriction of it, "
            f"not of the space that is searched ({space.name})."
        )
    least, code = measure.minimum()
    if not least <= budget:
        raise UsageError(
            f"No subnet of {space.name} has {name} <= {budget:g}: "
            f"the least that one can have is {_rounded_up(least)}."
        )
    return code


class _Search:
    """Codes that meet the budgets: the first ones, and the children of others."""

    def __init__(
        self,
        space: SearchSpace,
        constraints: Mapping[str, tuple[Measure, float]],
        rng: np.random.Generator,
        mutation_prob: float,
        resolution_prob: float,
    ):
        self._space = space
        self._constraints = constraints
        self._rng = rng
        self._mutation = (mutation_prob, resolution_prob)
        self._cheapest = [check_reachable(space, name, *c) for name, c in constraints.items()]

    def first_generation(self, count: int) -> np.ndarray:
        """Up to `count` different codes within the budgets, at least one.

        Random codes and the cheapest arch of each measure, then their offspring, while those
        nearest to the budgets are kept. So tight budgets, which random codes never meet, work.
        """
        drawn = self._space.sample_codes(4 * count, self._rng)
        codes = np.stack([*drawn, *self._cheapest]).astype(np.int32)
        for _ in range(_START_ROUNDS):
            codes = np.unique(codes, axis=0)
            excess = self._excess(codes)
            within = codes[excess == 0]
            if len(within) >= count:
                return self._rng.choice(within, count, replace=False)
            nearest = codes[np.argsort(excess, kind="stable")[:count]]
            codes = np.concatenate([nearest, self._offspring(nearest, 4 * count)])
        if not len(within):
            budgets = ", ".join(f"{n} <= {b:g}" for n, (_, b) in self._constraints.items())
            raise UsageError(
                f"No subnet of {self._space.name} was found that meets all of {budgets}, "
                f"though each alone can be met. Raise one of them."
            )
        return within

    def children(self, parents: np.ndarray, count: int) -> np.ndarray:
        """Up to `count` codes within the budgets, different from each other and from parents."""
        known = {row.tobytes() for row in parents}
        found = []
        for _ in range(_ATTEMPTS):
            codes = self._offspring(parents, 2 * count)
            for row in codes[self._excess(codes) == 0]:
                if len(found) < count and row.tobytes() not in known:
                    known.add(row.tobytes())
                    found.append(row)
            if len(found) == count:
                break
        return np.array(found, np.int32).reshape(-1, self._space.code_length)

    def _offspring(self, parents: np.ndarray, count: int) -> np.ndarray:
        """Half mutations, half crossings, in turn, whether within the budgets or not."""
        first, second = parents[self._rng.integers(len(parents), size=(2, count))]
        mutated = self._space.mutate(first[::2], self._rng, *self._mutation)
        crossed = self._space.crossover(first[1::2], second[1::2], self._rng)
        codes = np.empty_like(first)
        codes[::2], codes[1::2] = mutated, crossed
        return codes

    def _excess(self, codes: np.ndarray) -> np.ndarray:
        """By how much codes exceed the budgets, relative and summed; 0 for those within."""
        excess = np.zeros(len(codes))
        for measure, budget in self._constraints.values():
            excess += np.maximum(measure(codes) - budget, 0) / abs(budget or 1)
        return excess


def _rounded_up(value: float) -> str:
    """The value with four digits, not below it, so that it works when taken as the budget."""
    text = f"{value:.4g}"
    if float(text) < value:
        last_digit = 10.0 ** (np.floor(np.log10(abs(value))) - 3)
        text = f"{value + last_digit:.4g}"
    return text
