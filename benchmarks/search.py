"""Measures the search: ours against the reference's EvolutionFinder, with the same predictors.

    python benchmarks/search.py --published=DIR

DIR has acc_predictor.pth and the folder note10. Needs `pip install ofa torch`. Budgets are in ms of
the Note10 tables. For each budget the reference and ours take turns, seed by seed, in one process;
a ratio is of one seed. Then all of --many budgets are solved in one call, in a fresh process whose
time counts from its start, imports and loading included.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import records
from records import Record

from ofa_tf.search import AccuracyPredictor, LatencyTable, evolve, evolve_many

_REFERENCE = "PyTorch reference"
_MANY = "many"  # the first argument of the fresh process


def main() -> None:
    parser = records.parser(__doc__)
    parser.add_argument("--published", type=pathlib.Path, required=True)
    parser.add_argument(
        "--budgets",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[float(budget) for budget in range(18, 59, 2)],
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each for a budget")
    parser.add_argument("--first_seed", type=int, default=0, help="the others follow it")
    parser.add_argument("--many", type=int, default=40, help="budgets in one call")
    parser.add_argument("--repeats", type=int, default=3, help="of that call")
    args = parser.parse_args()
    records.report(_measure(args), args.records)


def _measure(args: argparse.Namespace) -> Iterator[Record]:
    accuracy, table = _predictors(args.published)
    title = "published predictor and Note10 tables"
    codes = accuracy.space.sample_codes(8192, np.random.default_rng(0))
    both = {"both": lambda: len(codes) / _timed(lambda: (accuracy(codes), table(codes)))[1]}
    speeds = records.in_turn(both, 7)["both"]
    yield Record(title, "latency and accuracy together", "archs/s", speeds)
    yield from _compare(args, accuracy, table, title)
    seconds = tuple(_seconds_of_many(args.published, args.many) for _ in range(args.repeats))
    yield Record(title, f"{args.many} budgets in a fresh process", "s", seconds, goal="<= 20")


def _predictors(folder: pathlib.Path) -> tuple[AccuracyPredictor, LatencyTable]:
    accuracy = AccuracyPredictor.load(folder / "acc_predictor.pth")
    return accuracy, LatencyTable.load(folder / "note10", accuracy.space)


def _compare(
    args: argparse.Namespace, accuracy: AccuracyPredictor, table: LatencyTable, title: str
) -> Iterator[Record]:
    """For each budget the accuracies and the speeds; then the accuracies of all budgets."""
    import published_reference  # not above: the fresh process has no use for PyTorch

    reference = published_reference.search(args.published, accuracy.space.resolutions)
    means: dict[str, list[float]] = {"normal": [], "high": [], _REFERENCE: []}
    for budget in args.budgets:

        def ours(effort: str, seed: int, budget: float = budget) -> float:
            limits = {"latency_ms": (table, budget)}
            return evolve(accuracy.space, accuracy, limits, seed=seed, effort=effort).accuracy

        runs = {
            _REFERENCE: functools.partial(reference, budget),
            "normal": functools.partial(ours, "normal"),
            "high": functools.partial(ours, "high"),
        }
        turns = [
            {name: _timed(functools.partial(run, seed)) for name, run in runs.items()}
            for seed in range(args.first_seed, args.first_seed + args.seeds)
        ]
        found = {name: tuple(100 * turn[name][0] for turn in turns) for name in runs}
        speeds = {name: tuple(60 / turn[name][1] for turn in turns) for name in runs}
        for effort, goal in (("normal", ">= 20"), ("high", "")):
            case = f"{budget:g} ms, effort={effort}"
            for unit, values, asked in (
                ("% predicted", found, ""),
                ("searches/min", speeds, goal),
            ):
                sides = values[effort], values[_REFERENCE]
                yield Record(title, case, unit, *sides, _REFERENCE, asked, of="seeds")
        for name, values in found.items():
            means[name].append(statistics.mean(values))
    for effort in ("normal", "high"):
        sides = tuple(means[effort]), tuple(means[_REFERENCE])
        case = f"means of the seeds, effort={effort}"
        yield Record(title, case, "% predicted", *sides, _REFERENCE, "all >= 1", of="budgets")


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a run found, and its seconds."""
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


def _seconds_of_many(folder: pathlib.Path, count: int) -> float:
    """All budgets in one call of a fresh process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, __file__, _MANY, str(folder), str(count)], check=True)
    return time.perf_counter() - start


def _many(published: str, count: str) -> None:
    """What the fresh process does, as a user's would."""
    accuracy, table = _predictors(pathlib.Path(published))
    budgets = np.linspace(18, 58, int(count))
    evolve_many(
        accuracy.space,
        accuracy,
        {"latency_ms": table},
        [{"latency_ms": budget} for budget in budgets],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [_MANY]:
        _many(*sys.argv[2:])
    else:
        main()
