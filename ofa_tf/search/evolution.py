"""evolve: the most accurate archs within budgets, by evolution on whole arrays of codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.search.budgets import Budgets, Measure, check_reachable
from ofa_tf.search.codes import Neighborhood, distinct
from ofa_tf.search.population import (
    Evaluated,
    Populations,
    Predictor,
    Ranking,
    evaluate,
    first_generation,
)
from ofa_tf.spaces import Arch, SearchSpace

__all__ = [
    "Candidate",
    "Measure",
    "Predictor",
    "SearchResult",
    "check_reachable",
    "evolve",
    "evolve_many",
]

_GENERATIONS = 500  # of a round, at most
_PARENT_FRACTION = 0.25  # of a generation; the published value
_SNAPSHOT_EVERY = 5  # generations; candidates are chosen among the parents of these
_SAMPLES_PER_ARCH = 4  # archs drawn for each of a first generation; many meet no budget
_PAIRS = 4000  # of changes that are measured to improve an arch
_PREDICTED_PAIRS = 500  # of them, at most, that are predicted


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An arch within a budget.

    Args:
        arch: the arch.
        accuracy: its predicted accuracy.
        measures: its value of each constrained measure.
    """

    arch: Arch
    accuracy: float
    measures: dict[str, float]


@dataclasses.dataclass(frozen=True)
class SearchResult(Candidate):
    """The best arch that was found for a budget, with its accuracy and measures.

    Args:
        generations: how many generations ran.
        candidates: as many as were asked for, where there are so many; the first is the best,
            and they differ from each other in several choices where possible.
    """

    generations: int
    candidates: tuple[Candidate, ...]


@dataclasses.dataclass(frozen=True)
class _Effort:
    """How much is searched.

    Args:
        population: archs in a generation, of a budget that is searched alone.
        patience: generations without a better arch after which a population has collapsed.
        rounds: how often it starts from random archs, before the best of all rounds are mixed.
    """

    population: int
    patience: int
    rounds: int


_EFFORTS = {
    "low": _Effort(population=100, patience=10, rounds=1),
    "normal": _Effort(population=250, patience=12, rounds=2),
    "high": _Effort(population=500, patience=12, rounds=10),
}


def evolve(
    space: SearchSpace,
    accuracy: Predictor,
    constraints: Mapping[str, tuple[Measure, float]],
    *,
    seed: int = 0,
    effort: str = "normal",
    num_candidates: int = 1,
) -> SearchResult:
    """Searches the arch of highest predicted accuracy that meets every limit.

    `evolve_many` with one budget; see there.

    Args:
        space: where to search; a restriction of a space is searched on its own.
        accuracy: predicted accuracy of codes, e.g. an `AccuracyPredictor`.
        constraints: by name, a measure of codes and the most that it may be:
            `{"latency_ms": (table, 25.0), "macs": (BlockCosts(space, ...), 3e8)}`.
        seed: of everything random.
        effort: "low", "normal" or "high".
        num_candidates: how many archs to return.

    Raises:
        UsageError: as `evolve_many`.
    """
    measures = {name: measure for name, (measure, _) in constraints.items()}
    budget = {name: limit for name, (_, limit) in constraints.items()}
    [result] = evolve_many(
        space,
        accuracy,
        measures,
        [budget],
        seed=seed,
        effort=effort,
        num_candidates=num_candidates,
    )
    return result


def evolve_many(
    space: SearchSpace,
    accuracy: Predictor,
    measures: Mapping[str, Measure],
    budgets: Sequence[Mapping[str, float]],
    *,
    seed: int = 0,
    effort: str = "normal",
    num_candidates: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[SearchResult]:
    """Searches the arch of highest predicted accuracy within each of several budgets.

    The published algorithm (arXiv 1908.09791) on arrays: the best quarter of a generation stays,
    half of its children are mutations and half crossings. It differs in this: no arch is twice
    in a generation; the children of all budgets are predicted together, and each budget takes
    from all of them; when nothing moves any more, it starts again, and at last from the best of
    all rounds; and the best is improved by single changes and by pairs of changes, one of which
    may make room for the other, until none helps. Equal arguments give equal results.

    Args:
        space: where to search; a restriction of a space is searched on its own.
        accuracy: predicted accuracy of codes, e.g. an `AccuracyPredictor`; archs of which it is
            NaN are left out.
        measures: by name, what budgets can be set on.
        budgets: each the most that some of the measures may be: `[{"latency_ms": 25.0}]`.
        seed: of everything random.
        effort: "low", "normal" or "high".
        num_candidates: how many archs to return for each budget.
        progress: called as (generations done, generations at most).

    Returns: a result for each budget.

    Raises:
        UsageError: a limit is no positive number, of an unknown measure, or such that no arch
            meets it, said at once with the least value that one can have; limits exclude each
            other; a measure is of another space; or another argument is none of those above.
    """
    if effort not in _EFFORTS:
        raise UsageError(f"effort is one of {', '.join(_EFFORTS)}, not {effort!r}.")
    if num_candidates < 1:
        raise UsageError(f"num_candidates is 1 or more, not {num_candidates}.")
    if not len(budgets):
        return []
    search = _Search(Budgets(space, measures, budgets), accuracy, _EFFORTS[effort], seed)
    found = search.run(progress or (lambda done, total: None))
    snapshots = search.snapshots if num_candidates > 1 else found
    return [
        _result(search.budgets, budget, found, snapshots, num_candidates, search.generations)
        for budget in range(len(budgets))
    ]


class _Search:
    """The rounds of a search for several budgets."""

    def __init__(self, budgets: Budgets, accuracy: Predictor, effort: _Effort, seed: int):
        self.budgets, self._accuracy, self._effort = budgets, accuracy, effort
        self._rng = np.random.default_rng(seed)
        self._neighborhood = Neighborhood(budgets.space)
        # Budgets share what they find, so that each needs fewer archs of its own.
        population = round(effort.population / len(budgets) ** 0.25)
        self._num_parents = max(1, round(_PARENT_FRACTION * population))
        # Twice the places that are free: about half of the children meet no budget.
        self._num_children = 2 * (population - self._num_parents)
        self.generations = 0
        self._history: list[Evaluated] = []

    def run(self, progress: Callable[[int, int], None]) -> Evaluated:
        """Archs among which the best of each budget are."""
        rounds, found = self._effort.rounds, None
        total = (rounds + 1) * _GENERATIONS
        for index in range(rounds):
            count = _SAMPLES_PER_ARCH * self._effort.population
            codes = first_generation(self.budgets, count, self._rng)
            elite = self._round(codes, lambda ran, i=index: progress(i * _GENERATIONS + ran, total))
            found = elite if found is None else found.joined(elite)
        codes = found.codes[distinct(found.codes)]
        found = self._round(codes, lambda ran: progress(rounds * _GENERATIONS + ran, total))
        found = self._improved(found)
        progress(total, total)
        return found

    @property
    def snapshots(self) -> Evaluated:
        """Archs of all stages of the search, different from each other."""
        archs = Evaluated(*map(np.concatenate, zip(*map(tuple, self._history), strict=True)))
        return archs[distinct(archs.codes)]

    def _round(self, codes: np.ndarray, progress: Callable[[int], None]) -> Evaluated:
        """Evolution from given codes until no budget moves; gives the parents of all budgets."""
        populations = Populations(self.budgets, self._accuracy, codes, self._num_parents)
        self._check_known(populations.best)
        patience, num_children = self._effort.patience, self._num_children
        for number in populations.generations(_GENERATIONS, patience, num_children, self._rng):
            progress(number)
            if number % _SNAPSHOT_EVERY == 0:
                self._history.append(populations.archs)
        self.generations += number
        self._history.append(populations.archs)
        return populations.archs

    def _check_known(self, best: np.ndarray) -> None:
        unknown = np.flatnonzero(np.isneginf(best))
        if len(unknown):
            limits = self.budgets.rows[unknown[0]].items()
            raise UsageError(
                f"The accuracy predictor knows none of the archs of {self.budgets.space.name} "
                f"that were found within {', '.join(f'{n} <= {v:g}' for n, v in limits)}: "
                f"restrict the space to the resolutions that it knows, or raise the budget."
            )

    def _improved(self, archs: Evaluated) -> Evaluated:
        """The best of each budget, improved by single changes and pairs of them."""
        best = archs[Ranking.of(self.budgets, archs, 1).rows[:, 0]]
        for budget in range(len(self.budgets)):
            best = best.joined(self._climb(budget, best[budget : budget + 1]))
        return archs.joined(best)

    def _climb(self, budget: int, arch: Evaluated) -> Evaluated:
        """Changes an arch while a single change or a pair makes it better within a budget."""
        while True:
            codes, edits = self._neighborhood.singles(arch.codes[0])
            singles = self._within(budget, codes)
            better = self._best_of(singles)
            if better is None or better.values[0] <= arch.values[0]:
                better = self._best_of(self._pairs(budget, arch, codes, edits))
            if better is None or better.values[0] <= arch.values[0]:
                return arch
            arch = better

    def _pairs(
        self, budget: int, arch: Evaluated, codes: np.ndarray, edits: np.ndarray
    ) -> Evaluated:
        """Archs within a budget that are two changes away and promise to be better."""
        gains = np.asarray(self._accuracy(codes), float) - arch.values[0]
        pairs = self._neighborhood.pairs(codes, edits, gains, _PAIRS)
        met = self.budgets.meets(self.budgets.measured(pairs))[budget]
        return self._within(budget, pairs[met][:_PREDICTED_PAIRS])

    def _within(self, budget: int, codes: np.ndarray) -> Evaluated:
        archs = evaluate(self.budgets, self._accuracy, codes)
        return archs[self.budgets.meets(archs.measured)[budget]]

    def _best_of(self, archs: Evaluated) -> Evaluated | None:
        return archs[[np.argmax(archs.values)]] if len(archs.codes) else None


def _result(
    budgets: Budgets,
    budget: int,
    found: Evaluated,
    snapshots: Evaluated,
    num_candidates: int,
    generations: int,
) -> SearchResult:
    archs = found[budgets.meets(found.measured)[budget]]
    best = archs[[np.argmax(archs.values)]]
    if num_candidates > 1:
        others = snapshots[budgets.meets(snapshots.measured)[budget]].joined(archs)
        order = np.argsort(-others.values, kind="stable")
        ranked = best.joined(others[order])
        best = ranked[diverse(budgets.space, ranked.codes, num_candidates)]
    rows = zip(budgets.space.decode(best.codes), best.values, best.measured, strict=True)
    candidates = tuple(
        Candidate(
            arch,
            float(value),
            {
                name: float(cost)
                for name, cost in zip(budgets.measures, measured, strict=True)
                if name in budgets.rows[budget]
            },
        )
        for arch, value, measured in rows
    )
    return SearchResult(**vars(candidates[0]), generations=generations, candidates=candidates)


_DIFFERENCES = 3  # choices in which candidates should differ at least


def diverse(space: SearchSpace, codes: np.ndarray, count: int) -> np.ndarray:
    """Chooses archs that differ from each other in three choices or more, best first.

    A block's kernel and expand ratio, with whether it runs, are one choice; so is each width and
    the resolution. Where too few archs differ so much, two and then one choice will do.

    Args:
        space: the space of the codes.
        codes: (n, code length), the best first; some may be equal.
        count: at most so many.

    Returns: indices, ascending, the first code's among them.
    """
    columns = space.columns
    kernels, expands = codes[:, columns["kernel"]], codes[:, columns["expand"]]
    blocks = (kernels + 1) * (max(space.num_choices) + 1) + expands
    lone = [stage for stage, positions in enumerate(space.stage_positions) if not positions]
    rest = codes[:, columns["width"].start :]
    choices = np.concatenate([blocks, codes[:, lone], rest], axis=1)
    # How many choices lie between each arch and the nearest of those that were chosen.
    chosen, nearest = [0], (choices != choices[0]).sum(axis=1)
    for needed in range(_DIFFERENCES, 0, -1):
        while len(chosen) < count and (nearest >= needed).any():
            chosen.append(int(np.argmax(nearest >= needed)))
            nearest = np.minimum(nearest, (choices != choices[chosen[-1]]).sum(axis=1))
    return np.sort(chosen)
