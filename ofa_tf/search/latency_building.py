"""build_latency_table: measures the blocks of a space and a few whole subnets on a device."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.files import write_bytes
from ofa_tf.search.latency import LatencyTable, check_span, distinct_blocks
from ofa_tf.search.ranks import kendall
from ofa_tf.search.rows import RowFile
from ofa_tf.search.sampling import ArchSampler
from ofa_tf.spaces import Arch, Blueprint, SearchSpace
from ofa_tf.spaces.blueprint import GlobalPool

if TYPE_CHECKING:
    import keras

    import mobile_bench

_EMPTY = GlobalPool("empty", 2, 8)  # the mean of four pixels: a model that does next to nothing
_CHUNK = 64  # models measured by one call; what an interruption can lose


def build_latency_table(
    space: SearchSpace,
    num_classes: int,
    *,
    convert: Callable[[keras.Model], bytes],
    measure: Callable[[Sequence[str]], Sequence[mobile_bench.Measurement]],
    path: str | pathlib.Path,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    precision: str = "float32",
    resolutions: Sequence[int] | None = None,
    rounds: int = 3,
    num_fit: int = 8,
    num_check: int = 8,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> LatencyTable:
    """Measures a latency table and saves it.

    Every distinct block becomes a model of its own, at batch 1. All blocks and whole subnets are
    measured in turn, round after round, so that a slow spell of the device strikes them alike;
    a model's latency is the least of its rounds' medians. The correction is fitted on some of
    the subnets and `report` tells its errors on the others: n, mape, bias (both relative),
    kendall, `worst` and `subnets` (arch, measured_ms, predicted_ms), the same for those fitted,
    and `round_spread`, the median over models of (largest - least) / least round median.

    Converted models and measured rows are kept beside `path` until the table is saved, so that
    an interrupted call goes on where it was.

    Args:
        space: the space.
        num_classes: classes of the networks.
        convert: a model to the bytes of a .tflite file.
        measure: paths of .tflite files to one measurement each.
        path: where the table goes.
        normalization: as for `build_subnet`, where exported models normalize inside; its time
            counts as the first block's.
        precision: what `convert` makes; kept in the table.
        resolutions: at which blocks are measured, in pixels; None for up to three over the range.
        rounds: how many times every model is measured.
        num_fit: whole subnets on which the correction is fitted.
        num_check: others on which the table is checked.
        seed: of the draw of the subnets.
        progress: called as (what is done: "convert" or "measure", models done, models in all).

    Raises:
        UsageError: too few subnets or rounds, a resolution that is not in the space, or rows
            beside `path` of another space, precision or device.
        FailureError: the disk refuses; `convert` and `measure` raise their own.
    """
    if num_fit < 2 or num_check < 1 or rounds < 1:
        raise UsageError(
            f"A latency table takes two whole subnets or more to fit, one or more to check and "
            f"one round or more, not {num_fit}, {num_check} and {rounds}."
        )
    path = pathlib.Path(path)
    asked = resolutions or _spread(space.resolutions, 3)
    resolutions = space.restrict(resolutions=asked).resolutions
    check_span(space, resolutions)  # before the slow part
    archs = _whole_subnets(space, num_fit + num_check, seed)
    blocks = distinct_blocks(space, num_classes, resolutions)
    plans = {_EMPTY.key: Blueprint(_EMPTY.in_size, (_EMPTY,))}
    plans |= {key: Blueprint(block.in_size, (block,)) for key, block in blocks.items()}
    plans |= {_subnet_name(arch): space.blueprint(arch, num_classes) for arch in archs}

    models = path.with_name(f"{path.name}.models")
    identity = {"space": space.name, "num_classes": num_classes, "precision": precision}
    file = RowFile(path.with_name(f"{path.name}.rows.jsonl"), identity)
    report_progress = progress or (lambda *_: None)
    stems = {plan.blocks[0].key for _, plan in space.covering_plans(num_classes, resolutions)}

    def make(plan: Blueprint) -> bytes:
        from ofa_tf.models import build_subnet  # TensorFlow, only where it is needed

        takes_images = len(plan.blocks) > 1 or plan.blocks[0].key in stems
        model = build_subnet(
            plan, batch_size=1, normalization=normalization if takes_images else None
        )
        return convert(model)

    _convert_all(plans, models, make, report_progress)
    setup = _measure_all(list(plans), models, file, measure, rounds, report_progress)

    medians = _medians(file.rows, plans)
    latencies = {name: min(values) for name, values in medians.items()}
    raw = LatencyTable(
        space=space,
        num_classes=num_classes,
        resolutions=resolutions,
        block_ms={key: latencies[key] for key in blocks},
        overhead_ms=latencies[_EMPTY.key],
        precision=precision,
        setup=setup,
        rows=tuple(file.rows),
    )
    measured = np.array([latencies[_subnet_name(arch)] for arch in archs])
    table = _corrected(raw, archs, measured, num_fit, medians)
    table.save(path)
    shutil.rmtree(models, ignore_errors=True)
    file.path.unlink(missing_ok=True)
    return table


def _spread(values: Sequence[int], most: int) -> list[int]:
    """Up to `most` of the values, ends included, evenly spread."""
    places = np.linspace(0, len(values) - 1, min(most, len(values)))
    return [values[round(place)] for place in places]


def _whole_subnets(space: SearchSpace, count: int, seed: int) -> list[Arch]:
    """Subnets to fit and to check: in turn one of all, and one with the smallest kernels only.

    Random subnets have large kernels somewhere, which dominate their latency; the fastest ones,
    among which a search for tight budgets ends, would otherwise be hardly among them.
    """
    smallest = space.restrict(kernel_sizes=space.kernel_sizes[:1])
    samplers = (ArchSampler(space, seed), ArchSampler(smallest, seed))
    drawn = (tuple(samplers[i % 2].code(i // 2)) for i in range(4 * count))
    distinct = list(dict.fromkeys(drawn))  # the smallest arch, for one, is drawn by both
    repeated = distinct * count  # for a space of fewer archs
    return space.decode(np.array(repeated[:count]))


def _subnet_name(arch: Arch) -> str:
    return f"subnet-{hashlib.sha256(arch.to_json().encode()).hexdigest()[:16]}"


def _convert_all(
    plans: Mapping[str, Blueprint],
    folder: pathlib.Path,
    make: Callable[[Blueprint], bytes],
    progress: Callable[[str, int, int], None],
) -> None:
    """Writes the models that the folder does not have yet."""
    for done, (name, plan) in enumerate(plans.items()):
        progress("convert", done, len(plans))
        model_path = folder / f"{name}.tflite"
        if not model_path.exists():
            write_bytes(model_path, make(plan))
    progress("convert", len(plans), len(plans))


def _measure_all(
    names: Sequence[str],
    folder: pathlib.Path,
    file: RowFile,
    measure: Callable[[Sequence[str]], Sequence[mobile_bench.Measurement]],
    rounds: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Adds the rows that are missing and returns what all were measured with."""
    known = {(row["round"], row["model"]) for row in file.rows}
    wanted = [(r, name) for r in range(rounds) for name in names if (r, name) not in known]
    total = rounds * len(names)
    for start in range(0, len(wanted), _CHUNK):
        progress("measure", total - len(wanted) + start, total)
        chunk = wanted[start : start + _CHUNK]
        for index in sorted({index for index, _ in chunk}):
            part = [name for r, name in chunk if r == index]
            measurements = measure([str(folder / f"{name}.tflite") for name in part])
            for name, measurement in zip(part, measurements, strict=True):
                file.append({"round": index, "model": name, **_row(measurement)})
    progress("measure", total, total)
    setups = [row["setup"] for row in file.rows]
    for setup in setups:
        if setup != setups[0]:
            raise UsageError(
                f"{file.path} has rows measured with {setups[0]} and with {setup}; remove it."
            )
    return {**setups[0], "date": file.rows[-1]["date"]}


def _row(measurement: mobile_bench.Measurement) -> dict[str, Any]:
    """The part of a measurement that a table keeps."""
    record = measurement.to_dict()
    timings = record["timings"]
    return {
        "median_us": timings["median_us"],
        "p90_us": timings["p90_us"],
        "count": timings["count"],
        "reasons_invalid": list(record["verdict"]["reasons"]),
        "date": record["date"],
        "setup": {key: record[key] for key in ("device", "tool", "settings")},
    }


def _medians(
    rows: Sequence[Mapping[str, Any]], plans: Mapping[str, Blueprint]
) -> dict[str, list[float]]:
    """The medians in ms of each model's rounds."""
    medians = defaultdict(list)
    for row in rows:
        if row["model"] in plans:
            medians[row["model"]].append(row["median_us"] / 1000)
    return medians


def _corrected(
    raw: LatencyTable,
    archs: Sequence[Arch],
    measured: np.ndarray,
    num_fit: int,
    medians: Mapping[str, Sequence[float]],
) -> LatencyTable:
    """The table with its correction fitted on the first subnets and checked on the others."""
    codes = raw.space.encode(archs)
    slope, constant = _fit_line(raw(codes[:num_fit]), measured[:num_fit])
    table = dataclasses.replace(raw, slope=slope, constant_ms=constant)
    predicted = table(codes)
    spreads = [(max(values) - min(values)) / min(values) for values in medians.values()]
    report = {
        "fitted": _errors(archs[:num_fit], measured[:num_fit], predicted[:num_fit]),
        **_errors(archs[num_fit:], measured[num_fit:], predicted[num_fit:]),
        "round_spread": float(np.median(spreads)),
    }
    return dataclasses.replace(table, report=report)


def _fit_line(sums: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Slope and constant of least relative error; only a slope where the line would fall."""
    rows = np.stack([sums, np.ones_like(sums)], axis=1) / measured[:, None]
    slope, constant = np.linalg.lstsq(rows, np.ones_like(sums), rcond=None)[0]
    if slope <= 0:
        slope, constant = np.median(measured / sums), 0.0
    return float(slope), float(constant)


def _errors(archs: Sequence[Arch], measured: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    relative = predicted / measured - 1
    tau = kendall(measured, predicted)
    return {
        "n": len(archs),
        "mape": float(np.abs(relative).mean()),
        "bias": float(relative.mean()),
        "kendall": tau if np.isfinite(tau) else None,
        "worst": float(np.abs(relative).max()),
        "subnets": [
            {"arch": arch.to_dict(), "measured_ms": float(m), "predicted_ms": float(p)}
            for arch, m, p in zip(archs, measured, predicted, strict=True)
        ],
    }
