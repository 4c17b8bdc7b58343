"""The page itself: records in, HTML out. Every text of a file is escaped by the templates."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jinja2

from ofa_tf.names import printable
from ofa_tf.report.colors import DARK, LIGHT
from ofa_tf.report.drawing import architectures_picture
from ofa_tf.report.figures import (
    accuracy_picture,
    front_picture,
    latency_picture,
    tradeoff_picture,
    training_picture,
)
from ofa_tf.report.measures import measure_name
from ofa_tf.report.page.job_report import JobReport, Predicted
from ofa_tf.report.page.prediction import LatencyPrediction
from ofa_tf.report.page.subnets import Subnet, Timing
from ofa_tf.report.page.timing import describe_device, describe_settings, is_slowed
from ofa_tf.report.plots import Picture
from ofa_tf.report.tables import table_cells
from ofa_tf.spaces import SearchSpace
from ofa_tf.version import __version__

_MISSING = "–"


def render(report: JobReport, space: SearchSpace) -> str:
    """The page as HTML, which needs no other file.

    Equal reports give equal text.

    Args:
        report: what it tells.
        space: of the job, whose largest subnet shows what the others leave out.
    """
    overview = _overview(report)
    pictures = _pictures(report, space)
    first = f"tradeoff-{overview['table']}" if overview else ""
    if first not in pictures:
        first = next((name for name in pictures if name.startswith("tradeoff-")), "")
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            overview=overview,
            pictures=pictures,
            first_picture=first,
            light=LIGHT,
            dark=DARK,
            version=__version__,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    """The templates, with what they call; undefined names are errors."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ofa_tf.report.page"),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "ms_of_us": lambda us, decimals: _decimals(us, decimals, 1e-3),
        "percent": _percent,
        "kb": lambda num_bytes: _decimals(num_bytes, 0, 1e-3),
        "number": _decimals,
    }
    environment.globals |= {
        "measure_name": measure_name,
        "settings": describe_settings,
        "timing_groups": timing_groups,
    }
    return environment


def _printable(value: Any) -> Any:
    """What a template shows: texts of files without what cannot be seen, HTML of ours as it is."""
    return printable(value) if type(value) is str else value


def _pictures(report: JobReport, space: SearchSpace) -> dict[str, str]:
    """The SVG of each picture by its id: what it shows, and the number of it."""
    found: dict[str, Picture | None] = {}
    training, accuracy = report.training, report.accuracy
    if training.evaluations:
        ends = training.last_corners[0], training.last_corners[-1]
        found["corners"] = training_picture(training.curves, *ends, training.phase_starts)
    if accuracy:
        found["predicted"] = accuracy_picture(accuracy.accuracies, accuracy.predictions)
    for number, table in enumerate(report.latencies, start=1):
        if table.seen or table.unseen:
            found[f"latencies-{number}"] = latency_picture(table.seen, table.unseen)
        found[f"tradeoff-{number}"] = _tradeoff(report, table)
    for front in report.fronts:
        found[f"front-{front.measure}"] = front_picture(
            *zip(*front.points, strict=True), measure=front.measure
        )
    largest = space.blueprint(space.max(), len(training.class_names))
    for number, subnet in enumerate(report.subnets, start=1):
        if subnet.plan:
            row = {"name": subnet.name}  # its latencies, of every device, are below it
            found[f"blocks-{number}"] = architectures_picture([row], [subnet.plan], largest)
    return {name: one.svg(name) for name, one in found.items() if one}


def _tradeoff(report: JobReport, table: LatencyPrediction) -> Picture | None:
    """Accuracy against latency where a table was measured; None where nothing of it is known."""
    known = report.predicted.get(table.file, Predicted((), (), {}))
    rows = []
    for subnet in report.subnets:
        if subnet.chosen and subnet.name in known.subnet_ms:
            there = [one for one in subnet.timings if one.table == table.file]
            of_table = {
                "predicted_latency_ms": known.subnet_ms[subnet.name],
                "precision": table.precision,
            }
            rows.append(_overview_row(subnet, there) | of_table)
    if not (rows or len(known.cloud) or len(known.front)):
        return None
    return tradeoff_picture(rows, known.cloud, known.front, device=table.where)


@dataclasses.dataclass(frozen=True)
class TimingGroup:
    """Latencies of a subnet's files on one device with one set of settings."""

    device: str
    settings: str
    timings: tuple[Timing, ...]

    @property
    def decimals(self) -> int:
        """Of milliseconds, as `text_table` has them."""
        return 3 if any(one.summary.median_us < 1000 for one in self.timings) else 2


def timing_groups(subnet: Subnet) -> list[TimingGroup]:
    """Those that a latency table predicts first."""
    groups: dict[tuple[str, str], list[Timing]] = {}
    for one in sorted(subnet.timings, key=lambda one: not one.table):
        groups.setdefault(_setting(one), []).append(one)
    return [TimingGroup(*setting, tuple(timings)) for setting, timings in groups.items()]


def _setting(timing: Timing) -> tuple[str, str]:
    return describe_device(timing.summary), describe_settings(timing.summary)


def _overview(report: JobReport) -> dict[str, Any] | None:
    """The table of the chosen subnets, with latencies of one device and setting."""
    chosen = [subnet for subnet in report.subnets if subnet.chosen]
    if not chosen:
        return None
    setting = _most_telling([one for subnet in chosen for one in subnet.timings])
    timings = {
        subnet.name: [one for one in subnet.timings if _setting(one) == setting]
        for subnet in chosen
    }
    shown = [one for ones in timings.values() for one in ones]
    files = [table.file for table in report.latencies]
    columns, cells = table_cells([_overview_row(one, timings[one.name]) for one in chosen])
    return {
        "tables": _by_group(columns, cells),
        "where": setting,
        "table": next((files.index(one.table) + 1 for one in shown if one.table), 0),
        "predicted_there": any(one.table for one in shown),
        "invalid": sum(not one.summary.verdict.valid for one in shown),
        "timed": len(shown),
        "best": max((a for one in chosen for a in _accuracies(one)), default=None),
    }


def _most_telling(timings: Iterable[Timing]) -> tuple[str, str] | None:
    """The setting that most files have; rather one that slows nothing, and that was predicted."""
    groups = collections.defaultdict(list)
    for one in timings:
        groups[_setting(one)].append(one)

    def rank(setting: tuple[str, str]) -> tuple[bool, bool, int]:
        ones = groups[setting]
        return not is_slowed(ones[0].summary), any(one.table for one in ones), len(ones)

    return max(groups, key=rank, default=None)


def _accuracies(subnet: Subnet) -> list[float]:
    return [file.accuracy for file in subnet.files if file.accuracy is not None]


def _overview_row(subnet: Subnet, timings: list[Timing]) -> dict[str, Any]:
    """A subnet as `text_table` takes it; predicted for these timings where there is a table."""
    best, limits = subnet.chosen.best, subnet.chosen.limits
    told = [one.predicted_ms for one in timings if one.predicted_ms is not None]
    return {
        "name": subnet.name,
        "resolution": subnet.plan.resolution,
        "budget_ms": limits.get("latency_ms"),
        "predicted_latency_ms": told[0] if told else best.measures.get("latency_ms"),
        "measured_latency_ms": {
            one.file.format.removeprefix("tflite_"): one.summary.median_us / 1e3 for one in timings
        },
        "predicted_accuracy": best.predicted_accuracy,
        "evaluated_accuracy": best.evaluated_accuracy,
        "accuracy": {file.format: file.accuracy for file in subnet.files},
        "macs": subnet.plan.macs,
        "params": subnet.plan.params,
        "file_bytes": {file.format: file.num_bytes for file in subnet.files},
    }


def _by_group(
    columns: list[tuple[str, str]], cells: list[list[str]]
) -> list[tuple[str, list[str], list[list[str]]]]:
    """The columns of each group as a table of its own: title, heads, and rows with their name.

    One table of all would be too wide for a page; columns without a group come first.
    """
    tables = []
    for title in dict.fromkeys(["", *(group for group, _ in columns)]):
        places = [i for i, (group, _) in enumerate(columns, start=1) if group == title]
        heads = [columns[i - 1][1] for i in places]
        tables.append((title, heads, [[row[0], *(row[i] for i in places)] for row in cells]))
    return tables


def _percent(fraction: float | None, decimals: int = 1) -> str:
    return _decimals(fraction, decimals, 100)


def _decimals(value: float | None, decimals: int = 0, scale: float = 1) -> str:
    return _MISSING if value is None else f"{value * scale:.{decimals}f}"
