"""The pictures with axes: which data, on which scales, with which texts.

All are 5 inches wide, so that their texts can be read on a phone; the PNG of one has 1000 x 750
pixels, that of a square one 700 x 700.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from ofa_tf.report.colors import LIGHT
from ofa_tf.report.measures import measure_label, measure_name
from ofa_tf.report.plots import Picture, add_axes, place_labels, styled

Points = Sequence[tuple[float, float]]

_LOG_FROM = 12  # ratio of the largest to the least cost from which an axis is logarithmic
_CLOUD = 500  # points that tell as much as thousands
_MARKERS = {
    "float32": "o",
    "int8": "s",
    "float16": "v",
    "dynamic": "^",
    "int16x8": "P",
    "qat": "X",
}
_LABEL_PLACE = {"textcoords": "offset points", "va": "bottom"}


@styled
def tradeoff_picture(
    rows: Sequence[Mapping[str, Any]], cloud: Points, front: Points, *, device: str
) -> Picture:
    """Accuracy against latency, predicted and measured.

    Args:
        rows: rows of results.json, the chosen subnets.
        cloud: predicted (latency in ms, accuracy in 0..1) of many subnets: (n, 2); n may be 0.
        front: the same of the predicted Pareto front: (m, 2); m may be 0.
        device: where the latencies were measured, for the axis.
    """
    picture = _picture(f"Accuracy against latency on {device}")
    axes = add_axes(
        picture.figure, "Accuracy against latency", f"latency on {device} (ms)", "accuracy (%)"
    )
    axes.margins(0.06, 0.12)  # room for the names above the points
    _draw_predicted(axes, _percent(cloud), _percent(front))
    _draw_measured(picture, axes, rows)
    chosen = [(row["predicted_latency_ms"], 100 * row["predicted_accuracy"]) for row in rows]
    texts = [
        f"{row['name']}: predicted {ms:.4g} ms, {accuracy:.1f} %"
        for row, (ms, accuracy) in zip(rows, chosen, strict=True)
    ]
    look = {"mfc": LIGHT["page"], "mec": LIGHT["accent"], "mew": 1.8, "ms": 6.5}
    _draw_marks(picture, axes, chosen, texts, "D", "predicted, chosen subnet", **look)
    _scale(axes, "x")
    _scale(axes, "y", math.inf)
    _add_legend(picture.figure, axes)
    labels = [
        axes.annotate(row["name"], point, (-6, 4), ha="right", weight="bold", **_LABEL_PLACE)
        for row, point in zip(rows, chosen, strict=True)
    ]
    place_labels(picture, labels, climb=True)
    return picture


def _draw_predicted(axes: Axes, cloud: np.ndarray, front: np.ndarray) -> None:
    """What the predictors say of any subnet; what is empty is not in the legend either."""
    if len(cloud):
        thinned = cloud[:: math.ceil(len(cloud) / _CLOUD)]
        look = {"s": 5, "color": LIGHT["cloud"], "linewidths": 0}
        axes.scatter(*thinned.T, label="predicted, any subnet", **look)
    if len(front):
        front = front[np.argsort(front[:, 0])]
        _draw_steps(axes, front, "predicted Pareto front")


def _draw_steps(axes: Axes, front: np.ndarray, label: str) -> None:
    # Between two points the left one is the best that fits.
    look = {"drawstyle": "steps-post", "color": LIGHT["front"], "lw": 1.4}
    axes.plot(*front.T, label=label, **look)


def _draw_measured(picture: Picture, axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The measured files of the chosen subnets; a line shows how far a prediction was off."""
    for row in rows:
        point = _measured(row).get(row.get("precision", "float32"))
        if point:
            predicted = row["predicted_latency_ms"], 100 * row["predicted_accuracy"]
            axes.plot(*zip(predicted, point, strict=True), color=LIGHT["second"], lw=1.2, ls=":")
    for precision, marker in _MARKERS.items():
        found = [
            (row["name"], _measured(row)[precision]) for row in rows if precision in _measured(row)
        ]
        texts = [f"{name}: measured {ms:.4g} ms, {top1:.1f} %" for name, (ms, top1) in found]
        look = {"color": LIGHT["second"], "mec": LIGHT["page"], "ms": 7.5}
        points = [point for _, point in found]
        _draw_marks(picture, axes, points, texts, marker, f"measured, {precision} file", **look)


def _measured(row: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """(latency in ms, accuracy in percent) of each TFLite file that has both."""
    points = {}
    for precision, latency in (row.get("measured_latency_ms") or {}).items():
        accuracy = (row.get("accuracy") or {}).get(f"tflite_{precision}")
        if latency is not None and accuracy is not None:
            points[precision] = (latency, 100 * accuracy)
    return points


def measured_or_predicted(row: Mapping[str, Any]) -> tuple[float | None, float | None, str]:
    """Latency in ms and accuracy in percent of the file that was predicted; measured if it was."""
    measured = _measured(row).get(row.get("precision", "float32"))
    if measured:
        return *measured, "measured"
    accuracy = row.get("predicted_accuracy")
    return row.get("predicted_latency_ms"), accuracy and 100 * accuracy, "predicted"


@styled
def front_picture(costs: Sequence[float], accuracies: Sequence[float], *, measure: str) -> Picture:
    """The front of predicted accuracy against a measure.

    Args:
        costs: (n,), rising.
        accuracies: theirs, (n,), 0..1.
        measure: such as "macs_m".
    """
    points = _percent(list(zip(costs, accuracies, strict=True)))
    name, unit = measure_name(measure)
    count = f"{len(points)} subnets that none other beats"
    picture = _picture(f"Predicted accuracy against {name} of {count}")
    axes = add_axes(picture.figure, count, measure_label(measure), "predicted accuracy (%)")
    _draw_steps(axes, points, "")
    texts = [f"{cost:.4g} {unit}, {accuracy:.1f} %" for cost, accuracy in points]
    _draw_marks(picture, axes, points, texts, "o", "", color=LIGHT["accent"], ms=4, mew=0)
    _scale(axes, "x")
    _scale(axes, "y", math.inf)
    picture.settle()
    return picture


@styled
def accuracy_picture(
    accuracies: Sequence[float],
    predictions: Sequence[float],
    spreads: Sequence[float] | None = None,
) -> Picture:
    """Predicted against true accuracy: on the diagonal where the prediction is right.

    Args:
        accuracies: the true ones, 0..1: (n,).
        predictions: those predicted: (n,).
        spreads: standard deviations within an ensemble, drawn as bars: (n,).
    """
    points = _percent(list(zip(accuracies, predictions, strict=True)), columns=(0, 1))
    bars = None if spreads is None else 100 * np.asarray(spreads)
    count = f"{len(points)} held-out subnets"
    picture = _picture(f"Predicted against true accuracy of {count}", square=True)
    y_label = "predicted accuracy (%)" + ("" if bars is None else ", bars: ensemble")
    axes = add_axes(picture.figure, count, "accuracy (%)", y_label)
    if bars is not None:
        axes.errorbar(*points.T, bars, fmt="none", ecolor=LIGHT["faint"], elinewidth=1.2)
    texts = [f"{truth:.1f} %, predicted {told:.1f} %" for truth, told in points]
    _draw_marks(picture, axes, points, texts, "o", "", color=LIGHT["accent"], ms=5, mew=0)
    _scale_alike(axes, points, math.inf)
    picture.settle()
    return picture


@styled
def latency_picture(seen: Points, unseen: Points) -> Picture:
    """Predicted against measured latency of whole subnets.

    Args:
        seen: (measured, predicted) ms of those that the table's correction was fitted on.
        unseen: the same of others.
    """
    count = f"{len(seen) + len(unseen)} subnets"
    picture = _picture(f"Predicted against measured latency of {count}", square=True)
    axes = add_axes(picture.figure, count, "measured (ms)", "predicted (ms)")
    for points, color, label in (
        (seen, "faint", "the correction was fitted on it"),
        (unseen, "accent", "held out"),
    ):
        texts = [f"{x:.4g} ms, predicted {y:.4g} ms" for x, y in points]
        look = {"color": LIGHT[color], "mec": LIGHT["page"], "ms": 6}
        _draw_marks(picture, axes, points, texts, "o", label, **look)
    _scale_alike(axes, np.array([*seen, *unseen]), _LOG_FROM)
    _add_legend(picture.figure, axes)
    picture.settle()
    return picture


@styled
def training_picture(
    curves: Mapping[str, Points], smallest: str, largest: str, starts: Mapping[str, float]
) -> Picture:
    """Accuracies of the corner subnets over training; the smallest and the largest stand out.

    Args:
        curves: (step, accuracy in 0..1) by the name of a subnet.
        smallest: one of these.
        largest: another, or the same where only one was trained.
        starts: the step at which each phase begins.
    """
    picture = _picture("Accuracy of the corner subnets over the steps of training")
    title = "Accuracy of the corner subnets\n"  # above the names of the phases
    axes = add_axes(picture.figure, title, "training step", "accuracy (%)")
    others = [name for name in curves if name not in (smallest, largest)]
    for name in others:
        label = "other corners" if name == others[0] else ""
        axes.plot(*_percent(curves[name]).T, color=LIGHT["cloud"], lw=1.1, label=label)
    for name, color in {smallest: "second", largest: "accent"}.items():
        points = _percent(curves[name])
        texts = [f"{name}: {accuracy:.1f} %" for _, accuracy in points]
        _draw_marks(
            picture, axes, points, texts, "o", name, ls="-", color=LIGHT[color], ms=4, mew=0
        )
    labels = []
    for name, step in sorted(starts.items(), key=lambda item: item[1]):
        axes.axvline(step, color=LIGHT["faint"], ls="--", lw=1, zorder=0)
        anchor = {"xycoords": axes.get_xaxis_transform(), "color": LIGHT["muted"]}
        labels.append(axes.annotate(name, (step, 1), (2, 3), **anchor, **_LABEL_PLACE))
    axes.set_xlim(left=0)
    for axis in "xy":
        _scale(axes, axis, math.inf)
    _add_legend(picture.figure, axes)
    place_labels(picture, labels, climb=False)
    return picture


def _picture(title: str, square: bool = False) -> Picture:
    size, dpi = ((5, 5), 140) if square else ((5, 3.75), 200)
    return Picture(Figure(figsize=size, dpi=dpi, layout="constrained"), title)


def _percent(points: Points, columns: Iterable[int] = (1,)) -> np.ndarray:
    """Points, accuracies of which are 0..1, with these in percent: float (n, 2)."""
    values = np.array(points, float).reshape(-1, 2)
    values[:, list(columns)] *= 100
    return values


def _draw_marks(
    picture: Picture,
    axes: Axes,
    points: Points,
    texts: Sequence[str],
    marker: str,
    label: str,
    **look: Any,
) -> None:
    """Points that say what they are when they are pointed at; none are not in the legend."""
    if len(points):
        style = {"ls": "", "marker": marker, "label": label, **look}
        (line,) = axes.plot(*np.asarray(points, float).T, **style)
        picture.explain(line, texts)


def _scale(axes: Axes, name: str, log_from: float = _LOG_FROM) -> None:
    """Round ticks on an axis; a logarithmic one where the ratio of its values is large."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = getattr(axes.dataLim, f"interval{name}")
    if low > 0 and high / low >= log_from:
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(StrMethodFormatter("{x:.6g}"))
    axes.tick_params(length=0)


def _scale_alike(axes: Axes, points: np.ndarray, log_from: float) -> None:
    """Both axes with one range, square, and the line on which a prediction is right."""
    low, high = points.min(), points.max()
    if low > 0 and high / low >= log_from:
        margin = (high / low) ** 0.06
        ends = low / margin, high * margin
    else:
        margin = 0.05 * (high - low) or 1.0  # points, where all are one
        ends = low - margin, high + margin
    axes.plot(ends, ends, color=LIGHT["faint"], lw=1, ls="--", zorder=0)
    for name in "xy":
        _scale(axes, name, log_from)
    axes.set(xlim=ends, ylim=ends)
    axes.set_aspect("equal", adjustable="box")


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, in two columns."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        keys = [_key(handle) if isinstance(handle, Line2D) else handle for handle in handles]
        figure.legend(keys, labels, loc="outside lower left", ncols=2, columnspacing=1.2)


def _key(line: Line2D) -> Line2D:
    """A line as it looks in a legend, without the texts of its marks."""
    key = Line2D([], [])
    key.update_from(line)
    key.set_gid(None)
    return key
