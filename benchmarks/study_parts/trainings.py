"""Runs the study's trainings side by side, each in a process of its own with one thread."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tqdm import tqdm

from ofa_tf.errors import FailureError
from ofa_tf.files import write_json
from ofa_tf.training import finetuning
from ofa_tf.workdir import Workdir
from study_parts.plan import Plan, Training

_GRACE = 60.0  # seconds in which an interrupted training saves


class Cost(NamedTuple):
    """What a phase took."""

    phase: str
    epochs: float
    images: int
    cpu_seconds: float


class Run(NamedTuple):
    """A training with a seed, the workdir of its command, and what it begins with, if anything."""

    training: Training
    seed: int
    job: Workdir
    origin: Run | None = None

    @property
    def workdir(self) -> Workdir:
        """Where its weights and metrics are."""
        return self.job.finetuned(self.training.subnet) if self.origin else self.job

    @property
    def is_finished(self) -> bool:
        """By the recipe of the plan; one that was begun by another is refused by its command."""
        recipe = dataclasses.replace(self.training.recipe, seed=self.seed)
        return finetuning.is_finished(self.workdir, recipe)

    @property
    def checkpoint(self) -> pathlib.Path:
        """What a finished one left."""
        return self.workdir.phase(self.training.recipe.phases[-1].name)

    @property
    def weights(self) -> str:
        """Stands for what a finished one left."""
        return _hash(self.checkpoint)

    @property
    def costs(self) -> list[Cost]:
        return costs(self.workdir, self.training.recipe.batch_size)

    def beside(self, suffix: str) -> pathlib.Path:
        """A file of its name, beside its folder."""
        return self.job.path.with_name(self.job.path.name + suffix)


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
    plan: Plan, runs: Sequence[Run], data_dir: str, jobs: int, on_finished: Callable[[], None]
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
    bar = tqdm(total=len(runs), initial=len(runs) - len(waiting), desc="trainings")
    try:
        while waiting or running:
            if len(running) < jobs:
                ready = [run for run in waiting if not run.origin or run.origin.is_finished]
                for run in ready[: jobs - len(running)]:
                    waiting.remove(run)
                    running[run] = _start(plan, run, data_dir)
            if not running:
                raise FailureError(
                    f"{waiting[0].job.path.name} cannot begin: {waiting[0].training.start} is not "
                    "trained yet. Train that first."
                )
            time.sleep(2)
            for run in [run for run, process in running.items() if process.poll() is not None]:
                code = running.pop(run).returncode
                if code:
                    name, log = run.job.path.name, run.beside(".log")
                    raise FailureError(f"{name} ended with exit code {code}: see {log}.")
                bar.update()
                on_finished()
    finally:
        bar.close()
        _end(running.values())


def _start(plan: Plan, run: Run, data_dir: str) -> subprocess.Popen:
    """Begins a training, or goes on with it, on one core.

    Two of them side by side get more done on two cores than one after the other with both, and CPU
    seconds can be compared.
    """
    flags = [*plan.flags(run.training), f"--workdir={run.job.path}", "--cores=1"]
    if run.origin:
        _copy_job(run)
    else:
        flags += [f"--seed={run.seed}", f"--data_dir={data_dir}"]
        if run.training.subnet:
            write_json(run.beside(".json"), run.training.recipe.arch.to_dict())
            flags.append(f"--arch={run.beside('.json')}")
    command = "finetune" if run.origin else "train"
    run.job.path.parent.mkdir(parents=True, exist_ok=True)
    with open(run.beside(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"ofa_tf.cli.{command}", *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
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


def _end(processes: Iterable[subprocess.Popen]) -> None:
    """Lets trainings save, and waits for it."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def costs(workdir: Workdir, batch_size: int) -> list[Cost]:
    """What each phase took so far.

    After an interruption in the middle of an epoch, the epoch's row tells only of its later part;
    the earlier part is counted at the same rate.
    """
    if not workdir.metrics.exists():
        return []
    lines = workdir.metrics.read_text().splitlines(keepends=True)
    # The last line may be half written, by a training that was killed.
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
def _hash(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
