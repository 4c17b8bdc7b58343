"""Populations: for each of several budgets one, over architectures that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.search.budgets import Budgets, rounded_up
from ofa_tf.search.codes import Neighborhood, distinct, keys, offspring

Predictor = Callable[[np.ndarray], np.ndarray]  # codes (n, code length) -> values (n,)


class Evaluated(NamedTuple):
    """Archs, their predicted accuracies and what they cost."""

    codes: np.ndarray  # int32 (n, code length)
    values: np.ndarray  # float64 (n,)
    measured: np.ndarray  # float64 (n, measures)

    def __getitem__(self, rows) -> Evaluated:
        return Evaluated(*(array[rows] for array in tuple(self)))

    def joined(self, other: Evaluated) -> Evaluated:
        pairs = zip(tuple(self), tuple(other), strict=True)
        return Evaluated(*(np.concatenate(pair) for pair in pairs))


def evaluate(budgets: Budgets, accuracy: Predictor, codes: np.ndarray) -> Evaluated:
    """The archs that meet some budget and whose accuracy the predictor knows (is not NaN)."""
    measured = budgets.measured(codes)
    usable = budgets.meets(measured).any(axis=0)
    codes, measured = codes[usable], measured[usable]
    values = np.asarray(accuracy(codes), float) if len(codes) else np.empty(0)
    known = ~np.isnan(values)
    return Evaluated(codes[known], values[known], measured[known])


class Ranking(NamedTuple):
    """The best of some archs for each budget, the best first.

    Where fewer archs than asked for meet a budget, the rest of its row is the best one again.
    """

    rows: np.ndarray  # int (budgets, count): which archs
    values: np.ndarray  # float (budgets, count); -inf where there is no such arch

    @classmethod
    def of(cls, budgets: Budgets, archs: Evaluated, count: int) -> Ranking:
        values = np.where(budgets.meets(archs.measured), archs.values, -np.inf)
        if count < values.shape[1]:
            rows = np.argpartition(-values, count - 1, axis=1)[:, :count]
        else:
            rows = np.broadcast_to(np.arange(values.shape[1]), values.shape)
        rows = np.sort(rows, axis=1)
        values = np.take_along_axis(values, rows, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, axis=1)
        values = np.take_along_axis(values, order, axis=1)
        return cls(np.where(np.isneginf(values), rows[:, :1], rows), values)


class Populations:
    """The parents of each budget, and the generations that come from them.

    No arch is predicted twice, and none that meets no budget is predicted at all.

    Args:
        budgets: the budgets.
        accuracy: predicted accuracy of codes.
        codes: the first generation, different from each other.
        num_parents: how many archs of each budget stay and have children.
    """

    def __init__(self, budgets: Budgets, accuracy: Predictor, codes: np.ndarray, num_parents: int):
        self._budgets, self._accuracy, self._num_parents = budgets, accuracy, num_parents
        self._seen = np.sort(keys(codes))
        self._choose(evaluate(budgets, accuracy, codes))

    def _choose(self, archs: Evaluated) -> None:
        if not len(archs.codes):
            self.archs, self.best = archs, np.full(len(self._budgets), -np.inf)
            return
        ranking = Ranking.of(self._budgets, archs, self._num_parents)
        used, rows = np.unique(ranking.rows, return_inverse=True)
        self.archs = archs[used]
        self._parents = rows.reshape(ranking.rows.shape)
        self.best = ranking.values[:, 0]

    def generations(
        self, most: int, patience: int, num_children: int, rng: np.random.Generator
    ) -> Iterator[int]:
        """Generations until no budget moves any more; gives the number of each once it has run.

        Args:
            most: at most so many.
            patience: generations without a better arch after which a budget has no children of
                its own; it still takes those of the others, and moves again when one is better.
            num_children: of each budget, before those over every budget are left out.
            rng: the source of chance.
        """
        stale = np.zeros(len(self._budgets), int)
        for number in range(1, most + 1):
            before = self.best
            self._advance(self._parents[stale < patience], num_children, rng)
            stale = np.where(self.best > before, 0, stale + 1)
            yield number
            if (stale >= patience).all():
                return

    def _advance(self, parents: np.ndarray, num_children: int, rng: np.random.Generator) -> None:
        """Children of some budgets' parents, which all budgets may take."""
        picks = rng.integers(parents.shape[1], size=(2, len(parents), num_children))
        first, second = (
            self.archs.codes[np.take_along_axis(parents, pick, axis=1).ravel(order="F")]
            for pick in picks
        )
        children = offspring(self._budgets.space, first, second, rng)
        fresh = children[distinct(children)]
        fresh = fresh[~self._was_seen(keys(fresh))]
        born = evaluate(self._budgets, self._accuracy, fresh)
        self._seen = np.sort(np.concatenate([self._seen, keys(born.codes)]))
        self._choose(self.archs.joined(born))

    def _was_seen(self, found: np.ndarray) -> np.ndarray:
        places = np.searchsorted(self._seen, found)
        return self._seen[np.minimum(places, len(self._seen) - 1)] == found


_KEPT = 100
_CHILDREN = 400
_ROUNDS = 60
_PATIENCE = 10


def first_generation(budgets: Budgets, count: int, rng: np.random.Generator) -> np.ndarray:
    """Codes of different archs, about `count`, of which some meet each budget.

    Random archs, each drawn toward the cheapest one of a measure by a random share of its
    choices, so that loose and tight budgets find some that come near them.

    Raises:
        UsageError: limits of a budget exclude each other, as far as was found; says the least
            found of each measure.
    """
    space = budgets.space
    codes = space.sample_codes(count, rng)
    if len(budgets.cheapest):
        toward = budgets.cheapest[rng.integers(len(budgets.cheapest), size=count)]
        share = rng.random((count, 1))
        blend = np.where(rng.random(codes.shape) < share, codes, toward)
        # Where the blend switches a position on that was off, the other's choice counts.
        codes = space.canonical(np.where(blend < 0, np.maximum(codes, toward), blend))
        codes = np.concatenate([codes, budgets.cheapest])
    codes = codes[distinct(codes)]
    met = budgets.meets(budgets.measured(codes)).any(axis=1)
    found = [_within(budgets, budget, codes, rng) for budget in np.flatnonzero(~met)]
    codes = np.concatenate([codes, *found])
    return codes[distinct(codes)]


def _within(
    budgets: Budgets, budget: int, codes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Archs near a budget that none of the given codes meets, the first of them within it."""

    def total(excess: np.ndarray, measured: np.ndarray) -> np.ndarray:
        return excess.sum(axis=1)

    nearest = _lowest(budgets, budget, total, codes, rng, enough=0.0)
    if budgets.meets(budgets.measured(nearest[:1]))[budget, 0]:
        return nearest
    limits = budgets.rows[budget]
    least = []
    for place, name in enumerate(budgets.measures):
        if name not in limits:
            continue

        def beside(excess: np.ndarray, measured: np.ndarray, place: int = place) -> np.ndarray:
            """This measure among archs that keep the other limits; those go before the rest."""
            others = np.delete(excess, place, axis=1).sum(axis=1)
            share = measured[:, place] / budgets.limits[budget, place]
            return np.where(others > 0, 1e9 * (1 + others), share)

        best = _lowest(budgets, budget, beside, nearest, rng)[:1]
        measured = budgets.measured(best)
        others = np.delete(budgets.excess(measured, budget), place, axis=1)
        value = "none" if others.any() else rounded_up(measured[0, place])
        least.append(f"{name} {value}")
    text = " and ".join(f"{name} <= {limit:g}" for name, limit in limits.items())
    raise UsageError(
        f"No subnet of {budgets.space.name} was found that meets {text} together, though each "
        f"alone can be met. The least found of each while the others are met: "
        f"{', '.join(least)}. Raise one of them."
    )


def _lowest(
    budgets: Budgets,
    budget: int,
    objective: Callable[[np.ndarray, np.ndarray], np.ndarray],
    codes: np.ndarray,
    rng: np.random.Generator,
    enough: float = -np.inf,
) -> np.ndarray:
    """Codes of low objective, the lowest first, by evolution from the given ones.

    The objective is of the excess over the budget and of the measures, both (n, measures). Ends
    when it is `enough`, or when neither offspring nor single changes of the best lower it.
    """
    space, neighborhood = budgets.space, Neighborhood(budgets.space)
    lowest, stale = np.inf, 0
    for _ in range(_ROUNDS):
        measured = budgets.measured(codes)
        costs = objective(budgets.excess(measured, budget), measured)
        order = np.argsort(costs, kind="stable")[:_KEPT]
        codes = codes[order]
        stale, lowest = (stale + 1, lowest) if costs[order[0]] >= lowest else (0, costs[order[0]])
        if lowest <= enough or stale == _PATIENCE:
            break
        first, second = codes[rng.integers(len(codes), size=(2, _CHILDREN))]
        children = offspring(space, first, second, rng)
        codes = np.concatenate([codes, children, neighborhood.singles(codes[0])[0]])
        codes = codes[distinct(codes)]
    return codes
