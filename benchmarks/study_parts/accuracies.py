"""Accuracies of the study's subnets on all test images, and what their training took."""

from __future__ import annotations

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
from ofa_tf.training.finetuning import is_finished
from study_parts.plan import NUM_CLASSES, Plan
from study_parts.results import phases_of, total
from study_parts.trainings import Cost, Run, costs, weights_of

LARGEST = "largest"  # the subnet, and the phase that trains it alone


_KEY = ("training", "seed", "phase", "subnet", "recalibrated", "weights")


class Task(NamedTuple):
    """A subnet to evaluate, with the weights that a phase of a training left."""

    run: Run
    phase: str
    subnet: str
    arch: Arch
    recalibrated: bool = True

    @property
    def key(self) -> dict[str, str | int | bool]:
        values = (
            *(self.run.training.name, self.run.seed),
            *(self.phase, self.subnet, self.recalibrated, weights_of(self.run, self.phase)),
        )
        return dict(zip(_KEY, values, strict=True))


def tasks_of(plan: Plan, run: Run) -> Iterator[Task]:
    """What is evaluated of a training: for a supernet, the corners and the four archs."""
    last = run.workdir.config()["recipe"]["phases"][-1]["name"]
    if run.training.arch:
        yield Task(run, last, run.training.name, run.training.arch)
        return
    corners = corner_archs(plan.space, [plan.resolution])
    for name, arch in corners.items():
        yield Task(run, last, name, arch)
    for number, arch in enumerate(plan.archs, 1):
        yield Task(run, last, f"alone{number}", arch)
    if run.training == plan.schedules[0]:
        yield Task(run, LARGEST, LARGEST, plan.space.max())
        for name, arch in corners.items():
            yield Task(run, last, name, arch, recalibrated=False)


def evaluate_all(
    plan: Plan, runs: Sequence[Run], workdir: pathlib.Path, results: pathlib.Path
) -> None:
    """Evaluates what is trained and not evaluated yet, and writes accuracies.csv, trainings.csv."""
    finished = [run for run in runs if is_finished(run.workdir)]
    tasks = [task for run in finished for task in tasks_of(plan, run)]
    wanted = [task.key for task in tasks]
    path = workdir / "accuracies.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    # Those of weights that were trained anew since, or of trainings not asked for, do not count.
    rows = [row for row in rows if _key_of(row) in wanted]
    known = list(map(_key_of, rows))
    missing = [task for task in tasks if task.key not in known]
    evaluate = _Evaluator(Job(finished[0].workdir)) if missing else None
    for task in tqdm(missing, "evaluate subnets", unit="subnet"):
        row = task.key | {"accuracy": evaluate(task), "test_images": evaluate.num_images}
        row |= of_arch(plan.space, task.arch)
        append_json(path, row)
        rows.append(row)
    rows.sort(key=lambda row: wanted.index(_key_of(row)))  # whichever was evaluated first
    if rows:
        trained = [_of_training(run, cost) for run in finished for cost in costs(run.workdir)]
        records.write_csv(results / "trainings.csv", trained)
        # With those that still run: a finished one may have begun with a phase of theirs.
        begun = [_of_training(run, cost) for run in runs for cost in costs(run.workdir)]
        told = [row | _spent(begun, row) for row in rows]
        records.write_csv(results / "accuracies.csv", told)


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


def _of_training(run: Run, cost: Cost) -> dict[str, str | int | float]:
    config = run.workdir.config()
    phases = {phase["name"]: phase for phase in config["recipe"]["phases"]}
    return {
        "training": run.training.name,
        "seed": run.seed,
        "start": run.training.start,
        "phase": cost.phase,
        "epochs": cost.epochs,
        "images": cost.images,
        "subnets_per_step": phases[cost.phase]["subnets_per_step"],
        "base_lr": phases[cost.phase]["base_lr"],
        "kd_ratio": config["recipe"]["kd_ratio"],
        "cpu_seconds": round(cost.cpu_seconds, 1),
    }


def _spent(trained: list[dict], row: dict) -> dict[str, float]:
    """What an evaluated subnet's weights took until then."""
    phases = phases_of(trained, row["training"], row["seed"], row["phase"])
    return {name: round(total(phases, name), 2) for name in ("epochs", "images", "cpu_seconds")}


class _Evaluator:
    """Evaluates tasks with one supernet, whose weights are those that each task needs."""

    def __init__(self, job: Job):
        self._evaluator: SubnetEvaluator = job.evaluator("test")
        self._loaded: pathlib.Path | None = None

    @property
    def num_images(self) -> int:
        return self._evaluator.num_images

    def __call__(self, task: Task) -> float:
        path = task.run.workdir.phase(task.phase)
        supernet = self._evaluator.supernet
        if path != self._loaded:
            checkpoints.load(path, weights=supernet.variables)
            self._loaded = path
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
