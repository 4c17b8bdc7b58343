"""What ofa-search works on, gathered from its flags, the files that they name, and the job."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from ofa_tf.cli import common
from ofa_tf.errors import UsageError
from ofa_tf.interop import is_published_predictor
from ofa_tf.job import Job, latency_command
from ofa_tf.spaces import SearchSpace, get_space
from ofa_tf.workdir import Workdir

if TYPE_CHECKING:
    from ofa_tf.search import AccuracyPredictor, LatencyTable, Measure, Scenario

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is searched and for what.

    Args:
        job: the job in the workdir, if there is one.
        space: at the resolutions that every table and the predictor know.
        num_classes: of the networks.
        scenarios: none where budgets are to be spread over the predicted front.
        measures: by name, all that the scenarios limit, and `latency_ms` where it is known.
        predictor: the one of --accuracy_predictor.
        sources: which files were read, with their hashes.
    """

    job: Job | None
    space: SearchSpace
    num_classes: int
    scenarios: tuple[Scenario, ...]
    measures: dict[str, Measure]
    predictor: AccuracyPredictor | None
    sources: dict[str, Any]


def gather(workdir: Workdir) -> Inputs:
    """Reads all that the flags name, and checks that each limit alone can be met.

    Raises:
        UsageError: something is missing, or does not fit together.
    """
    from ofa_tf.search import block_measure, check_reachable
    from ofa_tf.search.scenarios import LATENCY

    job = _job(workdir)
    space = job.space if job else get_space(FLAGS.space)
    device_paths, scenarios = _scenarios()
    if FLAGS.pareto and len(scenarios) > 1:
        raise UsageError(
            f"--pareto takes one set of limits, which all of the front keeps, not "
            f"{len(scenarios)}: {', '.join(scenario.name for scenario in scenarios)}."
        )
    if FLAGS.pareto and FLAGS.top > 1:
        raise UsageError(
            f"--pareto gives the whole front, of which nothing is evaluated: leave out "
            f"--pareto={FLAGS.pareto} or --top={FLAGS.top}."
        )
    names = {name for scenario in scenarios for name in scenario.limits}
    names |= {FLAGS.pareto} if FLAGS.pareto else set()
    if not names or (LATENCY in names) or _default_table_path(job) is not None:
        device_paths = {LATENCY: _needed_table_path(job), **device_paths}
    tables = {name: _table(path, space, job) for name, path in device_paths.items()}
    predictor = _given_predictor(space) if FLAGS.accuracy_predictor else None
    space = _common_space(space, tables, predictor)
    tables = {name: _of_space(table, space) for name, table in tables.items()}
    num_classes = len(job.class_names) if job else _num_classes(tables)
    measures: dict[str, Measure] = dict(tables)
    for name in names - set(tables):
        measures[name] = block_measure(name, space, num_classes, FLAGS.tflite_precision, FLAGS.form)
    for scenario in scenarios:
        for name, limit in scenario.limits.items():
            check_reachable(space, name, measures[name], limit)
    sources = {"tables": {name: _hashes(path) for name, path in device_paths.items()}}
    if predictor is not None:
        sources["accuracy_predictor"] = _hashes(FLAGS.accuracy_predictor)
    predictor = predictor and _of_space(predictor, space)
    return Inputs(job, space, num_classes, scenarios, measures, predictor, sources)


def _job(workdir: Workdir) -> Job | None:
    """The job in the workdir; None where there is none and the flags make up for it."""
    if workdir.config_file.exists() or not (FLAGS.space or FLAGS.accuracy_predictor):
        job = common.open_job()  # an error where there is none
        if FLAGS.space and get_space(FLAGS.space).name != job.space.name:
            raise UsageError(
                f"{workdir.path} holds a job of {job.space.name}, not of --space={FLAGS.space}. "
                f"Leave out --space, or give another --workdir."
            )
        if FLAGS.space:
            workdir.check_space(get_space(FLAGS.space))
        return job
    if not (FLAGS.space and FLAGS.accuracy_predictor):
        raise UsageError(
            f"{workdir.path} holds no job. Run ofa-train or ofa-import with this --workdir first, "
            f"or give both --space and --accuracy_predictor."
        )
    if FLAGS.top > 1:
        raise UsageError(
            f"--top={FLAGS.top} evaluates candidates from a trained supernet, and {workdir.path} "
            f"holds none. Run ofa-train or ofa-import first, or leave --top out."
        )
    return None


def _scenarios() -> tuple[dict[str, pathlib.Path], tuple[Scenario, ...]]:
    """The tables of further devices, by the measure's name, and the scenarios."""
    from ofa_tf.search.measures import MEASURES
    from ofa_tf.search.scenarios import LATENCY, Scenario, read_scenarios, scenario_name

    budgets = common.positive_numbers("budget_ms")
    limits = {name: limit for name in MEASURES if (limit := getattr(FLAGS, f"max_{name}"))}
    if FLAGS.scenarios:
        if budgets or limits:
            raise UsageError(
                "--scenarios holds all limits: leave out --budget_ms and --max_..., or write them "
                "into the file."
            )
        return read_scenarios(FLAGS.scenarios)
    given = [{LATENCY: budget, **limits} for budget in budgets] or [limits] * bool(limits)
    return {}, tuple(Scenario(scenario_name(limits), limits) for limits in given)


def _default_table_path(job: Job | None) -> pathlib.Path | None:
    """The table of --latency_table, else of the job, if there is one."""
    if FLAGS.latency_table:
        return pathlib.Path(FLAGS.latency_table)
    path = common.latency_file(job.workdir) if job else None
    return path if path and path.exists() else None


def _needed_table_path(job: Job | None) -> pathlib.Path:
    path = _default_table_path(job)
    if path is not None:
        return path
    if job:
        command = latency_command(job.workdir, **common.measured_so())
        raise UsageError(
            f"{common.latency_file(job.workdir)} is missing. Run this first: {command} (or give "
            f"another one by --latency_table)"
        )
    raise UsageError("Limits on latency need --latency_table; --max_macs_m and others do not.")


def _table(path: pathlib.Path, space: SearchSpace, job: Job | None) -> LatencyTable:
    from ofa_tf.search import LatencyTable

    table = LatencyTable.load(path, space, FLAGS.tflite_precision, FLAGS.form)
    if job and table.num_classes != len(job.class_names):
        common.log.warning(
            "The latency table %s is of networks with %d classes, the job has %d.",
            path,
            table.num_classes,
            len(job.class_names),
        )
    return table


def _num_classes(tables: dict[str, LatencyTable]) -> int:
    return next(iter(tables.values())).num_classes if tables else FLAGS.num_classes


def _given_predictor(space: SearchSpace) -> AccuracyPredictor:
    """The predictor of --accuracy_predictor at its own resolutions, if it is of the space."""
    from ofa_tf.search import AccuracyPredictor

    if is_published_predictor(FLAGS.accuracy_predictor):
        predictor = AccuracyPredictor.load(FLAGS.accuracy_predictor)
        if predictor.space.name == space.name:
            return predictor
        # It may serve another space than the one it was made for.
    return AccuracyPredictor.load(FLAGS.accuracy_predictor, space)


def _common_space(
    space: SearchSpace, tables: dict[str, LatencyTable], predictor: AccuracyPredictor | None
) -> SearchSpace:
    """The space at the resolutions that all answer for."""
    known = {f"the latency table of {name}": t.space.resolutions for name, t in tables.items()}
    if predictor is not None:
        known["the accuracy predictor"] = predictor.space.resolutions
    resolutions = set(space.resolutions).intersection(*known.values())
    if not resolutions:
        answers = "; ".join(f"{who} answers for {list(sides)}" for who, sides in known.items())
        raise UsageError(f"No resolution (pixels) is known to all: {answers}.")
    return (
        space.restrict(resolutions=resolutions) if resolutions != set(space.resolutions) else space
    )


def _of_space(part, space: SearchSpace):
    """A table or a predictor, to answer for the space."""
    return part if part.space == space else dataclasses.replace(part, space=space)


def _hashes(path: str | pathlib.Path) -> dict[str, str]:
    """The sha256 of a file, or of each file of a folder, by its name."""
    given = pathlib.Path(path)
    paths = sorted(p for p in given.iterdir() if p.is_file()) if given.is_dir() else [given]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
