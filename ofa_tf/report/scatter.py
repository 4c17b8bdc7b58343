"""The picture of an accuracy predictor: truth against prediction on archs that it never saw."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ofa_tf.report.plots import add_axes, save_figure


def plot_predictions(
    path: str | os.PathLike,
    accuracies: Sequence[float],
    predictions: Sequence[float],
    spreads: Sequence[float] | None = None,
    *,
    title: str,
) -> None:
    """Writes a PNG, 700 x 700: a point per arch, on the diagonal where the prediction is right.

    Args:
        path: the PNG, written whole or not at all.
        accuracies: the true ones, 0..1: (n,).
        predictions: those predicted: (n,).
        spreads: standard deviations within an ensemble, drawn as bars: (n,).
        title: of the picture.

    Raises:
        FailureError: the file could not be written.
    """
    figure = Figure(figsize=(7, 7), dpi=100, layout="constrained")
    truth, predicted = 100 * np.asarray(accuracies), 100 * np.asarray(predictions)
    bars = None if spreads is None else 100 * np.asarray(spreads)
    low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    margin = 0.05 * (high - low) or 1.0  # points, where all are one
    ends = low - margin, high + margin
    y_label = "predicted accuracy (%)" + ("" if bars is None else ", bars: ensemble")
    axes = add_axes(figure, title, "accuracy (%)", y_label)
    axes.plot(ends, ends, color="0.7", lw=1)
    axes.errorbar(truth, predicted, bars, fmt="o", color="C0", ecolor="0.6", ms=5, alpha=0.8)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    save_figure(figure, path)
