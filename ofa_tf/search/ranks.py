"""How well predictions agree with the truth: errors and rank correlations, in NumPy."""

from __future__ import annotations

import numpy as np


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b of two arrays (n,): 1 for the same order; NaN where one is constant."""
    pairs = np.triu_indices(len(a), k=1)
    signs_a, signs_b = (np.sign(np.subtract.outer(v, v))[pairs] for v in map(np.asarray, (a, b)))
    untied = np.sqrt(np.count_nonzero(signs_a) * float(np.count_nonzero(signs_b)))
    return float((signs_a * signs_b).sum() / untied) if untied else float("nan")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho of two arrays (n,), ties sharing their mean rank; NaN for a constant."""
    ranks_a, ranks_b = _centered_ranks(a), _centered_ranks(b)
    scale = np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum())
    return float((ranks_a * ranks_b).sum() / scale) if scale else float("nan")


def _centered_ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[group]
    return ranks - ranks.mean()
