"""The charts of the page: which series, on which axes, with which texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofa_tf.report.page.chart import Axis, Chart, Mark, Series, thinned
from ofa_tf.report.page.job_report import JobReport, Predicted
from ofa_tf.report.page.prediction import AccuracyPrediction, LatencyPrediction
from ofa_tf.report.page.search import Front, measure_name
from ofa_tf.report.page.training import Evaluation, Training

_LOG_FROM = 12  # ratio of the largest to the least latency from which an axis is logarithmic
_CLOUD = 700  # points that tell as much as thousands


def training_chart(training: Training) -> Chart:
    """Accuracies of the corners over training; the smallest and the largest of all stand out."""
    ends = {training.last_corners[0]: "second", training.last_corners[-1]: "first"}
    others = [name for name in training.corners if name not in ends]
    curves = {name: _curve(name, training.evaluations) for name in (*others, *ends)}
    series = [
        Series.of("faint", curves[name], "line", "other corners" if name == others[0] else "")
        for name in others
    ]
    for name, look in ends.items():
        marks = [Mark(x, y, f"{name}: {y:.1f} %") for x, y in curves[name]]
        series += [Series(look, marks, "line", name), Series(look, marks, "circles")]
    steps = [one.step for one in training.evaluations]
    # A phase begins where the one before it was evaluated last; new weights are not evaluated.
    starts: dict[str, int] = {}
    for one, begin in zip(training.evaluations, [0, *steps[:-1]], strict=True):
        starts.setdefault(one.phase, begin)
    return Chart(
        "Accuracy of the corner subnets over the steps of training",
        Axis("training step", 0, max(steps) * 1.02 or 1),
        Axis.around("accuracy (%)", [y for curve in curves.values() for _, y in curve]),
        series,
        sorted((step, name) for name, step in starts.items()),
    )


def _curve(name: str, evaluations: Sequence[Evaluation]) -> list[tuple[float, float]]:
    return [(one.step, 100 * one.accuracies[name]) for one in evaluations if name in one.accuracies]


def accuracy_chart(accuracy: AccuracyPrediction) -> Chart:
    """Predicted against true accuracies of archs that the predictor never saw."""
    pairs = list(zip(accuracy.accuracies, accuracy.predictions, strict=True))
    marks = [
        Mark(100 * truth, 100 * told, f"{100 * truth:.1f} %, predicted {100 * told:.1f} %")
        for truth, told in pairs
    ]
    both = [value for mark in marks for value in (mark.x, mark.y)]
    x, y = Axis.around("accuracy (%)", both), Axis.around("predicted accuracy (%)", both)
    return Chart(
        f"Predicted against true accuracy of {len(marks)} held-out subnets",
        x,
        y,
        [_diagonal(x), Series("first", marks, "circles", "subnets that it never saw")],
    )


def latency_chart(table: LatencyPrediction) -> Chart:
    """Predicted against measured latencies of whole subnets."""
    both = [value for pair in (*table.seen, *table.unseen) for value in pair]
    x = Axis.around("measured (ms)", both, _LOG_FROM)
    y = Axis.around("predicted (ms)", both, _LOG_FROM)
    return Chart(
        f"Predicted against measured latency of {len(table.seen) + len(table.unseen)} subnets",
        x,
        y,
        [
            _diagonal(x),
            Series("faint", _latency_marks(table.seen), "circles", "its correction was fitted on"),
            Series("first", _latency_marks(table.unseen), "circles", "it never saw"),
        ],
    )


def _latency_marks(pairs: Sequence[tuple[float, float]]) -> list[Mark]:
    return [Mark(x, y, f"{x:.4g} ms, predicted {y:.4g} ms") for x, y in pairs]


def _diagonal(axis: Axis) -> Series:
    return Series.of("guide", [(axis.low, axis.low), (axis.high, axis.high)], "line")


def tradeoff_chart(report: JobReport, table: LatencyPrediction) -> Chart | None:
    """Accuracy against latency on a device: predicted of any subnet, measured of the chosen ones.

    None where nothing of it is known.
    """
    known = report.predicted.get(table.file, Predicted((), (), {}))
    predicted, measured, links = [], [], []
    for subnet in report.subnets:
        ms = known.subnet_ms.get(subnet.name)
        if subnet.chosen is None or ms is None:
            continue
        accuracy = 100 * subnet.chosen.best.predicted_accuracy
        title = f"{subnet.name}: predicted {ms:.4g} ms, {accuracy:.1f} %"
        predicted.append(Mark(ms, accuracy, title, subnet.name))
        for one in subnet.timings:
            if one.file.accuracy is not None and one.table == table.file:
                x, y = one.summary.median_us / 1e3, 100 * one.file.accuracy
                measured.append(Mark(x, y, f"{subnet.name}: measured {x:.4g} ms, {y:.1f} %"))
                links.append(Series.of("link", [(ms, accuracy), (x, y)], "line"))
    cloud = thinned(np.asarray(known.cloud, float).reshape(-1, 2), _CLOUD) * (1, 100)
    front = np.asarray(known.front, float).reshape(-1, 2) * (1, 100)
    marks = [(mark.x, mark.y) for mark in (*predicted, *measured)]
    points = [*cloud.tolist(), *front.tolist(), *marks]
    if not points:
        return None
    return Chart(
        f"Accuracy against latency on {table.title}",
        Axis.around("latency (ms)", [x for x, _ in points], _LOG_FROM),
        Axis.around("accuracy (%)", [y for _, y in points]),
        [
            Series.of("cloud", cloud, "dots", "any subnet, predicted"),
            Series.of("front", front, "steps", "predicted front"),
            *links,
            Series("second", measured, "circles", "chosen, measured"),
            Series("first", predicted, "diamonds", "chosen, predicted"),
        ],
    )


def front_chart(front: Front) -> Chart:
    """A front that was searched whole."""
    name, unit = measure_name(front.measure)
    points = [(cost, 100 * accuracy) for cost, accuracy in front.points]
    marks = [Mark(x, y, f"{x:.4g} {unit}, {y:.1f} %") for x, y in points]
    return Chart(
        f"Predicted accuracy against {name} of {len(points)} subnets that none other beats",
        Axis.around(f"{name} ({unit})", [x for x, _ in points], _LOG_FROM),
        Axis.around("predicted accuracy (%)", [y for _, y in points]),
        [Series.of("front", points, "steps"), Series("first", marks, "circles", "subnets")],
    )
