"""The two pictures of a search: accuracy against latency, and the chosen subnets block by block.

Figures are made and saved directly, without pyplot, so that neither a display nor the caller's
matplotlib settings are touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ofa_tf.files import atomic_path
from ofa_tf.report.drawing import draw_blueprints
from ofa_tf.spaces import Blueprint

_DPI = 100
_WIDTH = 10  # inches: 1000 pixels, the width at which a README shows them
_MARKERS = {"float32": "o", "int8": "s"}


def plot_pareto(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    cloud: np.ndarray,
    front: np.ndarray,
    *,
    device: str,
) -> None:
    """Writes a PNG, 1000 x 600: accuracy against latency, predicted and measured.

    Args:
        path: the PNG, written whole or not at all.
        rows: rows of results.json, the chosen subnets.
        cloud: predicted (latency in ms, accuracy in 0..1) of many archs: float (n, 2); n may be 0.
        front: the same of the predicted Pareto front: float (m, 2); m may be 0.
        device: where the latencies were measured, for the axis.

    Raises:
        FailureError: the file could not be written.
    """
    figure = Figure(figsize=(_WIDTH, 6), dpi=_DPI, layout="constrained")
    axes = add_axes(figure, "Accuracy against latency", f"latency on {device} (ms)", "accuracy (%)")
    _draw_predicted(axes, np.asarray(cloud, float), np.asarray(front, float))
    colors = _colors(len(rows))
    for row, color in zip(rows, colors, strict=True):
        _draw_subnet(axes, row, color)
    _legends(figure, axes, rows, colors)
    save_figure(figure, path)


def plot_architectures(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    blueprints: Sequence[Blueprint],
) -> None:
    """Writes a PNG, 1000 pixels wide: the chosen subnets below each other, a box per block.

    Args:
        path: the PNG, written whole or not at all.
        rows: rows of results.json, for the titles.
        blueprints: the plan of each row's arch.

    Raises:
        FailureError: the file could not be written.
    """
    figure = Figure(figsize=(_WIDTH, 0.6 + 1.5 * len(rows)), dpi=_DPI, layout="constrained")
    titles = [_title(row, plan) for row, plan in zip(rows, blueprints, strict=True)]
    draw_blueprints(figure, blueprints, titles)
    save_figure(figure, path)


def _draw_predicted(axes: Axes, cloud: np.ndarray, front: np.ndarray) -> None:
    """What the predictors say of any subnet; what is empty is not in the legend either."""
    if len(cloud):
        latencies, accuracies = cloud.T
        label = "predicted, any subnet"
        axes.scatter(latencies, 100 * accuracies, s=5, color="0.8", label=label)
    if len(front):
        latencies, accuracies = front[np.argsort(front[:, 0])].T
        axes.plot(
            latencies,
            100 * accuracies,
            drawstyle="steps-post",  # between two points the left one is the best that fits
            color="0.35",
            lw=1.5,
            label="predicted Pareto front",
        )


def _draw_subnet(axes: Axes, row: Mapping[str, Any], color: tuple) -> None:
    """A chosen subnet: its predicted point and the measured ones."""
    predicted = (row["predicted_latency_ms"], 100 * row["predicted_accuracy"])
    measured = _measured(row)
    # A line shows how far the prediction was off.
    timed = row.get("precision", "float32")
    if timed in measured:
        axes.plot(*zip(predicted, measured[timed], strict=True), color=color, lw=1.2, ls=":")
    for precision, point in measured.items():
        axes.plot(*point, _MARKERS[precision], color=color, ms=9, mec="white")
    axes.plot(*predicted, "D", mfc="white", mec=color, mew=1.8, ms=7)


def _measured(row: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """(latency in ms, accuracy in percent) of each TFLite file that has both."""
    points = {}
    for precision in _MARKERS:
        latency = (row.get("measured_latency_ms") or {}).get(precision)
        accuracy = (row.get("accuracy") or {}).get(f"tflite_{precision}")
        if latency is not None and accuracy is not None:
            points[precision] = (latency, 100 * accuracy)
    return points


def _legends(
    figure: Figure, axes: Axes, rows: Sequence[Mapping[str, Any]], colors: Sequence[tuple]
) -> None:
    """At the right, what the shapes mean and which color is which subnet."""
    shapes, _ = axes.get_legend_handles_labels()
    shapes.append(_point("D", "predicted, chosen subnet", mfc="white", mec="0.2", mew=1.8, ms=7))
    for precision, marker in _MARKERS.items():
        if any(precision in _measured(row) for row in rows):
            shapes.append(_point(marker, f"measured, {precision} file", color="0.2", ms=8))
    subnets = [
        _point("o", str(row["name"]), color=color, ms=9)
        for row, color in zip(rows, colors, strict=True)
    ]
    blank = Line2D([], [], ls="")
    blank.set_label(" ")
    figure.legend(handles=[*shapes, blank, *subnets], loc="outside right upper", frameon=False)


def _point(marker: str, label: str, **style: Any) -> Line2D:
    return Line2D([], [], ls="", marker=marker, label=label, **style)


def _colors(count: int) -> list[tuple]:
    """Colors from dark to bright that also differ in gray."""
    return list(matplotlib.colormaps["plasma"](np.linspace(0.05, 0.85, count)))


def _title(row: Mapping[str, Any], blueprint: Blueprint) -> str:
    """The subnet in one line, with numbers of the file that was predicted, measured if it was."""
    side = blueprint.resolution
    latency, accuracy = row["predicted_latency_ms"], 100 * row["predicted_accuracy"]
    origin = "predicted"
    timed = row.get("precision", "float32")
    if timed in _measured(row):
        (latency, accuracy), origin = _measured(row)[timed], "measured"
    return (
        f"{row['name']}:  {side} × {side} px,  {blueprint.macs / 1e6:.1f} M MACs,  "
        f"{latency:.{3 if latency < 1 else 2}f} ms,  {accuracy:.1f} % ({origin})"
    )


def add_axes(figure: Figure, title: str, x_label: str, y_label: str) -> Axes:
    """The axes of a picture with points: titled at the left, on a pale grid, open at two sides."""
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", weight="bold")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a PNG, whole or not at all. Raises FailureError if it cannot be written."""
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=_DPI)
