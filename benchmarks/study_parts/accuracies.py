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
from ofa_tf.spaces import Arch, SearchSpace
from ofa_tf.training import checkpoints
from ofa_tf.training.calibration import SubnetEvaluator
from ofa_tf.training.corners import corner_archs
from ofa_tf.training.strategy import share_cores
from ofa_tf.workdir import Workdir
from study_parts.plan import NUM_CLASSES, Plan
from study_parts.trainings import Cost, Run, weights_of

_KEY = ("training", "seed", "subnet", "recalibrated", "weights")


class Task(NamedTuple):
    """A subnet to evaluate, with the weights that a training left."""

    run: Run
    subnet: str
    arch: Arch
    recalibrated: bool = True

    @property
    def weights(self) -> pathlib.Path:
        return self.run.workdir.phase(self.run.training.recipe.phases[-1].name)

    @property
    def key(self) -> dict[str, str | int | bool]:
        training = self.run.training.name, self.run.seed
        values = (*training, self.subnet, self.recalibrated, weights_of(self.weights))
        return dict(zip(_KEY, values, strict=True))


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
    wanted = [task.key for task in tasks]
    path = workdir / "accuracies.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    # Those of weights that were trained anew since do not count.
    rows = [row for row in rows if _key_of(row) in wanted]
    known = list(map(_key_of, rows))
    missing = [task for task in tasks if task.key not in known]
    evaluate = _evaluator(finished[0].job) if missing else None
    for task in tqdm(missing, "evaluate subnets", unit="subnet"):
        row = task.key | {"accuracy": evaluate(task), "test_images": evaluate.num_images}
        row |= of_arch(plan.space, task.arch)
        append_json(path, row)
        rows.append(row)
    rows.sort(key=lambda row: wanted.index(_key_of(row)))  # whichever was evaluated first
    if rows:
        records.write_csv(results / "accuracies.csv", rows)
        trained = [_of_training(plan, run, cost) for run in finished for cost in run.costs]
        records.write_csv(results / "trainings.csv", trained)


def _key_of(row: dict) -> dict:
    return {name: row.get(name) for name in _KEY}


def of_arch(space: SearchSpace, arch: Arch) -> dict[str, str | int]:
    """The columns of an arch."""
    plan = space.blueprint(arch, NUM_CLASSES)
    return {
        "resolution": arch.resolution,
        "macs": plan.macs,
        "params": plan.params,
        "arch": json.dumps(arch.to_dict()),
    }


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
def _evaluator(job: Workdir) -> _Evaluator:
    share_cores(1, batch_size=1)  # as trainings do, which go on meanwhile
    return _Evaluator(Job(job))


class _Evaluator:
    """Evaluates tasks with one supernet, whose weights are those that each task needs."""

    def __init__(self, job: Job):
        self._evaluator: SubnetEvaluator = job.evaluator("test")
        self._loaded: pathlib.Path | None = None

    @property
    def num_images(self) -> int:
        return self._evaluator.num_images

    def __call__(self, task: Task) -> float:
        supernet = self._evaluator.supernet
        if task.weights != self._loaded:
            checkpoints.load(task.weights, weights=supernet.variables)
            self._loaded = task.weights
        if task.recalibrated:
            return self._evaluator.accuracy(task.arch)
        # As it comes out of the supernet: with the statistics that training left there.
        model = supernet.subnet(task.arch)
        batches = self._evaluator.data.eval_batches(
            "test", task.arch.resolution, 500, eval_crop=self._evaluator.eval_crop
        )
        hits = [
            np.argmax(model.predict_on_batch(images), axis=-1) == labels.numpy()
            for images, labels in batches
        ]
        return float(np.concatenate(hits).mean())
