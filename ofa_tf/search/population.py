"""Populations: for each of several budgets one, over archs that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ofa_tf.search.budgets import Budgets
from ofa_tf.search.codes import distinct, keys, offspring

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
