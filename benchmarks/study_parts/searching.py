"""Searched subnets against random ones of the same latency and against uniform ones.

The accuracies are those of the supernet, recalibrated, on all test images; the latencies are
measured on this host, one thread, from the .tflite files of all subnets in turn.
"""

from __future__ import annotations

import json
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import machine
import numpy as np
import records
from tqdm import tqdm

import mobile_bench
from ofa_tf.data import MEAN, STD
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export import Interface, convert_subnet
from ofa_tf.files import append_json, read_json, write_bytes, write_json
from ofa_tf.job import Job
from ofa_tf.models import build_subnet
from ofa_tf.search import AccuracyPredictor, LatencyTable
from ofa_tf.spaces import Arch
from study_parts.accuracies import Task, evaluated
from study_parts.plan import NUM_CLASSES, Plan
from study_parts.trainings import Run

_STEPS = ("latency", "predictor", "search")
_STEPS_FILE = "steps.jsonl"
_WATCHED_SECONDS = 10.0
_RANDOM_RANGE = 0.95  # of the budget, at least, is a random arch's predicted latency


class Subnet(NamedTuple):
    """A subnet of the comparison."""

    group: str  # "searched", "random" or "uniform"
    name: str
    budget_ms: float | None
    arch: Arch


def search(plan: Plan, run: Run, workdir: pathlib.Path, results: pathlib.Path) -> None:
    """Searches the trained supernet, measures what it is compared with, and writes the CSVs.

    Raises:
        UsageError: it is not trained to its end.
        FailureError: a step ended with an error.
    """
    if not run.is_finished:
        raise UsageError(
            f"{run.job.path} is not trained yet: run this with --trainings={run.training.name}."
        )
    weights = run.weights
    budgets = f"--num_budgets={plan.num_budgets}"
    flags = (plan.latency_flags, plan.predictor_flags, (*plan.predictor_flags, budgets))
    for step, its_flags in zip(_STEPS, flags, strict=True):
        if not any(row["step"] == step and row["done"] for row in _steps(workdir, weights)):
            _wait_for_quiet(plan.quiet_minutes if step == "latency" else 0)
            _run_step(step, its_flags, run, workdir, weights)
    job = Job(run.job)
    table = job.latency_table()
    subnets = list(_subnets(plan, job, table))
    tasks = [Task(run, f"{subnet.group} {subnet.name}", subnet.arch) for subnet in subnets]
    accuracies = evaluated(plan, tasks, workdir)
    latencies = _latencies(plan, subnets, workdir)
    predictor = AccuracyPredictor.load(job.workdir.accuracy_predictor, plan.space)
    rows = []
    for subnet, row in zip(subnets, accuracies, strict=True):
        codes = plan.space.encode([subnet.arch])
        measured = latencies[_file(subnet.arch)]
        columns = {
            "group": subnet.group,
            "name": subnet.name,
            "budget_ms": subnet.budget_ms or "",
            "predicted_ms": round(float(table(codes)[0]), 5),
            "measured_ms": round(measured.median_us / 1e3, 5),
            "spread": round(measured.spread, 4),
            "valid": measured.verdict.valid,
            "predicted_accuracy": round(float(predictor(codes)[0]), 5),
        }
        kept = ("accuracy", "test_images", "seed", "resolution", "macs", "params", "arch")
        rows.append(columns | {name: row[name] for name in kept})
    records.write_csv(results / "search.csv", rows)
    reports = {"accuracy": read_json(job.workdir.accuracy_report), "latency": table.report}
    write_json(results / "predictors.json", reports)
    records.write_csv(results / "steps.csv", _steps(workdir, weights))


def _steps(workdir: pathlib.Path, weights: str) -> list[dict[str, Any]]:
    """What was run with these weights; what was found with others does not count."""
    path = workdir / _STEPS_FILE
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [row for row in rows if row["weights"] == weights]


def _run_step(
    step: str, flags: Sequence[str], run: Run, workdir: pathlib.Path, weights: str
) -> None:
    """Runs an ofa-* command, or goes on with it; keeps what it took, of each sitting."""
    command = [sys.executable, "-m", f"ofa_tf.cli.{step}", f"--workdir={run.job.path}", *flags]
    print(f"ofa-{step} {' '.join(command[3:])}", flush=True)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = subprocess.run(command).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row = {"step": step, "seconds": time.monotonic() - start, "cpu_seconds": spent}
    append_json(workdir / _STEPS_FILE, row | {"weights": weights, "done": code == 0})
    if code:
        raise FailureError(f"ofa-{step} ended with exit code {code}; see above.")


def _subnets(plan: Plan, job: Job, table: LatencyTable) -> Iterator[Subnet]:
    """The searched subnets, random ones of nearly their budgets, and all uniform ones.

    Uniform ones are as deep as the space has them, with one expand ratio and one kernel size
    everywhere: a network that is shrunk by its width and resolution.
    """
    chosen = [(row["budget_ms"], row["arch"]) for row in job.chosen_subnets()]
    for budget, arch in chosen:
        yield Subnet("searched", f"{budget:g}ms", budget, plan.space.arch(arch))
    codes = plan.space.sample_codes(20_000, np.random.default_rng(0))
    latencies = table(codes)
    for budget, _ in chosen:
        fits = codes[(latencies >= _RANDOM_RANGE * budget) & (latencies <= budget)]
        for number, arch in enumerate(plan.space.decode(fits[: plan.num_random]), 1):
            yield Subnet("random", f"{budget:g}ms-{number}", budget, arch)
    for kernel in plan.space.kernel_sizes:
        for expand in plan.space.expand_ratios:
            for resolution in plan.space.resolutions:
                only = plan.space.restrict(
                    kernel_sizes=[kernel], expand_ratios=[expand], resolutions=[resolution]
                )
                name = f"k{kernel}-e{expand:g}-r{resolution}"
                yield Subnet("uniform", name, None, only.max())


def _file(arch: Arch) -> str:
    """A name for the file of an arch."""
    parts = (arch.depths, arch.kernel_sizes, arch.expand_ratios)
    digits = "-".join("".join(f"{value:g}" for value in values) for values in parts)
    return f"{digits}-{arch.resolution}.tflite"


def _latencies(
    plan: Plan, subnets: Sequence[Subnet], workdir: pathlib.Path
) -> dict[str, mobile_bench.Summary]:
    """The files of all archs, measured in turn: by name of the file."""
    folder = workdir / "files"
    interface = Interface((MEAN, STD))
    archs = list(dict.fromkeys(subnet.arch for subnet in subnets))
    for arch in tqdm(archs, "convert subnets", unit="subnet"):
        path = folder / _file(arch)
        if not path.exists():  # weights do not count for its latency
            blueprint = plan.space.blueprint(arch, NUM_CLASSES)
            model = build_subnet(blueprint, batch_size=1, **interface.build_options)
            write_bytes(path, convert_subnet(model, blueprint, interface, "float32"))
    paths = [folder / _file(arch) for arch in archs]
    return _sure_latencies(plan, paths, workdir / "measurements.jsonl")


def _sure_latencies(
    plan: Plan, paths: Sequence[pathlib.Path], rows_file: pathlib.Path
) -> dict[str, mobile_bench.Summary]:
    """Measures files until the rounds of each agree, or as often as the plan has it."""
    rows = mobile_bench.read_rows(rows_file).measurements if rows_file.exists() else []
    for _ in range(plan.attempts):
        newest = _newest(rows)
        sure = {
            name
            for name, last in newest.items()
            if last.verdict.valid and len(last.rounds) >= plan.rounds
        }
        unsure = [path for path in paths if path.name not in sure]
        if not unsure:
            break
        _wait_for_quiet(plan.quiet_minutes)
        # A measurement that was interrupted goes on; one whose rounds do not agree begins anew.
        begun = {name for name, last in newest.items() if len(last.rounds) < plan.rounds}
        resumed = [row for row in rows if pathlib.Path(row.model).name in begun]
        rows += _measure(unsure, plan.rounds, resumed, rows_file)
    return _newest(rows)


def _newest(rows: Sequence[mobile_bench.Measurement]) -> dict[str, mobile_bench.Summary]:
    """By name of the file: the newest summary, where there are some of other settings."""
    summaries = sorted(mobile_bench.summarize(rows), key=lambda summary: summary.date)
    return {pathlib.Path(summary.model).name: summary for summary in summaries}


def _measure(
    paths: Sequence[pathlib.Path],
    rounds: int,
    resumed: Sequence[mobile_bench.Measurement],
    rows_file: pathlib.Path,
) -> list[mobile_bench.Measurement]:
    """Measures files in turn, and keeps each row as it comes."""
    bar = tqdm(desc="measure files", unit="run")

    def progress(done: int, total: int, _: str) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        return mobile_bench.measure(
            paths,
            rounds=rounds,
            min_secs=0.3,
            warmup_min_secs=0.1,
            resume_rows=resumed,
            progress=progress,
            on_result=lambda row: append_json(rows_file, row.to_dict()),
        )


def _wait_for_quiet(minutes: float) -> None:
    """Until other processes take next to nothing, or for so long."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        watch = machine.Watch()
        time.sleep(_WATCHED_SECONDS)
        if watch.stop()["busy"] == "no":
            return
