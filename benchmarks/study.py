"""The study: does Once-for-All do on two cores what its paper says, and what is each part worth?

    python benchmarks/study.py --data_dir=CIFAR10 --workdir=runs/study
    python benchmarks/study_results.py

The first command trains what study_runs.py lists (hours; run it again to go on after an
interruption), evaluates it on the test images, searches, measures, and writes docs/results/; the
second makes the tables and the pictures of docs/RESULTS.md from that. A sitting may be a part:

    python benchmarks/study.py ... --only=train --trainings=growing,open --seeds=1

What is trained to its end is not trained again: after a change of a recipe in study_runs.py, remove
the folder of the training.
"""

from __future__ import annotations

import argparse
import fnmatch
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import machine
from study_runs import QUICK, SEEDS, TRAININGS, Plan, Run
from tqdm import tqdm

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_json
from ofa_tf.quiet import import_tensorflow

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = ("train", "evaluate", "search")
_GRACE = 60.0  # seconds in which an interrupted training saves


def main() -> int:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what it started, as Ctrl-C does
    plan = QUICK if args.quick else Plan()
    runs = plan.runs(args.workdir)
    try:
        import_tensorflow()
        if "train" in args.only:
            names = {name for each in args.trainings for name in fnmatch.filter(TRAININGS, each)}
            chosen = [run for run in runs if run.name in names and run.seed < args.seeds]
            train(chosen, args.data_dir, args.jobs)
        if args.only != ["train"]:
            import study_measurements  # needs TensorFlow

            if "evaluate" in args.only:
                study_measurements.evaluate(runs, args.workdir, args.results)
            hour = next(run for run in runs if run.kind == "hour")
            if args.only == ["search"] or ("search" in args.only and hour.is_finished):
                study_measurements.search(hour, args.workdir, args.results)
            write_json(args.results / "machine.json", machine.machine() | machine.versions())
    except (UsageError, FailureError) as error:
        print(f"study.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("study.py: interrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data_dir", required=True, help="folder of CIFAR-10's images")
    parser.add_argument("--workdir", type=pathlib.Path, help="[runs/study, or runs/study_quick]")
    parser.add_argument(
        "--results", type=pathlib.Path, help="[docs/results; with --quick WORKDIR/results]"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a core each")
    parser.add_argument("--seeds", type=int, default=max(SEEDS.values()), help="at most so many")
    parser.add_argument(
        "--trainings",
        type=lambda text: text.split(","),
        default=["*"],
        help="names of those to train, with commas between, such as open,'alone*'",
    )
    parser.add_argument("--only", choices=PARTS, help="one part; what it needs must be there")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    for name in ("seeds", "jobs"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name}={getattr(args, name)}: expected more than 0.")
    for pattern in args.trainings:
        if not fnmatch.filter(TRAININGS, pattern):
            parser.error(f"There is no training {pattern!r}; known: {', '.join(TRAININGS)}.")
    args.only = [args.only] if args.only else list(PARTS)
    args.workdir = args.workdir or pathlib.Path("runs", "study_quick" if args.quick else "study")
    own = args.workdir if args.quick else ROOT / "docs"
    args.results = args.results or own / "results"
    return args


def train(runs: Sequence[Run], data_dir: str, jobs: int) -> None:
    """Trains what is not trained yet, in this order, as many at a time as there are jobs.

    Raises:
        FailureError: a training ended with an error, and its log is named; the others save and
            end. Or what one begins with is not trained.
    """
    waiting = [run for run in runs if not run.is_finished]
    running: dict[Run, subprocess.Popen] = {}
    bar = tqdm(total=len(runs), initial=len(runs) - len(waiting), desc="trainings")
    try:
        while waiting or running:
            ready = [run for run in waiting if not run.origin or run.origin.is_finished]
            for run in ready[: jobs - len(running)]:
                waiting.remove(run)
                running[run] = _start(run, data_dir)
            if not running:
                name, origin = waiting[0].job.path.name, waiting[0].origin.name
                raise FailureError(f"{name} cannot begin: {origin} is not trained yet.")
            time.sleep(1)
            for run in [run for run, process in running.items() if process.poll() is not None]:
                if code := running.pop(run).returncode:
                    name, log = run.job.path.name, run.job.path.with_suffix(".log")
                    raise FailureError(f"{name} ended with exit code {code}: see {log}.")
                bar.update()
    finally:
        bar.close()
        _end(list(running.values()))


def _start(run: Run, data_dir: str) -> subprocess.Popen:
    """Begins a training, or goes on with it, on one core.

    Two of them side by side get more done on two cores than one after the other with both, and CPU
    seconds can be compared.
    """
    run.job.path.parent.mkdir(parents=True, exist_ok=True)
    flags = list(run.flags)
    if run.origin:
        _copy_job(run)
    else:
        flags += [f"--seed={run.seed}", f"--data_dir={data_dir}"]
        if run.subnet:
            arch_file = run.job.path.with_suffix(".json")
            write_json(arch_file, run.arch.to_dict())
            flags.append(f"--arch={arch_file}")
    command = "finetune" if run.origin else "train"
    with open(run.job.path.with_suffix(".log"), "ab") as log:
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
    if not job.search_result.exists():
        shutil.copytree(origin.checkpoints, job.checkpoints, dirs_exist_ok=True)
        for path in (origin.config_file, origin.images):
            shutil.copy2(path, job.path)
        subnet = {"name": run.subnet, "arch": run.arch.to_dict(), "predicted_accuracy": 0.0}
        write_json(job.search_result, {"settings": {}, "subnets": [subnet]})


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Lets trainings save, and waits for it."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
