"""The correction of a LatencyTable: fitted on whole subnets, and how well it predicts others.

A block alone finds its weights in the cache, run after run; in a network it often does not. What
that costs differs between devices and kinds of block, so the form of the correction is chosen by
what the measured subnets say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ofa_tf.search.ranks import kendall
from ofa_tf.spaces import Blueprint
from ofa_tf.spaces.blueprint import Block

# The slopes of kinds are drawn to the one slope of all blocks, as if known to be within about 0.2
# of it where subnets scatter by 4 %: a kind that takes little time would else have any slope.
_TIE = (0.04 / 0.2) ** 2
_WORTH_IT = 0.95  # more than one slope only where it brings the error below this share


def _by_weights(block: Block) -> str:
    """Whether a block reads more weights than activations."""
    weights = sum(layer.weights for layer in block.weighted_layers)
    activations = block.in_size**2 * block.in_channels + block.out_size**2 * block.out_channels
    return "weights" if weights > activations else "activations"


# The ways to sort blocks into kinds, each with its slope; the simplest first. More of them would
# predict random subnets as well, but a search finds the kinds that are taken for too fast.
GROUPINGS: Mapping[str, Callable[[Block], str]] = {
    "all": lambda block: "all",
    "weights": _by_weights,
}


class Correction(NamedTuple):
    """`sum(slope of the block's kind * its ms) + constant_ms`; none of these is negative.

    Args:
        grouping: the key in GROUPINGS that tells the kind of a block.
        slope: of all blocks alike; of kinds that no subnet had.
        slopes: of the kinds; empty where all blocks have one slope.
        constant_ms: what a whole model takes besides its blocks.
        errors: by grouping, the root mean square of the relative errors of subnets that were
            left out of its fit, one after the other.
    """

    grouping: str
    slope: float
    slopes: dict[str, float]
    constant_ms: float
    errors: dict[str, float]


def fit_correction(
    plans: Sequence[Blueprint], measured: np.ndarray, block_ms: Callable[[Block, int], float]
) -> Correction:
    """The correction of least relative error, of the form that cross-validation prefers.

    Args:
        plans: whole subnets, two or more.
        measured: their latencies in ms, float64 (n,).
        block_ms: the latency of a block, by the block and the resolution of its network.
    """
    sums = {grouping: _sums(plans, block_ms, grouping) for grouping in GROUPINGS}
    errors = {grouping: _left_out_error(rows, measured) for grouping, (_, rows) in sums.items()}
    chosen = "all"
    for grouping, error in errors.items():
        if error < _WORTH_IT * errors[chosen]:
            chosen = grouping
    kinds, rows = sums[chosen]
    slopes, constant = _fit(rows, measured)
    if chosen == "all":
        return Correction(chosen, float(slopes[0]), {}, constant, errors)
    by_kind = dict(zip(kinds, slopes.tolist(), strict=True))
    return Correction(chosen, _one_slope(rows, measured), by_kind, constant, errors)


def _sums(
    plans: Sequence[Blueprint], block_ms: Callable[[Block, int], float], grouping: str
) -> tuple[list[str], np.ndarray]:
    """The kinds of block that there are, and each plan's ms by kind: (plans, kinds)."""
    kind_of = GROUPINGS[grouping]
    kinds = sorted({kind_of(block) for plan in plans for block in plan.blocks})
    rows = np.zeros((len(plans), len(kinds)))
    for row, plan in zip(rows, plans, strict=True):
        for block in plan.blocks:
            row[kinds.index(kind_of(block))] += block_ms(block, plan.resolution)
    return kinds, rows


def _fit(rows: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, float]:
    """A slope for each column of rows, and the constant; none below zero."""
    kinds = rows.shape[1]
    relative = np.column_stack([rows, np.ones(len(rows))]) / measured[:, None]
    # A single slope is free.
    tie = np.sqrt(_TIE) * np.eye(kinds if kinds > 1 else 0, kinds + 1)
    slope = _one_slope(rows, measured)
    matrix = np.concatenate([relative, tie])
    target = np.concatenate([np.ones(len(rows)), tie.sum(axis=1) * slope])
    *slopes, constant = _least_squares(matrix, target)
    if not any(slopes):  # the latencies have nothing to do with the blocks
        return np.full(kinds, slope), 0.0
    return np.array(slopes), float(constant)


def _one_slope(rows: np.ndarray, measured: np.ndarray) -> float:
    """The slope for all blocks that has the least relative error, without a constant."""
    relative = rows.sum(axis=1) / measured
    return float(relative.sum() / (relative**2).sum())


def _least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares without negative numbers: what would be negative is 0, one after the other."""
    found = np.zeros(matrix.shape[1])
    free = np.arange(matrix.shape[1])
    while len(free):
        values = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
        if values.min() >= 0:
            found[free] = values
            break
        free = np.delete(free, values.argmin())
    return found


def _left_out_error(rows: np.ndarray, measured: np.ndarray) -> float:
    """Root mean square of the relative errors of subnets left out of the fit one by one."""
    errors = []
    for index in range(len(rows)):
        others = np.arange(len(rows)) != index
        slopes, constant = _fit(rows[others], measured[others])
        errors.append((rows[index] @ slopes + constant) / measured[index] - 1)
    return float(np.sqrt(np.mean(np.square(errors))))


def relative_errors(measured: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """How well predictions agree: n, mape, bias and worst (relative), and kendall.

    Without predictions all but n are None; kendall also where one array is constant.
    """
    if not len(measured):
        return {"n": 0, "mape": None, "bias": None, "worst": None, "kendall": None}
    relative = predicted / measured - 1
    tau = kendall(measured, predicted)
    return {
        "n": len(measured),
        "mape": float(np.abs(relative).mean()),
        "bias": float(relative.mean()),
        "worst": float(np.abs(relative).max()),
        "kendall": tau if np.isfinite(tau) else None,
    }
