"""Converts the models of a latency table and measures them round by round, resumably."""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ofa_tf.errors import UsageError
from ofa_tf.fields import Fields
from ofa_tf.files import write_bytes
from ofa_tf.search.rows import RowFile
from ofa_tf.spaces import Blueprint

if TYPE_CHECKING:
    import mobile_bench

_AGREEMENT = 0.03  # by which the two fastest rounds of a model that was not disturbed differ


# Paths of .tflite files, and what to call with the measurement of each as soon as it is there.
Measure: TypeAlias = "Callable[[Sequence[str], Callable[[mobile_bench.Measurement], None]], object]"


def convert_all(
    plans: Mapping[str, Blueprint],
    folder: pathlib.Path,
    make: Callable[[Blueprint], bytes],
    progress: Callable[[str, int, int], None],
) -> None:
    """Writes `NAME.tflite` for each plan of which the folder has none yet.

    Args:
        plans: by name.
        folder: of the files.
        make: a plan to the content of a .tflite file.
        progress: called as ("convert", models done, models in all).
    """
    for done, (name, plan) in enumerate(plans.items()):
        progress("convert", done, len(plans))
        model_path = folder / f"{name}.tflite"
        if not model_path.exists():
            write_bytes(model_path, make(plan))
    progress("convert", len(plans), len(plans))


def measure_all(
    names: Sequence[str],
    folder: pathlib.Path,
    file: RowFile,
    measure: Measure,
    rounds: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Adds the rows that the file lacks, and returns what all of them were measured with.

    Models whose two fastest rounds do not agree were disturbed, as were those of which no round
    was valid (a phone that was hot): they go through up to as many rounds again.

    Args:
        names: of the models in the folder, as `convert_all` writes them.
        folder: of the models.
        file: a row for each model and round.
        measure: see `Measure`.
        rounds: how many times all models are measured, one after the other.
        progress: called as ("measure", models done, models in all), over all rounds.

    Raises:
        UsageError: the file has a damaged row, or rows that were measured otherwise.
    """
    known = {(row["round"], row["model"]) for row in _checked(file)}
    done = total = 0
    for index in range(2 * rounds):
        again = names if index < rounds else _disturbed(names, file.rows)
        wanted = [name for name in again if (index, name) not in known]
        total = max(rounds * len(names), done + len(again))
        done += len(again) - len(wanted)
        if wanted:
            advance = functools.partial(_advance, progress, done, total)
            advance(0)
            paths = [str(folder / f"{name}.tflite") for name in wanted]
            measure(paths, _appender(file, index, advance))
            done += len(wanted)
    progress("measure", total, total)
    return {**file.rows[0]["setup"], "date": file.rows[-1]["date"]}


def _disturbed(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models whose two fastest rounds differ, or of which no round was valid."""
    fastest = {model: sorted(times)[:2] for model, times in round_latencies(rows).items()}
    doubtful = doubtful_models(rows)
    return [
        name
        for name in names
        if name in doubtful or fastest[name][-1] > (1 + _AGREEMENT) * fastest[name][0]
    ]


def doubtful_models(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Why the last round was invalid, by model, of those models that have no valid round."""
    reasons = {row["model"]: row["reasons_invalid"] for row in rows}
    for row in rows:
        if not row["reasons_invalid"]:
            reasons.pop(row["model"], None)
    return reasons


def round_latencies(
    rows: Sequence[Mapping[str, Any]], of_runs: str = "p5_us"
) -> dict[str, list[float]]:
    """The latency in ms of each valid round, by model: by default the 5th percentile of its runs.

    Of a model without a valid round it is that of all its rounds.

    Other work on the device can only add to a run. In a round of few runs the median of a slow
    model already has some of it, that of a fast one has not, and the two would not compare.

    Args:
        rows: of `measure_all`.
        of_runs: "p5_us", or "median_us" for what a user sees.
    """
    latencies, doubtful = defaultdict(list), defaultdict(list)
    for row in rows:
        kind = doubtful if row["reasons_invalid"] else latencies
        kind[row["model"]].append(row[of_runs] / 1000)
    return {**doubtful, **latencies}


def _checked(file: RowFile) -> list[Mapping[str, Any]]:
    """The rows of a file, if each has what is read from it."""
    for number, row in enumerate(file.rows, start=1):
        fields = Fields(row, file.path, "Remove the line.", f"line {number}", UsageError)
        fields.whole("round")
        fields.text("model")
        fields.text("date")
        fields.texts("reasons_invalid")
        for key in ("p5_us", "median_us"):
            if not fields.number(key) > 0:
                raise fields.error(f"{fields.place(key)} is {row[key]}, no positive number")
        setup = fields.fields("setup")
        setup.fields_or_empty("device")
        _check_setup(file, row["setup"])
    return file.rows


def _check_setup(file: RowFile, setup: Mapping[str, Any]) -> None:
    """Raises UsageError unless the rows of the file were measured with this setup too."""
    first = file.rows[0]["setup"] if file.rows else setup
    if _what_counts(setup) != _what_counts(first):
        raise UsageError(
            f"{file.path} has rows measured with {first!s:.500}, this is {setup}; remove the file."
        )


def _what_counts(setup: Mapping[str, Any]) -> dict[str, Any]:
    """A setup without what may change on a phone: its connection, and which cores are on."""
    device = setup.get("device") or {}
    kept = {name: device[name] for name in device.keys() - {"target", "core_max_khz"}}
    return {**setup, "device": kept}


def _advance(
    progress: Callable[[str, int, int], None], before: int, total: int, models: int
) -> None:
    progress("measure", before + models, total)


def _appender(
    file: RowFile, index: int, advance: Callable[[int], None]
) -> Callable[[mobile_bench.Measurement], None]:
    """What appends the row of a measurement in a round, and tells how many it has appended."""
    count = itertools.count(1)

    def append(measurement: mobile_bench.Measurement) -> None:
        name = pathlib.Path(measurement.model).stem
        row = _row(measurement)
        _check_setup(file, row["setup"])
        file.append({"round": index, "model": name, **row})
        advance(next(count))

    return append


def _row(measurement: mobile_bench.Measurement) -> dict[str, Any]:
    """The part of a measurement that a table keeps.

    The tool of some phones prints no percentiles: what is nearest to them stands in.
    """
    record, timings = measurement.to_dict(), measurement.timings
    return {
        "p5_us": timings.fast_us,
        "median_us": timings.typical_us,
        "count": timings.count,
        "reasons_invalid": list(measurement.verdict.reasons),
        "date": measurement.date,
        "setup": {key: record[key] for key in ("device", "tool", "settings")},
    }
