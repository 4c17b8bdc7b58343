"""Runs the study's trainings side by side, each in a process of its own with one thread."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from ofa_tf.errors import FailureError
from ofa_tf.files import write_json
from ofa_tf.training.finetuning import is_finished
from ofa_tf.workdir import Workdir
from study_parts.plan import Plan, Training

# One thread for each: two of them side by side get more done on two cores than one after the other
# with two threads, and CPU seconds can be compared.
_ONE_THREAD = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
_GRACE = 60.0  # seconds in which an interrupted training saves


class Run(NamedTuple):
    """A training with a seed, and where it is."""

    training: Training
    seed: int
    workdir: Workdir


class Cost(NamedTuple):
    """What a phase took."""

    phase: str
    epochs: float
    images: int
    cpu_seconds: float


def run_in(folder: pathlib.Path, training: Training, seed: int) -> Run:
    return Run(training, seed, Workdir(folder / "arms" / f"{training.name}-{seed}"))


def train_all(plan: Plan, runs: Sequence[Run], data_dir: str, jobs: int) -> None:
    """Trains what is not trained yet, as many at a time as there are jobs.

    Raises:
        FailureError: a training ended with an error; its log is named. The others save and end.
            Or the weights that one begins with are gone.
    """
    waiting = [run for run in runs if not is_finished(run.workdir)]
    running: dict[Run, subprocess.Popen] = {}
    total = sum(run.training.epochs for run in runs)
    bar = tqdm(total=total, desc="trainings", unit="epoch", bar_format=_BAR)
    bar.initial = bar.n = _epochs_done(runs, total)
    try:
        with bar:
            while waiting or running:
                for run in [run for run in waiting if _may_begin(run)][: jobs - len(running)]:
                    waiting.remove(run)
                    running[run] = _start(plan, run, data_dir)
                if not running:
                    raise FailureError(
                        f"{waiting[0].workdir.path.name} cannot begin: {waiting[0].training.start} "
                        "left no weights. Train that anew, in another --workdir."
                    )
                time.sleep(2)
                bar.update(_epochs_done(runs, total) - bar.n)
                for run, process in list(running.items()):
                    if process.poll() is not None:
                        del running[run]
                        _check(run, process.returncode)
    finally:
        _end(running.values())


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} epochs [{elapsed}<{remaining}]"


def _may_begin(run: Run) -> bool:
    return not run.training.start or _start_checkpoint(run).exists()


def _start_checkpoint(run: Run) -> pathlib.Path:
    """The phase of another training that this one begins with, of the same seed."""
    name, phase = run.training.start.split("/")
    return Workdir(run.workdir.path.with_name(f"{name}-{run.seed}")).phase(phase)


def _log(run: Run) -> pathlib.Path:
    return run.workdir.path.with_name(f"{run.workdir.path.name}.log")


def _start(plan: Plan, run: Run, data_dir: str) -> subprocess.Popen:
    flags = [*plan.recipe, *run.training.flags, f"--seed={run.seed}", f"--data_dir={data_dir}"]
    if run.training.start:
        flags.append(f"--init={_start_checkpoint(run)}")
    if run.training.arch:
        path = run.workdir.path.with_name(f"{run.training.name}.json")
        write_json(path, run.training.arch.to_dict())
        flags.append(f"--arch={path}")
    command = [sys.executable, "-m", "ofa_tf.cli.train", *flags, f"--workdir={run.workdir.path}"]
    _log(run).parent.mkdir(parents=True, exist_ok=True)
    with open(_log(run), "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | _ONE_THREAD,
            start_new_session=True,  # so that Ctrl-C comes once, from here
        )


def _check(run: Run, code: int) -> None:
    if code:
        raise FailureError(f"{run.workdir.path.name} ended with exit code {code}: see {_log(run)}.")


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
    return min(total, sum(cost.epochs for run in runs for cost in costs(run.workdir)))


def costs(workdir: Workdir) -> list[Cost]:
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
        images = (last["step"] - before) * _batch_size(workdir)
        seconds = sum(row["cpu_seconds"] for row in mine) * images / timed
        found.append(Cost(phase, last["epoch"], images, seconds))
        before = last["step"]
    return found


@functools.cache
def weights_of(run: Run, phase: str) -> str:
    """Stands for the weights that a phase of a finished training left."""
    return hashlib.sha256(run.workdir.phase(phase).read_bytes()).hexdigest()[:12]


def _batch_size(workdir: Workdir) -> int:
    return workdir.config()["recipe"]["batch_size"]
