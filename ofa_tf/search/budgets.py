"""Budgets: what archs may cost, for several searches at once; checked before they begin."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.spaces import SearchSpace


class Measure(Protocol):
    """What a budget can be set on: a `LatencyTable`, a `BlockCosts`."""

    @property
    def space(self) -> SearchSpace:
        """The space whose codes it takes."""

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """The values of encoded archs: int (n, code length) -> float (n,)."""

    def minimum(self) -> tuple[float, np.ndarray]:
        """The least value in the space, and the code of an arch that has it."""


class Budgets:
    """Some budgets, each a limit on one measure or on several, all over the same measures.

    Args:
        space: the space that is searched.
        measures: by name; those that no budget limits are left out.
        budgets: each a limit by the name of a measure.

    Raises:
        UsageError: a limit is no positive number, of an unknown measure or below what a subnet
            can have; or a measure is of another space.
    """

    def __init__(
        self,
        space: SearchSpace,
        measures: Mapping[str, Measure],
        budgets: Sequence[Mapping[str, float]],
    ):
        self.space = space
        for name in {name: None for budget in budgets for name in budget}:
            if name not in measures:
                raise UsageError(f"A budget is set on {name}; known are {', '.join(measures)}.")
        self.measures = {
            name: measure
            for name, measure in measures.items()
            if any(name in budget for budget in budgets)
        }
        self.rows = [dict(budget) for budget in budgets]
        self.cheapest = np.empty((len(self.measures), space.code_length), np.int32)
        for place, (name, measure) in enumerate(self.measures.items()):
            _check_space(space, name, measure)
            least, self.cheapest[place] = measure.minimum()
            for budget in budgets:
                if name in budget:
                    _check_limit(space, name, least, budget[name])
        limits = [[budget.get(name, np.inf) for name in self.measures] for budget in budgets]
        self.limits = np.array(limits, float).reshape(len(budgets), len(self.measures))

    def __len__(self) -> int:
        return len(self.rows)

    def measured(self, codes: np.ndarray) -> np.ndarray:
        """The values of encoded archs: int (n, code length) -> float64 (n, measures)."""
        values = np.empty((len(codes), len(self.measures)))
        for place, measure in enumerate(self.measures.values()):
            values[:, place] = measure(codes)
        return values

    def meets(self, measured: np.ndarray) -> np.ndarray:
        """Which budgets archs meet: (n, measures) -> bool (budgets, n)."""
        met = np.ones((len(self), len(measured)), bool)
        for values, limits in zip(measured.T, self.limits.T, strict=True):
            met &= values <= limits[:, None]
        return met

    def excess(self, measured: np.ndarray, budget: int) -> np.ndarray:
        """By how much archs exceed a budget, for each measure as a fraction of its limit.

        (n, measures) -> (n, measures); 0 for what is within.
        """
        return np.maximum(measured / self.limits[budget] - 1, 0)


def check_reachable(space: SearchSpace, name: str, measure: Measure, budget: float) -> np.ndarray:
    """The code of the arch with the least of a measure, which is within the budget.

    Raises:
        UsageError: no arch is, said with the least value that one can have; the budget is no
            positive number; or the measure, called `name`, is of another space.
    """
    _check_space(space, name, measure)
    least, code = measure.minimum()
    _check_limit(space, name, least, budget)
    return code


def rounded_up(value: float) -> str:
    """The value with four digits, not below it, so that it works when taken as the budget."""
    text = f"{value:.4g}"
    if float(text) < value:
        last_digit = 10.0 ** (np.floor(np.log10(abs(value))) - 3)
        text = f"{value + last_digit:.4g}"
    return text


def _check_space(space: SearchSpace, name: str, measure: Measure) -> None:
    if measure.space != space:
        raise UsageError(
            f"The measure {name} is of {measure.space.name} or of another restriction of it, "
            f"not of the space that is searched ({space.name})."
        )


def _check_limit(space: SearchSpace, name: str, least: float, limit: float) -> None:
    if not isinstance(limit, numbers.Real) or not 0 < limit < math.inf:
        raise UsageError(f"A budget of {name} is a positive number, not {limit!r}.")
    if not least <= limit:
        raise UsageError(
            f"No subnet of {space.name} has {name} <= {limit:g}: "
            f"the least that one can have is {rounded_up(least)}."
        )
