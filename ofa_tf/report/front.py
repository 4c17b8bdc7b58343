"""The front of predicted accuracy against a measure: as a table and as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ofa_tf.report.plots import add_axes, save_figure

_ROWS = 20  # of the table
_LABELS = {
    "latency_ms": "latency (ms)",
    "macs_m": "MACs (M)",
    "params_m": "parameters (M)",
    "file_kb": "file (kB)",
    "memory_kb": "activations (kB)",
}


def front_table(rows: Sequence[Mapping[str, Any]], measure: str) -> str:
    """Up to twenty rows of a front file as aligned text, spread evenly, both ends included.

    Args:
        rows: with `arch`, `predicted_accuracy` and the measure, by rising cost.
        measure: "latency_ms", "macs_m", "params_m", "file_kb" or "memory_kb".
    """
    places = np.unique(np.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).round().astype(int))
    head = f"{_LABELS[measure]:>16}  accuracy (%)  input (px)  depths"
    lines = [head, "-" * len(head)]
    for place in places:
        row = rows[place]
        arch = row["arch"]
        lines.append(
            f"{row[measure]:>16.4g}  {100 * row['predicted_accuracy']:>12.2f}  {arch['r']:>10}  "
            f"{' '.join(map(str, arch['d']))}"
        )
    return "\n".join(lines)


def plot_front(
    path: str | os.PathLike, costs: np.ndarray, accuracies: np.ndarray, *, measure: str
) -> None:
    """Writes a PNG, 1000 x 600: predicted accuracy against a measure.

    Args:
        path: the PNG, written whole or not at all.
        costs: (n,), rising.
        accuracies: theirs, (n,), 0..1.
        measure: as in `front_table`.

    Raises:
        FailureError: the file could not be written.
    """
    figure = Figure(figsize=(10, 6), layout="constrained")
    title = f"{len(costs)} subnets that none other beats"
    axes = add_axes(figure, title, _LABELS[measure], "predicted accuracy (%)")
    # Between two points the left one is the best that fits.
    axes.plot(costs, 100 * np.asarray(accuracies), drawstyle="steps-post", color="0.6", lw=1)
    axes.plot(costs, 100 * np.asarray(accuracies), "o", color="0.2", ms=4)
    save_figure(figure, path)
