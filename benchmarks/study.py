"""The study: does Once-for-All do on two cores what its paper says, and what is each part worth?

    python benchmarks/study.py --data_dir=CIFAR10 --workdir=runs/study
    python benchmarks/study_results.py

The first command trains, searches and measures (hours in all on two x86-64 cores; run it again to
go on after an interruption) and writes docs/results/ as results come; the second makes
the tables and the pictures of docs/RESULTS.md from it. A sitting may be a part of it:

    python benchmarks/study.py ... --trainings=growing,open --seeds=1
    python benchmarks/study.py ... --only=search

What is trained and compared stands in study_parts/plan.py.
"""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys

import machine

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_json
from ofa_tf.quiet import import_tensorflow

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results"
PARTS = ("train", "evaluate", "search")


def main() -> int:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what it started, as Ctrl-C does
    try:
        _study(args)
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
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/study"))
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of the CSVs")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a core each")
    parser.add_argument("--seeds", type=int, help="of each training at most [3]")
    parser.add_argument(
        "--trainings", help="names of those to train, with commas between, such as open,'alone*'"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--only", choices=PARTS, help="one part; what it needs must be there")
    args = parser.parse_args()
    for name in ("seeds", "jobs"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f"--{name}={value:g}: expected more than 0.")
    return args


def _study(args: argparse.Namespace) -> None:
    import_tensorflow()
    from study_parts import accuracies, searching, trainings
    from study_parts.plan import FULL, HOUR, QUICK

    plan = QUICK if args.quick else FULL
    chosen = plan.chosen(args.trainings.split(",") if args.trainings else ["*"])
    runs = trainings.runs_in(args.workdir, plan)
    wanted = [
        run
        for run in runs
        if run.training in chosen and (args.seeds is None or run.seed < args.seeds)
    ]

    def evaluate() -> None:
        """All that is trained, also in other sittings."""
        if args.only in (None, "evaluate"):
            accuracies.evaluate_all(plan, runs, args.workdir, args.results)
            _keep_machine(args.results)

    if args.only in (None, "train"):
        trainings.train_all(plan, wanted, args.data_dir, args.jobs, evaluate)
    evaluate()
    if args.only == "search" or (args.only is None and not args.trainings):
        (hour,) = (run for run in runs if (run.training.name, run.seed) == (HOUR, 0))
        searching.search(plan, hour, args.workdir, args.results)
        _keep_machine(args.results)


def _keep_machine(results: pathlib.Path) -> None:
    write_json(results / "machine.json", machine.machine() | machine.versions())


if __name__ == "__main__":
    sys.exit(main())
