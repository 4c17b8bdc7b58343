"""build_latency_table: measures the blocks of a space and a few whole subnets on a device."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import itertools
import pathlib
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.search.codes import ArchSampler
from ofa_tf.search.latency import LatencyTable, distinct_blocks, fit_correction, relative_errors
from ofa_tf.search.latency_measuring import (
    Measure,
    convert_all,
    doubtful_models,
    measure_all,
    round_latencies,
)
from ofa_tf.search.rows import RowFile
from ofa_tf.spaces import Arch, Blueprint, SearchSpace
from ofa_tf.spaces.blueprint import Block, GlobalPool

_EMPTY = GlobalPool("empty", 2, 8)  # the mean of four pixels: a model that does next to nothing
_NUM_BETWEEN = 20  # blocks on which interpolation is checked


def build_latency_table(
    space: SearchSpace,
    num_classes: int,
    *,
    convert: Callable[[Blueprint, bool], bytes],
    measure: Measure,
    path: str | pathlib.Path,
    precision: str = "float32",
    form: str = "cpu",
    resolutions: Sequence[int] | None = None,
    rounds: int = 5,
    num_fit: int = 20,
    num_check: int = 20,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> LatencyTable:
    """Measures a latency table and saves it.

    Every distinct block becomes a model of its own, at batch 1. All blocks and whole subnets are
    measured in turn, round after round, so that a slow spell of the device strikes them alike;
    a block's latency is the least of its rounds', see `round_latencies`, and a model that was
    disturbed is measured in more rounds, see `measure_all`. The correction, see
    `fit_correction`, is fitted on the least medians of some of the subnets, since medians are what
    a user measures, and checked on those of the others.

    The table's `report` has for the subnets that it was not fitted on n, mape, bias, worst (all
    relative), kendall, `worst_arch` and `subnets` (arch, measured_ms, predicted_ms); the same
    for those `fitted`; `interpolation`: n, mape, bias, worst, kendall and `blocks` (key,
    measured_ms, predicted_ms) of blocks halfway between the resolutions that make the table;
    `left_out_errors` of each form of the correction; `round_spread`, the median over models
    of (largest - least) / least latency of a round; and `doubtful`, why no round of a model was
    valid, by model.

    Converted models and measured rows are kept beside `path` until the table is saved, so that
    an interrupted call goes on where it was.

    Args:
        space: the space.
        num_classes: classes of the networks.
        convert: a Blueprint, and whether it takes images (else feature maps), to the bytes of a
            .tflite file. What normalizes images inside an exported file counts as the first
            block's.
        measure: called with paths of .tflite files, and with what to call with the measurement
            of each as soon as it is there.
        path: where the table goes.
        precision: what `convert` makes; kept in the table, as is `form`.
        resolutions: at which blocks are measured, in pixels; the table answers for those of the
            space from the least to the largest. None for up to three over the whole range.
        rounds: how many times every model is measured; up to twice as many if disturbed.
        num_fit: whole subnets on which the correction is fitted.
        num_check: others on which the table is checked.
        seed: of the draw of the subnets, and of the blocks between the resolutions.
        progress: called as (what is done: "convert" or "measure", models done, models in all).

    Raises:
        UsageError: too few subnets or rounds, a resolution that is not in the space, or rows
            beside `path` that are damaged or of another space, precision or device.
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
    space = _within(space, resolutions)
    archs = _whole_subnets(space, num_fit + num_check, seed)
    blocks = distinct_blocks(space, num_classes, resolutions)
    between = _blocks_between(space, num_classes, resolutions, blocks, seed)
    plans = {_EMPTY.key: Blueprint(_EMPTY.in_size, (_EMPTY,))}
    plans |= {key: Blueprint(block.in_size, (block,)) for key, block in blocks.items()}
    plans |= {key: Blueprint(block.in_size, (block,)) for key, (block, _) in between.items()}
    plans |= {_subnet_name(arch): space.blueprint(arch, num_classes) for arch in archs}

    models = path.with_name(f"{path.name}.models")
    identity = {
        "space": space.name,
        "num_classes": num_classes,
        "precision": precision,
        "form": form,
    }
    file = RowFile(path.with_name(f"{path.name}.rows.jsonl"), identity)
    report_progress = progress or (lambda *_: None)
    first_name = space.blueprint(space.max(), num_classes).blocks[0].name

    def make(plan: Blueprint) -> bytes:
        return convert(plan, plan.blocks[0].name == first_name)  # whole subnets, and their stems

    convert_all(plans, models, make, report_progress)
    setup = measure_all(list(plans), models, file, measure, rounds, report_progress)

    rows = [row for row in file.rows if row["model"] in plans]
    by_round = round_latencies(rows)
    latencies = {name: min(values) for name, values in by_round.items()}
    medians = {name: min(v) for name, v in round_latencies(rows, "median_us").items()}
    measured = np.array([medians[_subnet_name(arch)] for arch in archs])
    raw = LatencyTable(
        space=space,
        num_classes=num_classes,
        resolutions=resolutions,
        block_ms={key: latencies[key] for key in blocks},
        overhead_ms=latencies[_EMPTY.key],
        precision=precision,
        form=form,
        setup={**setup, "versions": _versions(setup)},
        rows=tuple(rows),
    )
    table = _corrected(raw, archs, measured, num_fit)
    spreads = [(max(values) - min(values)) / min(values) for values in by_round.values()]
    report = {
        **table.report,
        "interpolation": _interpolation_errors(raw, between, latencies),
        "round_spread": float(np.median(spreads)),
        "doubtful": doubtful_models(rows),
    }
    table = dataclasses.replace(table, report=report)
    table.save(path)
    shutil.rmtree(models, ignore_errors=True)
    file.path.unlink(missing_ok=True)
    return table


# -- what is measured ----------------------------------------------------------------------------


def _spread(values: Sequence[int], most: int) -> list[int]:
    """Up to `most` of the values, ends included, evenly spread."""
    places = np.linspace(0, len(values) - 1, min(most, len(values)))
    return [values[round(place)] for place in places]


def _within(space: SearchSpace, resolutions: Sequence[int]) -> SearchSpace:
    """The space from the least to the largest of some of its resolutions."""
    low, high = min(resolutions), max(resolutions)
    kept = [side for side in space.resolutions if low <= side <= high]
    return space if len(kept) == len(space.resolutions) else space.restrict(resolutions=kept)


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


def _blocks_between(
    space: SearchSpace,
    num_classes: int,
    resolutions: Sequence[int],
    measured: Iterable[str],
    seed: int,
) -> dict[str, tuple[Block, int]]:
    """Some blocks that a table has to interpolate, with their network's resolution, by key.

    They are of the resolutions nearest to halfway between each two that are measured.
    """
    candidates = {}
    for low, high in itertools.pairwise(resolutions):
        middle = min(space.resolutions, key=lambda side: abs(side - (low + high) / 2))
        blocks = distinct_blocks(space, num_classes, [middle])
        candidates |= {key: (block, middle) for key, block in blocks.items()}
    for key in measured:
        candidates.pop(key, None)
    keys = list(candidates)
    drawn = np.random.default_rng(seed).permutation(len(keys))[:_NUM_BETWEEN]
    return {keys[index]: candidates[keys[index]] for index in sorted(drawn)}


# -- what is made of it --------------------------------------------------------------------------


def _corrected(
    raw: LatencyTable, archs: Sequence[Arch], measured: np.ndarray, num_fit: int
) -> LatencyTable:
    """The table with its correction fitted on the first subnets and checked on the others."""
    plans = [raw.space.blueprint(arch, raw.num_classes) for arch in archs]
    correction = fit_correction(plans[:num_fit], measured[:num_fit], raw.block_latency)
    table = dataclasses.replace(
        raw,
        slope=correction.slope,
        constant_ms=correction.constant_ms,
        grouping=correction.grouping,
        slopes=correction.slopes,
    )
    predicted = table(raw.space.encode(archs))
    report = {
        "fitted": _subnet_errors(archs[:num_fit], measured[:num_fit], predicted[:num_fit]),
        **_subnet_errors(archs[num_fit:], measured[num_fit:], predicted[num_fit:]),
        "left_out_errors": correction.errors,
    }
    return dataclasses.replace(table, report=report)


def _subnet_errors(
    archs: Sequence[Arch], measured: np.ndarray, predicted: np.ndarray
) -> dict[str, Any]:
    return {
        **relative_errors(measured, predicted),
        "worst_arch": archs[int(np.abs(predicted / measured - 1).argmax())].to_dict(),
        "subnets": [
            {"arch": arch.to_dict(), "measured_ms": float(m), "predicted_ms": float(p)}
            for arch, m, p in zip(archs, measured, predicted, strict=True)
        ],
    }


def _interpolation_errors(
    raw: LatencyTable,
    between: Mapping[str, tuple[Block, int]],
    latencies: Mapping[str, float],
) -> dict[str, Any]:
    """Blocks between the resolutions: as they were measured, and as the table has them."""
    measured = np.array([latencies[key] for key in between])
    predicted = np.array([raw.block_latency(*of) for of in between.values()]) + raw.overhead_ms
    return {
        **relative_errors(measured, predicted),
        "blocks": [
            {"key": key, "measured_ms": float(m), "predicted_ms": float(p)}
            for key, m, p in zip(between, measured, predicted, strict=True)
        ],
    }


def _versions(setup: Mapping[str, Any]) -> dict[str, str]:
    """Of what made the models, and of what ran them."""
    versions = {"python": platform.python_version()}
    for package in ("ofa_tf", "tensorflow"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions | {setup["tool"]["name"]: setup["tool"]["version"]}
