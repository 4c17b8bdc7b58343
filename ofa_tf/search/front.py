"""The Pareto front: of given points, and of a space as its predictors see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.search.budgets import Budgets, Measure
from ofa_tf.search.codes import Neighborhood, distinct, keys, offspring
from ofa_tf.search.population import Populations, Predictor, first_generation
from ofa_tf.spaces import SearchSpace

_POPULATION = 400
_GENERATIONS = {"low": 50, "normal": 150, "high": 600}
_FIRST = 4096  # archs drawn for the first generation
_STEPS = 40  # of cost, each of which is searched on its own before
_STEP_PARENTS = {"low": 10, "normal": 25, "high": 100}
_STEP_PATIENCE = 12  # generations
_MOST_GENERATIONS = 500
_COST = "the cost of the front"  # its name beside those of the constraints
_SWEEPS = 3  # at most so many times, all single changes of the front are tried
_SWEPT = 128  # archs at once, which have some hundred single changes each


def pareto_front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The points that no other beats: none is as cheap and more valuable, or the reverse.

    Args:
        costs: (n,), less is better.
        values: (n,), more is better.

    Returns: indices by rising cost, and so by rising value; of equal points, one.
    """
    order = np.lexsort((-np.asarray(values), costs))
    ordered = np.asarray(values)[order]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], ordered[:-1]]))
    return order[ordered > best_before]


def predicted_front(
    space: SearchSpace,
    accuracy: Predictor,
    measure: Measure,
    *,
    constraints: Mapping[str, tuple[Measure, float]] | None = None,
    seed: int = 0,
    effort: str = "normal",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The front of a space between a measure and predicted accuracy, approximately.

    First the best archs within forty steps of the cost, as `evolve_many` finds them. From these
    NSGA-II (Deb et al., 2002) on arrays of codes: of parents and children, the best fronts stay,
    and of the last one that does not fit, the points in the emptiest places. The front of all
    archs that were ever met is kept, and at last improved by single changes of its archs. Equal
    arguments give equal results.

    Args:
        space: where to search.
        accuracy: predicted accuracy of codes; archs of which it is NaN are left out.
        measure: of codes, what the accuracy costs.
        constraints: by name, other measures and the most that each may be, as for `evolve`.
        seed: of everything random.
        effort: "low", "normal" or "high".

    Returns: codes (n, code length), their costs (n,) and accuracies (n,), by rising cost.

    Raises:
        UsageError: as `evolve`.
    """
    if effort not in _GENERATIONS:
        raise UsageError(f"effort is one of {', '.join(_GENERATIONS)}, not {effort!r}.")
    search = _Front(space, accuracy, measure, constraints or {}, np.random.default_rng(seed))
    search.climb(_STEP_PARENTS[effort])
    search.evolve(_GENERATIONS[effort])
    search.sweep()
    return search.front, search.costs, search.values


class _Front:
    """The front so far, and the population that it comes from."""

    def __init__(
        self,
        space: SearchSpace,
        accuracy: Predictor,
        measure: Measure,
        constraints: Mapping[str, tuple[Measure, float]],
        rng: np.random.Generator,
    ):
        measures = {name: constraint[0] for name, constraint in constraints.items()}
        limits = {name: limit for name, (_, limit) in constraints.items()}
        self._measures, self._limits = measures, limits
        self._budgets = Budgets(space, measures, [limits])
        self._accuracy, self._measure, self._rng = accuracy, measure, rng
        self.front = np.empty((0, space.code_length), np.int32)
        self.costs, self.values = np.empty(0), np.empty(0)
        ends = [measure.minimum()[1][None], space.encode([space.max()])]
        codes = [first_generation(self._budgets, _FIRST, rng), *self._blends(*ends), *ends]
        self._population = self._evaluated(np.concatenate(codes))
        if not len(self.front):
            raise UsageError(
                f"The accuracy predictor knows none of the archs of {space.name} that were found: "
                f"restrict the space to the resolutions that it knows."
            )

    def _blends(self, cheapest: np.ndarray, largest: np.ndarray) -> Iterator[np.ndarray]:
        """Random archs drawn toward both ends of the range, where random ones are rare."""
        space = self._budgets.space
        codes = space.sample_codes(_FIRST // 4, self._rng)
        for end in (cheapest, largest):
            near = np.broadcast_to(end, codes.shape)
            yield space.crossover(space.crossover(codes, near, self._rng), near, self._rng)

    def climb(self, num_parents: int) -> None:
        """Searches the best archs within steps of the cost, between the ends of what is known."""
        codes, costs, _ = self._population
        steps = np.linspace(costs.min(), costs.max(), _STEPS)
        budgets = Budgets(
            self._budgets.space,
            {**self._measures, _COST: self._measure},
            [{**self._limits, _COST: step} for step in steps],
        )
        populations = Populations(budgets, self._accuracy, codes, num_parents)
        for _ in populations.generations(
            _MOST_GENERATIONS, _STEP_PATIENCE, 6 * num_parents, self._rng
        ):
            pass
        self._population = self._evaluated(np.concatenate([codes, populations.archs.codes]))

    def evolve(self, generations: int) -> None:
        """Generations of NSGA-II."""
        codes, costs, values = self._population
        for _ in range(generations):
            chosen = _survivors(costs, values, _POPULATION)
            codes, costs, values = codes[chosen], costs[chosen], values[chosen]
            first, second = codes[self._rng.integers(len(codes), size=(2, _POPULATION))]
            children = offspring(self._budgets.space, first, second, self._rng)
            born = self._evaluated(children)
            codes, costs, values = (
                np.concatenate(pair) for pair in zip((codes, costs, values), born, strict=True)
            )
            kept = distinct(codes)
            codes, costs, values = codes[kept], costs[kept], values[kept]

    def sweep(self) -> None:
        """Tries all single changes of the front's archs, until that finds nothing new."""
        neighborhood = Neighborhood(self._budgets.space)
        swept = self.front[:0]
        for _ in range(_SWEEPS):
            fresh = self.front[~np.isin(keys(self.front), keys(swept))]
            if not len(fresh):
                return
            swept = np.concatenate([swept, fresh])
            for start in range(0, len(fresh), _SWEPT):
                part = fresh[start : start + _SWEPT]
                self._evaluated(np.concatenate([neighborhood.singles(code)[0] for code in part]))

    def _evaluated(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes within the constraints, their costs and values; the front takes what it can."""
        codes = codes[distinct(codes)]
        codes = codes[self._budgets.meets(self._budgets.measured(codes))[0]]
        costs = self._measure(codes)
        values = np.asarray(self._accuracy(codes), float) if len(codes) else np.empty(0)
        known = ~np.isnan(values)
        codes, costs, values = codes[known], costs[known], values[known]
        all_codes = np.concatenate([self.front, codes])
        all_costs = np.concatenate([self.costs, costs])
        all_values = np.concatenate([self.values, values])
        kept = pareto_front(all_costs, all_values)
        self.front, self.costs, self.values = all_codes[kept], all_costs[kept], all_values[kept]
        return codes, costs, values


def _survivors(costs: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the points that NSGA-II keeps: whole fronts, then the least crowded."""
    chosen: list[np.ndarray] = []
    left, free = np.arange(len(costs)), min(count, len(costs))
    while free > 0:
        front = left[pareto_front(costs[left], values[left])]
        if len(front) > free:
            lonely = np.argsort(-_distances(costs[front], values[front]), kind="stable")
            front = front[lonely[:free]]
        chosen.append(front)
        free -= len(front)
        left = np.setdiff1d(left, front, assume_unique=True)
    return np.concatenate(chosen)


def _distances(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Crowding distances of a front by rising cost: how far the neighbors are apart, relative.

    Infinite for the two ends.
    """
    distances = np.full(len(costs), np.inf)
    if len(costs) > 2:
        spans = ((axis[2:] - axis[:-2]) / (axis[-1] - axis[0]) for axis in (costs, values))
        distances[1:-1] = sum(spans)
    return distances
