"""Converts the models of a latency table and measures them round by round, resumably."""

from __future__ import annotations

import math
import pathlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ofa_tf.errors import UsageError
from ofa_tf.files import write_bytes
from ofa_tf.search.rows import RowFile
from ofa_tf.spaces import Blueprint

if TYPE_CHECKING:
    import mobile_bench

_CHUNK = 64  # models measured by one call; what an interruption can lose
_AGREEMENT = 0.03  # by which the two fastest rounds of a model that was not disturbed differ


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
    measure: Callable[[Sequence[str]], Sequence[mobile_bench.Measurement]],
    rounds: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Adds the rows that the file lacks, and returns what all of them were measured with.

    Models whose two fastest rounds do not agree were disturbed: they go through up to as many
    rounds again.

    Args:
        names: of the models in the folder, as `convert_all` writes them.
        folder: of the models.
        file: a row for each model and round.
        measure: paths of .tflite files to one measurement each.
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
        for start in range(0, len(wanted), _CHUNK):
            progress("measure", done, total)
            part = wanted[start : start + _CHUNK]
            measurements = measure([str(folder / f"{name}.tflite") for name in part])
            for name, measurement in zip(part, measurements, strict=True):
                file.append({"round": index, "model": name, **_row(measurement)})
            done += len(part)
    progress("measure", total, total)
    setups = [row["setup"] for row in file.rows]
    for setup in setups:
        if setup != setups[0]:
            raise UsageError(
                f"{file.path} has rows measured with {setups[0]} and with {setup}; remove it."
            )
    return {**setups[0], "date": file.rows[-1]["date"]}


def _disturbed(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models that were measured more than once, and whose two fastest rounds differ."""
    fastest = {model: sorted(times)[:2] for model, times in round_latencies(rows).items()}
    return [name for name in names if fastest[name][-1] > (1 + _AGREEMENT) * fastest[name][0]]


def round_latencies(
    rows: Sequence[Mapping[str, Any]], of_runs: str = "p5_us"
) -> dict[str, list[float]]:
    """The latency in ms of each round, by model: by default the 5th percentile of its runs.

    Other work on the device can only add to a run. In a round of few runs the median of a slow
    model already has some of it, that of a fast one has not, and the two would not compare.

    Args:
        rows: of `measure_all`.
        of_runs: "p5_us", or "median_us" for what a user sees.
    """
    latencies = defaultdict(list)
    for row in rows:
        latencies[row["model"]].append(row[of_runs] / 1000)
    return latencies


def _checked(file: RowFile) -> list[Mapping[str, Any]]:
    """The rows of a file, if each has what is read from it."""
    for number, row in enumerate(file.rows, start=1):
        whole = {"round", "model", "setup", "date"} <= row.keys()
        if not whole or not all(_is_time(row.get(key)) for key in ("p5_us", "median_us")):
            raise UsageError(
                f"{file.path}, line {number}: this is no measurement, or its p5_us or median_us is "
                f"no positive number; remove the line."
            )
    return file.rows


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def _row(measurement: mobile_bench.Measurement) -> dict[str, Any]:
    """The part of a measurement that a table keeps."""
    record = measurement.to_dict()
    timings = record["timings"]
    return {
        "p5_us": timings["p5_us"],
        "median_us": timings["median_us"],
        "p90_us": timings["p90_us"],
        "count": timings["count"],
        "reasons_invalid": list(record["verdict"]["reasons"]),
        "date": record["date"],
        "setup": {key: record[key] for key in ("device", "tool", "settings")},
    }
