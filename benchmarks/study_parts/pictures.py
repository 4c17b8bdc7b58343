"""The pictures of docs/RESULTS.md."""

from __future__ import annotations

import pathlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ofa_tf.report.plots import add_axes, save_figure
from study_parts.results import Results, Row
from study_parts.tables import SCHEDULES, TITLES

_COLORS = {"searched": "#d1495b", "random": "0.65", "uniform": "#2a6f97"}
_LABELS = {
    "searched": "searched",
    "random": "random, of the same predicted latency",
    "uniform": "uniform: one expand ratio, kernel and resolution",
}


def draw_all(results: Results, folder: pathlib.Path) -> None:
    """Writes the PNGs. Raises FailureError where one cannot be written."""
    pictures = {"schedules": _schedules}
    if results.search:
        pictures |= {"pareto": _pareto, "predictors": _predictors}
    if results.has_costs:
        pictures["cost"] = _cost
    for name, draw in pictures.items():
        figure = Figure(figsize=(9, 4.8), dpi=100, layout="constrained")
        draw(figure, results)
        save_figure(figure, folder / f"study_{name}.png")


def _pareto(figure: Figure, results: Results) -> None:
    axes = add_axes(
        figure,
        "Subnets of one supernet, CIFAR-10 test images",
        "measured latency of the .tflite file, one thread of the host (ms)",
        "accuracy (%)",
    )
    for group in ("random", "uniform", "searched"):
        rows = results.of_group(group)
        latencies = np.array([float(row["measured_ms"]) for row in rows])
        accuracies = 100 * np.array([float(row["accuracy"]) for row in rows])
        color = _COLORS[group]
        axes.scatter(latencies, accuracies, s=26, color=color, label=_LABELS[group], zorder=2)
        if group != "random":
            _draw_front(axes, latencies, accuracies, color)
    axes.legend(loc="lower right", frameon=False)


def _draw_front(axes: Axes, latencies: np.ndarray, accuracies: np.ndarray, color: str) -> None:
    """The step line of what is best up to each latency."""
    order = np.argsort(latencies)
    best = np.maximum.accumulate(accuracies[order])
    axes.plot(latencies[order], best, drawstyle="steps-post", color=color, lw=1.3, alpha=0.7)


def _schedules(figure: Figure, results: Results) -> None:
    axes = add_axes(figure, "Corner subnets after equal training time", "", "accuracy (%)")
    corners = list(results.corner_accuracies("progressive", 0))
    places = np.arange(len(corners))
    trained = [name for name in SCHEDULES if results.seeds(name)]
    for name, marker in zip(trained, "osD", strict=False):
        for seed in results.seeds(name):
            found = results.corner_accuracies(name, seed)
            values = [100 * found[corner] for corner in corners]
            label = TITLES[name] if seed == 0 else None
            color = f"C{trained.index(name)}"
            axes.plot(places, values, marker, ls=":", lw=0.8, color=color, label=label)
    axes.set_xticks(places, [corner.split("_", 1)[1].replace("_", " ") for corner in corners])
    axes.legend(loc="best", frameon=False)


def _predictors(figure: Figure, results: Results) -> None:
    for index, (name, scale, unit) in enumerate((("accuracy", 100, "%"), ("latency_ms", 1, "ms"))):
        axes = figure.add_subplot(1, 2, index + 1)
        rows = [row for row in results.predictions if row["predictor"] == name]
        measured, predicted = (_column(rows, field, scale) for field in ("measured", "predicted"))
        ends = min(measured.min(), predicted.min()), max(measured.max(), predicted.max())
        axes.plot(ends, ends, color="0.7", lw=1)
        axes.scatter(measured, predicted, s=18)
        axes.set_title(f"{name.partition('_')[0]}, not fitted on", loc="left", weight="bold")
        axes.set(xlabel=f"measured ({unit})", ylabel=f"predicted ({unit})", aspect="equal")
        axes.spines[["top", "right"]].set_visible(False)


def _column(rows: list[Row], name: str, scale: float) -> np.ndarray:
    return scale * np.array([float(row[name]) for row in rows])


def _cost(figure: Figure, results: Results) -> None:
    axes = add_axes(figure, "Cost of a subnet for each budget", "budgets", "CPU hours")
    costs, counts = results.costs(), np.arange(1, 41)
    axes.plot(counts, [costs.ours(n) / 3600 for n in counts], label="one supernet, and a search")
    one_by_one = [costs.one_by_one(n) / 3600 for n in counts]
    axes.plot(counts, one_by_one, label="a training for each budget")
    axes.legend(loc="upper left", frameon=False)
