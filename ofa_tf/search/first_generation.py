"""The first archs of a search: within every budget some, however tight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.search.budgets import Budgets, rounded_up
from ofa_tf.search.codes import distinct, offspring
from ofa_tf.search.neighbors import Neighborhood

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
