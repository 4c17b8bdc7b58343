"""The pictures of docs/RESULTS.md."""

from __future__ import annotations

import pathlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ofa_tf.report.plots import add_axes, save_figure
from study_parts.results import Results
from study_parts.tables import BUDGETS, SECTIONS, SUPERNETS, TITLES, corner_title

_COLORS = {"searched": "#d1495b", "random": "0.65", "uniform": "#2a6f97"}
_AXES = ("measured", "predicted")
_LABELS = {
    "searched": "searched",
    "random": "random, of the same predicted latency",
    "uniform": "uniform: one expand ratio, kernel and resolution",
}


def draw_all(results: Results, folder: pathlib.Path) -> None:
    """Writes the PNGs of what there is. Raises FailureError where one cannot be written."""
    drawn = {
        "schedules": _schedules,
        "cost": _cost,
        "searched": _searched,
        "predictors": _predictors,
    }
    for name, draw in drawn.items():
        section = SECTIONS[name]
        if section.needs(results):
            figure = Figure(figsize=(9, 4.8), dpi=100, layout="constrained")
            draw(figure, results)
            save_figure(figure, folder / section.picture)


def _searched(figure: Figure, results: Results) -> None:
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
    axes = add_axes(figure, "Corner subnets, means over seeds", "", "accuracy (%)")
    corners = results.corners
    for name, marker in zip(SUPERNETS, "osD^", strict=True):
        if results.seeds(name):
            seeds = 100 * np.array([results.of_subnet(name, corner) for corner in corners])
            means = seeds.mean(axis=1)
            ends = [means - seeds.min(axis=1), seeds.max(axis=1) - means]
            style = {"ls": ":", "lw": 0.8, "capsize": 3, "label": TITLES[name]}
            axes.errorbar(range(len(corners)), means, ends, marker=marker, **style)
    axes.set_xticks(range(len(corners)), map(corner_title, corners))
    axes.legend(loc="best", frameon=False)


def _predictors(figure: Figure, results: Results) -> None:
    accuracy, latency = results.predictors["accuracy"], results.predictors["latency"]
    of_subnets = ([row[f"{what}_ms"] for row in latency["subnets"]] for what in _AXES)
    pairs = {
        "accuracy (%)": 100 * np.array([accuracy["accuracies"], accuracy["predictions"]]),
        "latency (ms)": np.array(list(of_subnets)),
    }
    for number, (what, values) in enumerate(pairs.items(), 1):
        axes = figure.add_subplot(1, 2, number)
        ends = values.min(), values.max()
        axes.plot(ends, ends, color="0.7", lw=1)
        axes.scatter(*values, s=18)
        axes.set_title(f"{what}, not fitted on", loc="left", weight="bold")
        axes.set(xlabel=_AXES[0], ylabel=_AXES[1], aspect="equal")
        axes.spines[["top", "right"]].set_visible(False)


def _cost(figure: Figure, results: Results) -> None:
    axes = add_axes(figure, "Subnets for as much CPU time in all", "budgets", "accuracy (%)")
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS, BUDGETS)
    axes.minorticks_off()
    costs, counts = results.costs(), np.arange(1, 41)
    reached = [costs.alone(costs.ours(count) / count) for count in counts]
    # Beyond the times that were tried, nothing is drawn.
    alone = 100 * np.array([[np.nan] * len(each) if bound else each for each, bound in reached])
    ours = 100 * np.tile(costs.accuracies, (len(counts), 1))
    for label, values, color in (("ours", ours, "C0"), ("a training each", alone, "C1")):
        axes.plot(counts, values.mean(axis=1), color=color, label=f"{label}: mean of five archs")
        axes.plot(counts, values[:, 0], "--", color=color, lw=0.9, label=f"{label}: the smallest")
        axes.plot(counts, values[:, -1], ":", color=color, lw=0.9, label=f"{label}: the largest")
    axes.legend(loc="best", frameon=False)
