"""Runs the study's trainings side by side, each in a process of its own with one thread."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tqdm import tqdm

from ofa_tf.errors import FailureError
from ofa_tf.files import write_json
from ofa_tf.training import finetuning
from ofa_tf.workdir import Workdir
from study_parts.plan import Plan, Training

_GRACE = 60.0  # seconds in which an interrupted training saves


class Run(NamedTuple):
    """A training with a seed, the workdir of its command, and what it begins with, if anything."""

    training: Training
    seed: int
    job: Workdir
    origin: Run | None = None

    @property
    def workdir(self) -> Workdir:
        """Where its weights and metrics are."""
        name = self.training.subnet
        return self.job.finetuned(name) if self.origin else self.job

    @property
    def is_finished(self) -> bool:
        """By the recipe of the plan; by another, its command says that it was begun so."""
        recipe = dataclasses.replace(self.training.recipe, seed=self.seed)
        return finetuning.is_finished(self.workdir, recipe)

    @property
    def costs(self) -> list[Cost]:
        return costs(self.workdir, self.training.recipe.batch_size)

    @property
    def log(self) -> pathlib.Path:
        return self._beside(".log")

    @property
    def arch_file(self) -> pathlib.Path:
        return self._beside(".json")

    def _beside(self, suffix: str) -> pathlib.Path:
        return self.job.path.with_name(self.job.path.name + suffix)


class Cost(NamedTuple):
    """What a phase took."""

    phase: str
    epochs: float
    images: int
    cpu_seconds: float


def runs_in(folder: pathlib.Path, plan: Plan) -> list[Run]:
    """All of a plan, in the order in which they begin: all of one seed before further seeds."""
    runs: dict[tuple[str, int], Run] = {}
    for seed in range(max(training.seeds for training in plan.trainings)):
        for training in plan.trainings:
            if seed < training.seeds:
                job = Workdir(folder / "arms" / f"{training.name}-{seed}")
                origin = runs.get((training.start, seed))
                runs[training.name, seed] = Run(training, seed, job, origin)
    return list(runs.values())


def train_all(
    plan: Plan,
    runs: Sequence[Run],
    data_dir: str,
    jobs: int,
    on_finished: Callable[[], None],
) -> None:
    """Trains what is not trained yet, as many at a time as there are jobs.

    Args:
        plan: of the study.
        runs: to train, in this order.
        data_dir: of the images.
        jobs: at a time.
        on_finished: called after each; meanwhile no other takes its place.

    Raises:
        FailureError: a training ended with an error; its log is named. The others save and end.
            Or what one begins with is not trained.
    """
    waiting = [run for run in runs if not run.is_finished]
    running: dict[Run, subprocess.Popen] = {}
    total = sum(run.training.epochs for run in runs)
    bar = tqdm(total=total, desc="trainings", unit="epoch", bar_format=_BAR)
    bar.initial = bar.n = _epochs_done(runs, total)
    try:
        with bar:
            while waiting or running:
                if len(running) < jobs:
                    ready = [run for run in waiting if not run.origin or run.origin.is_finished]
                    for run in ready[: jobs - len(running)]:
                        waiting.remove(run)
                        running[run] = _start(plan, run, data_dir)
                if not running:
                    raise FailureError(
                        f"{waiting[0].job.path.name} cannot begin: {waiting[0].training.start} is "
                        "not trained yet. Train that first."
                    )
                time.sleep(2)
                bar.update(_epochs_done(runs, total) - bar.n)
                for run, process in list(running.items()):
                    if process.poll() is not None:
                        del running[run]
                        _check(run, process.returncode)
                        on_finished()
    finally:
        _end(running.values())


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} epochs [{elapsed}<{remaining}]"


def _start(plan: Plan, run: Run, data_dir: str) -> subprocess.Popen:
    """Begins a training, or goes on with it, on one core.

    Two of them side by side get more done on two cores than one after the other with both, and CPU
    seconds can be compared.
    """
    training = run.training
    flags = [*plan.flags(training), f"--workdir={run.job.path}", "--cores=1"]
    if run.origin:
        command = "finetune"
        _copy_job(run)
    else:
        command = "train"
        flags += [f"--seed={run.seed}", f"--data_dir={data_dir}"]
        if training.subnet:
            write_json(run.arch_file, training.recipe.arch.to_dict())
            flags.append(f"--arch={run.arch_file}")
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with open(run.log, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"ofa_tf.cli.{command}", *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ,
            start_new_session=True,  # so that Ctrl-C comes once, from here
        )


def _copy_job(run: Run) -> None:
    """A job of its own for a subnet to fine-tune, as if ofa-search had chosen it."""
    job, origin = run.job, run.origin.job
    if job.search_result.exists():
        return
    shutil.copytree(origin.checkpoints, job.checkpoints, dirs_exist_ok=True)
    for path in (origin.config_file, origin.images):
        shutil.copy2(path, job.path)
    arch = run.training.recipe.arch.to_dict()
    subnet = {"name": run.training.subnet, "arch": arch, "predicted_accuracy": 0.0}
    write_json(job.search_result, {"settings": {}, "subnets": [subnet]})


def _check(run: Run, code: int) -> None:
    if code:
        raise FailureError(f"{run.job.path.name} ended with exit code {code}: see {run.log}.")


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Lets trainings save, and waits for it."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _epochs_done(runs: Sequence[Run], total: float) -> float:
    """Not more than `total`: whole steps may be a little more than was asked for."""
    return min(total, sum(cost.epochs for run in runs for cost in run.costs))


def costs(workdir: Workdir, batch_size: int) -> list[Cost]:
    """What each phase took so far.

    After an interruption in the middle of an epoch, the epoch's row tells only of its later part;
    the earlier part is counted at the same rate.
    """
    if not workdir.metrics.exists():
        return []
    lines = workdir.metrics.read_text().splitlines(keepends=True)
    # The last line may be half written: by a training that runs, or by one that was killed.
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    epochs = [row for row in rows if "cpu_seconds" in row]
    found, before = [], 0
    for phase in dict.fromkeys(row["phase"] for row in epochs):
        mine = [row for row in epochs if row["phase"] == phase]
        last = mine[-1]
        timed = sum(row["images_per_second"] * row["seconds"] for row in mine)
        images = (last["step"] - before) * batch_size
        seconds = sum(row["cpu_seconds"] for row in mine) * images / timed
        found.append(Cost(phase, last["epoch"], images, seconds))
        before = last["step"]
    return found


@functools.cache
def weights_of(checkpoint: pathlib.Path) -> str:
    """Stands for the weights that a phase of a finished training left."""
    return hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12]
