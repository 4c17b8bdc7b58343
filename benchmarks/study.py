"""The study: does Once-for-All do on two cores what its paper says, and what is each part worth?

    python benchmarks/study.py --data_dir=CIFAR10 --workdir=runs/study
    python benchmarks/study_results.py

The first command trains, searches and measures (about two hours in all on two x86-64 cores; run it
again to go on after an interruption, in as many sittings as it takes) and writes docs/results/; the
second makes the tables and the pictures of docs/RESULTS.md from it. What is trained and compared
stands in study_parts/plan.py.
"""

from __future__ import annotations

import argparse
import dataclasses
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
    parser.add_argument(
        "--seeds", type=int, default=1, help="how often the three schedules are trained"
    )
    parser.add_argument("--scale", type=float, help="all epochs are multiplied by it [1/3]")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--only", choices=PARTS, help="one part; what it needs must be there")
    args = parser.parse_args()
    for name in ("scale", "seeds", "jobs"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f"--{name}={value:g}: expected more than 0.")
    return args


def _study(args: argparse.Namespace) -> None:
    import_tensorflow()
    from study_parts import accuracies, searching, trainings
    from study_parts.plan import FULL, QUICK

    plan = QUICK if args.quick else FULL
    if args.scale is not None:
        plan = dataclasses.replace(plan, scale=args.scale)
    plan.keep(args.workdir / "plan.json")
    kinds = [(each, 0) for each in plan.trainings]
    kinds += [(each, seed) for seed in range(1, args.seeds) for each in plan.schedules]
    runs = [trainings.run_in(args.workdir, training, seed) for training, seed in kinds]
    if args.only in (None, "train"):
        trainings.train_all(plan, runs, args.data_dir, args.jobs)
    if args.only in (None, "evaluate"):
        accuracies.evaluate_all(plan, runs, args.workdir, args.results)
    if args.only in (None, "search"):
        searching.search(plan, runs[0], args.workdir, args.results)
    write_json(args.results / "machine.json", machine.machine() | machine.versions())


if __name__ == "__main__":
    sys.exit(main())
