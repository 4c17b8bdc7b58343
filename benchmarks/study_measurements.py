"""What the study measures of its trainings: accuracies on all test images, costs, the search."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import itertools
import json
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from study_runs import NUM_CLASSES, Run, archs_of
from tqdm import tqdm

import mobile_bench
from ofa_tf.data import MEAN, STD, Augmentation
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export import Interface, convert_subnet
from ofa_tf.files import append_json, read_json, write_bytes, write_json
from ofa_tf.job import Job
from ofa_tf.models import build_subnet
from ofa_tf.search import AccuracyPredictor, LatencyTable
from ofa_tf.spaces import Arch
from ofa_tf.training import checkpoints
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.corners import corner_archs
from ofa_tf.training.curriculum import Curriculum
from ofa_tf.training.phases import Phase
from ofa_tf.training.recipe import Recipe
from ofa_tf.training.strategy import share_cores

_KEY = ("training", "seed", "subnet", "recalibrated", "weights")
_STEPS_PER_EPOCH = 316  # of 40,500 images: what FLOPs are counted for
_RANDOM_RANGE = 0.95  # of the budget, at least, is a random arch's predicted latency


class Task(NamedTuple):
    """A subnet to evaluate, with the weights that a training left."""

    run: Run
    subnet: str
    arch: Arch
    recalibrated: bool = True
    budget_ms: float | str = ""  # that it was searched or drawn for

    @property
    def key(self) -> tuple[str | int | bool, ...]:
        """The values of _KEY."""
        weights = _hash(self.run.checkpoint)
        return self.run.name, self.run.seed, self.subnet, self.recalibrated, weights


@functools.cache
def _hash(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def write_csv(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows with equal columns. Raises FailureError as `write_bytes` does."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


# -- accuracies and costs -------------------------------------------------------------------------


def evaluate(runs: Sequence[Run], workdir: pathlib.Path, results: pathlib.Path) -> None:
    """Evaluates what is trained and not evaluated yet; writes accuracies.csv and trainings.csv."""
    finished = [run for run in runs if run.is_finished]
    if finished:
        tasks = [task for run in finished for task in tasks_of(run)]
        write_csv(results / "accuracies.csv", evaluated(tasks, workdir))
        trained = [row for run in finished for row in phases_of(run)]
        write_csv(results / "trainings.csv", trained)


def tasks_of(run: Run) -> Iterator[Task]:
    """What is evaluated of a training: of a supernet, the corners and, but of parts, the archs."""
    if run.subnet:
        yield Task(run, run.subnet, run.arch)
        return
    corners = corner_archs(run.plan.space, run.plan.space.resolutions[-1:])
    archs = corners | (archs_of(run.plan.space) if run.kind != "part" else {})
    for name, arch in archs.items():
        yield Task(run, name, arch)
    if (run.name, run.seed) == ("growing", 0):
        for name, arch in corners.items():
            yield Task(run, name, arch, recalibrated=False)


def evaluated(tasks: Sequence[Task], workdir: pathlib.Path) -> list[dict[str, Any]]:
    """A row for each; those that are known already of these weights are not evaluated again."""
    path = workdir / "accuracies.jsonl"
    known = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    rows = {tuple(row[name] for name in _KEY): row for row in known}
    missing = [task for task in tasks if task.key not in rows]
    if missing:
        share_cores(1, 1)  # as trainings do, which may go on meanwhile
        evaluator = Job(tasks[0].run.job).evaluator("test")
    for task in tqdm(missing, "evaluate subnets", unit="subnet"):
        network = task.run.plan.space.blueprint(task.arch, NUM_CLASSES)
        row = dict(zip(_KEY, task.key, strict=True)) | {
            "accuracy": _accuracy(evaluator, task),
            "test_images": evaluator.num_images,
            "resolution": task.arch.resolution,
            "macs": network.macs,
            "params": network.params,
            "arch": json.dumps(task.arch.to_dict()),
        }
        append_json(path, row)
        rows[task.key] = row
    return [rows[task.key] for task in tasks]


def _accuracy(evaluator: SubnetEvaluator, task: Task) -> float:
    supernet, arch = evaluator.supernet, task.arch
    checkpoints.load(task.run.checkpoint, weights=supernet.variables)
    if task.recalibrated:
        return evaluator.accuracy(arch)
    # As it comes out of the supernet: with the statistics that training left there.
    crop = evaluator.eval_crop
    batches = evaluator.data.eval_batches("test", arch.resolution, 500, eval_crop=crop)
    hits = [supernet(images, arch).numpy().argmax(-1) == labels for images, labels in batches]
    return float(np.concatenate(hits).mean())


def phases_of(run: Run) -> Iterator[dict[str, Any]]:
    """What each phase of a training was, and what it took: rows of trainings.csv.

    After an interruption in the middle of an epoch, the epoch's row of metrics tells only of its
    later part; the earlier part is counted at the same rate.
    """
    recipe, before = _recipe(run), 0
    lines = run.workdir.metrics.read_text().splitlines()
    epochs = [row for row in map(json.loads, lines) if "cpu_seconds" in row]
    for phase in recipe.phases:
        rows = [row for row in epochs if row["phase"] == phase.name]
        timed = sum(row["images_per_second"] * row["seconds"] for row in rows)
        images = (rows[-1]["step"] - before) * recipe.batch_size
        before = rows[-1]["step"]
        work = Curriculum(phase, recipe, run.plan.space, NUM_CLASSES, _STEPS_PER_EPOCH).work()
        counted = phase.num_steps(_STEPS_PER_EPOCH) * recipe.batch_size
        yield {
            "training": run.name,
            "kind": run.kind,
            "seed": run.seed,
            "subnet": run.subnet,
            "start": run.origin.name if run.origin else "",
            "phase": phase.name,
            "epochs": rows[-1]["epoch"],
            "images": images,
            "subnets_per_step": phase.subnets_per_step,
            "base_lr": phase.base_lr,
            "pflops": round(work.flops * images / counted / 1e15, 6),
            "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows) * images / timed, 1),
        }


def _recipe(run: Run) -> Recipe:
    """The recipe that a training recorded."""
    of = run.workdir.config()["recipe"] | ({"arch": run.arch} if run.subnet else {})
    phases = tuple(Phase(**phase) for phase in of["phases"])
    return Recipe(**of | {"phases": phases, "augmentation": Augmentation(**of["augmentation"])})


# -- the search -----------------------------------------------------------------------------------


def search(run: Run, workdir: pathlib.Path, results: pathlib.Path) -> None:
    """Searches a trained supernet, and compares what is found with random and uniform subnets.

    Accuracies are those of the supernet, recalibrated, on all test images; latencies are measured
    on this host, one thread, from the .tflite files of all subnets in turn. Writes search.csv,
    predictors.json and steps.csv.

    Raises:
        UsageError: it is not trained yet.
        FailureError: a step ended with an error.
    """
    if not run.is_finished:
        raise UsageError(
            f"{run.job.path} is not trained yet: run this with --trainings={run.name}."
        )
    plan, steps = run.plan, workdir / "steps.jsonl"
    for step, flags in (
        ("latency", plan.latency),
        ("predictor", plan.predictor),
        ("search", f"{plan.predictor} --num_budgets={plan.budgets}"),
    ):
        _run_step(step, flags.split(), run, steps)
    job = Job(run.job)
    table = job.latency_table()
    predictor = AccuracyPredictor.load(job.workdir.accuracy_predictor, plan.space)
    tasks = list(_compared(run, job, table))
    accuracies, latencies = evaluated(tasks, workdir), _latencies(tasks, workdir / "files")
    rows = []
    for task, row, measured in zip(tasks, accuracies, latencies, strict=True):
        codes = plan.space.encode([task.arch])
        group, name = task.subnet.split()
        columns = {
            "group": group,
            "name": name,
            "budget_ms": task.budget_ms,
            "predicted_ms": round(float(table(codes)[0]), 5),
            "measured_ms": round(measured.median_us / 1e3, 5),
            "spread": round(measured.spread, 4),
            "valid": measured.verdict.valid,
            "predicted_accuracy": round(float(predictor(codes)[0]), 5),
        }
        kept = ("accuracy", "test_images", "seed", "resolution", "macs", "params", "arch")
        rows.append(columns | {name: row[name] for name in kept})
    write_csv(results / "search.csv", rows)
    reports = {"accuracy": read_json(job.workdir.accuracy_report), "latency": table.report}
    write_json(results / "predictors.json", reports)
    write_csv(results / "steps.csv", _steps(steps, run))


def _steps(path: pathlib.Path, run: Run) -> list[dict[str, Any]]:
    """What was run with these weights; what was found with others does not count."""
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [row for row in rows if row["weights"] == _hash(run.checkpoint)]


def _run_step(step: str, flags: Sequence[str], run: Run, path: pathlib.Path) -> None:
    """Runs an ofa-* command unless it is done; keeps what it took, of each sitting."""
    if any(row["step"] == step and row["done"] for row in _steps(path, run)):
        return
    command = [sys.executable, "-m", f"ofa_tf.cli.{step}", f"--workdir={run.job.path}", *flags]
    print(f"ofa-{step} {' '.join(command[3:])}", flush=True)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = subprocess.run(command).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row = {"step": step, "seconds": time.monotonic() - start, "cpu_seconds": spent}
    append_json(path, row | {"weights": _hash(run.checkpoint), "done": code == 0})
    if code:
        raise FailureError(f"ofa-{step} ended with exit code {code}; see above.")


def _compared(run: Run, job: Job, table: LatencyTable) -> Iterator[Task]:
    """The searched subnets, random ones of nearly their budgets, and all uniform ones.

    Uniform ones are as deep as the space has them, with one expand ratio and one kernel size
    everywhere: a network that is shrunk by its width and resolution.
    """
    space = run.plan.space
    codes = space.sample_codes(20_000, np.random.default_rng(0))
    latencies = table(codes)
    for row in job.chosen_subnets():
        budget = row["budget_ms"]
        yield Task(run, f"searched {budget:g}ms", space.arch(row["arch"]), budget_ms=budget)
        fits = codes[(latencies >= _RANDOM_RANGE * budget) & (latencies <= budget)]
        for number, arch in enumerate(space.decode(fits[: run.plan.randoms]), 1):
            yield Task(run, f"random {budget:g}ms-{number}", arch, budget_ms=budget)
    choices = itertools.product(space.kernel_sizes, space.expand_ratios, space.resolutions)
    for kernel, expand, pixels in itertools.islice(choices, run.plan.uniforms):
        uniform = space.restrict(
            kernel_sizes=[kernel], expand_ratios=[expand], resolutions=[pixels]
        )
        yield Task(run, f"uniform k{kernel}-e{expand:g}-r{pixels}", uniform.max())


def _latencies(tasks: Sequence[Task], folder: pathlib.Path) -> list[mobile_bench.Summary]:
    """Measures the files of all archs in turn, and again those whose rounds do not agree."""
    plan, interface, paths = tasks[0].run.plan, Interface((MEAN, STD)), []
    for task in tqdm(tasks, "convert subnets", unit="subnet"):
        paths.append(folder / f"{task.subnet.replace(' ', '-')}.tflite")
        blueprint = plan.space.blueprint(task.arch, NUM_CLASSES)
        # With new weights, which do not count for its latency.
        model = build_subnet(blueprint, batch_size=1, **interface.build_options)
        write_bytes(paths[-1], convert_subnet(model, blueprint, interface, "float32"))
    found: dict[str, mobile_bench.Summary] = {}
    unsure = paths
    for _ in range(plan.attempts):
        seconds = {"min_secs": plan.seconds, "warmup_min_secs": plan.seconds / 3}
        rows = mobile_bench.measure(unsure, rounds=plan.rounds, **seconds)
        found |= {pathlib.Path(each.model).name: each for each in mobile_bench.summarize(rows)}
        unsure = [path for path in paths if not found[path.name].verdict.valid]
        if not unsure:
            break
    return [found[path.name] for path in paths]
