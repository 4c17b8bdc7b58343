"""The Pareto front: of given points, and of a space as its predictors see it."""

from __future__ import annotations

import numpy as np

from ofa_tf.search.evolution import Measure, Predictor
from ofa_tf.spaces import SearchSpace


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
    count: int = 4096,
    rounds: int = 30,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The front of a space between a measure and predicted accuracy, approximately.

    Random codes, then rounds of mutations and crossings of the front so far.

    Returns: codes (n, code length), their costs (n,) and accuracies (n,), by rising cost.
    """
    rng = np.random.default_rng(seed)
    drawn = space.sample_codes(count, rng)
    front = np.concatenate([drawn, measure.minimum()[1][None], space.encode([space.max()])])
    for _ in range(rounds):
        first, second = front[rng.integers(len(front), size=(2, count // 4))]
        mutated = space.mutate(first, rng, prob=0.1, resolution_prob=0.2)
        codes = np.concatenate([front, mutated, space.crossover(first, second, rng)])
        costs, values = measure(codes), accuracy(codes)
        kept = pareto_front(costs, values)
        front = codes[kept]
    return front, costs[kept], values[kept]
