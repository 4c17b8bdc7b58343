"""Accuracies of the study's subnets on all test images, and what their training took."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import records
from tqdm import tqdm

from ofa_tf.files import append_json
from ofa_tf.job import Job
from ofa_tf.spaces import Arch
from ofa_tf.training import checkpoints
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.corners import corner_archs
from ofa_tf.training.strategy import share_cores
from ofa_tf.workdir import Workdir
from study_parts.plan import NUM_CLASSES, Plan
from study_parts.trainings import Cost, Run

_KEY = ("training", "seed", "subnet", "recalibrated", "weights")


class Task(NamedTuple):
    """A subnet to evaluate, with the weights that a training left."""

    run: Run
    subnet: str
    arch: Arch
    recalibrated: bool = True

    @property
    def key(self) -> tuple[str | int | bool, ...]:
        """The values of _KEY."""
        training = self.run.training.name, self.run.seed
        return (*training, self.subnet, self.recalibrated, self.run.weights)


def tasks_of(plan: Plan, run: Run) -> Iterator[Task]:
    """What is evaluated of a training: of a supernet, the corners and, but of parts, the archs."""
    training = run.training
    if training.subnet:
        yield Task(run, training.subnet, training.recipe.arch)
        return
    corners = corner_archs(plan.space, [plan.resolution])
    archs = corners | (plan.archs if training.kind != "part" else {})
    for name, arch in archs.items():
        yield Task(run, name, arch)
    if (training, run.seed) == (plan.trainings[0], 0):
        for name, arch in corners.items():
            yield Task(run, name, arch, recalibrated=False)


def evaluate_all(
    plan: Plan, runs: Sequence[Run], workdir: pathlib.Path, results: pathlib.Path
) -> None:
    """Evaluates what is trained and not evaluated yet, and writes accuracies.csv, trainings.csv."""
    finished = [run for run in runs if run.is_finished]
    tasks = [task for run in finished for task in tasks_of(plan, run)]
    if tasks:
        records.write_csv(results / "accuracies.csv", evaluated(plan, tasks, workdir))
        trained = [_of_training(plan, run, cost) for run in finished for cost in run.costs]
        records.write_csv(results / "trainings.csv", trained)


def evaluated(plan: Plan, tasks: Sequence[Task], workdir: pathlib.Path) -> list[dict]:
    """A row for each; those that are known already of these weights are not evaluated again."""
    path = workdir / "accuracies.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = {tuple(row[name] for name in _KEY): row for row in known}
    missing = [task for task in tasks if task.key not in rows]
    evaluator = _evaluator(tasks[0].run.job) if missing else None
    for task in tqdm(missing, "evaluate subnets", unit="subnet"):
        network = plan.space.blueprint(task.arch, NUM_CLASSES)
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


def _of_training(plan: Plan, run: Run, cost: Cost) -> dict[str, str | int | float]:
    """What a phase of a training was, and what it took."""
    training = run.training
    phase = next(each for each in training.recipe.phases if each.name == cost.phase)
    return {
        "training": training.name,
        "kind": training.kind,
        "seed": run.seed,
        "subnet": training.subnet,
        "start": training.start,
        "phase": cost.phase,
        "epochs": cost.epochs,
        "images": cost.images,
        "subnets_per_step": phase.subnets_per_step,
        "base_lr": phase.base_lr,
        "pflops": round(plan.flops(training, cost.phase, cost.images) / 1e15, 6),
        "cpu_seconds": round(cost.cpu_seconds, 1),
    }


@functools.cache
def _evaluator(job: Workdir) -> SubnetEvaluator:
    """Of the test images; its weights are replaced by those of each task."""
    share_cores(1, 1)  # as trainings do, which go on meanwhile
    return Job(job).evaluator("test")


def _accuracy(evaluator: SubnetEvaluator, task: Task) -> float:
    supernet = evaluator.supernet
    checkpoints.load(task.run.checkpoint, weights=supernet.variables)
    if task.recalibrated:
        return evaluator.accuracy(task.arch)
    # As it comes out of the supernet: with the statistics that training left there.
    model, pixels = supernet.subnet(task.arch), task.arch.resolution
    batches = evaluator.data.eval_batches("test", pixels, 500, eval_crop=evaluator.eval_crop)
    hits = [
        np.argmax(model.predict_on_batch(images), axis=-1) == labels.numpy()
        for images, labels in batches
    ]
    return float(np.concatenate(hits).mean())
