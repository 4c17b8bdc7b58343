"""Measures the search: ours against the reference's EvolutionFinder, with the same predictors.

    python benchmarks/search.py --published=DIR

DIR has acc_predictor.pth and the folder note10. Needs `pip install ofa torch`. Budgets are in ms of
the Note10 tables. For each budget the reference and ours take turns, seed by seed, in one process;
accuracies are means over the seeds, seconds are medians, and the ratio is the reference's time
over ours at normal effort. Then all of --many budgets are solved in one call, in a fresh process
whose time counts from its start, imports and loading included.
"""

from __future__ import annotations

import argparse
import functools
import io
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr

import numpy as np

from ofa_tf.search import AccuracyPredictor, LatencyTable, evolve, evolve_many

_MANY = "many"  # the first argument of the fresh process


def main() -> None:
    args = _arguments()
    accuracy, table = _predictors(args.published)
    print(f"archs/s, latency and accuracy: {_throughput(accuracy, table):.0f}", flush=True)
    _compare(args, accuracy, table)
    if args.many:
        for _ in range(args.repeats):
            start = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, __file__, _MANY, str(args.published), str(args.many)],
                capture_output=True,
                text=True,
                check=True,
            )
            seconds = time.perf_counter() - start
            print(f"{args.many} budgets in {seconds:.1f} s; {ended.stdout.strip()}", flush=True)


def _predictors(folder: pathlib.Path) -> tuple[AccuracyPredictor, LatencyTable]:
    accuracy = AccuracyPredictor.load(folder / "acc_predictor.pth")
    return accuracy, LatencyTable.load(folder / "note10", accuracy.space)


def _throughput(accuracy: AccuracyPredictor, table: LatencyTable, rounds: int = 7) -> float:
    codes = accuracy.space.sample_codes(8192, np.random.default_rng(0))
    seconds = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        accuracy(codes), table(codes)
        seconds.append(time.perf_counter() - start)
    return len(codes) / statistics.median(seconds[1:])


def _compare(args: argparse.Namespace, accuracy: AccuracyPredictor, table: LatencyTable) -> None:
    """One line for each budget."""
    referenced = args.reference_budgets
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    reference = _reference(args.published, accuracy.space.resolutions) if referenced else None
    names = ("reference", "ours", "ours, high")
    head = "".join(f"{name:>12}" for name in names) + "".join(
        f"{name + ', s':>15}" for name in names
    )
    print(f"{'budget, ms':<10}{head}{'ratio':>8}", flush=True)
    for budget in args.budgets:
        runs: list[Callable[[int], float] | None] = [
            reference and functools.partial(reference, budget) if budget in referenced else None,
            *(
                functools.partial(_ours, accuracy, table, budget, effort)
                for effort in ("normal", "high")
            ),
        ]
        rows = [[_timed(run, seed) for run in runs] for seed in seeds]
        columns = list(zip(*rows, strict=True))
        found = [statistics.mean(found for found, _ in column) for column in columns]
        seconds = [statistics.median(seconds for _, seconds in column) for column in columns]
        print(
            f"{budget:<10g}"
            + "".join(f"{value:>12.5f}" for value in found)
            + "".join(f"{value:>15.2f}" for value in seconds)
            + f"{seconds[0] / seconds[1]:>8.1f}",
            flush=True,
        )


def _ours(
    accuracy: AccuracyPredictor, table: LatencyTable, budget: float, effort: str, seed: int
) -> float:
    constraints = {"latency_ms": (table, budget)}
    return evolve(accuracy.space, accuracy, constraints, seed=seed, effort=effort).accuracy


def _timed(run: Callable[[int], float] | None, seed: int) -> tuple[float, float]:
    """What a run found with a seed, and its seconds; NaN without a run."""
    if run is None:
        return float("nan"), float("nan")
    start = time.perf_counter()
    found = run(seed)
    return found, time.perf_counter() - start


def _reference(folder: pathlib.Path, resolutions: Sequence[int]) -> Callable[[float, int], float]:
    """The reference's search: of a budget in ms and a seed, the accuracy that it finds."""
    from published_reference import EvolutionFinder, accuracy_predictor, latency_estimators

    tables = latency_estimators(folder, resolutions)

    class Efficiency:
        """What the reference's LatencyTable does, with tables that are on disk."""

        def predict_efficiency(self, choices: dict) -> float:
            return tables[choices["r"][0]].predict_network_latency_given_spec(choices)

    accuracy = accuracy_predictor(folder)

    def run(budget: float, seed: int) -> float:
        random.seed(seed)
        np.random.seed(seed)
        finder = EvolutionFinder("note10", budget, Efficiency(), accuracy)
        with redirect_stderr(io.StringIO()):  # its progress bar
            _, best = finder.run_evolution_search()
        return float(best[0])

    return run


def _many(published: str, count: str) -> None:
    """All budgets in one call, as a user's fresh process does it."""
    accuracy, table = _predictors(pathlib.Path(published))
    budgets = np.linspace(18, 58, int(count))
    results = evolve_many(
        accuracy.space,
        accuracy,
        {"latency_ms": table},
        [{"latency_ms": budget} for budget in budgets],
    )
    print(f"mean accuracy {statistics.mean(result.accuracy for result in results):.5f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    budgets = {"type": lambda text: [float(part) for part in text.split(",") if part]}
    parser.add_argument("--published", type=pathlib.Path, required=True)
    parser.add_argument("--budgets", default=[float(b) for b in range(18, 59, 2)], **budgets)
    parser.add_argument(
        "--reference_budgets", **budgets, help="those that the reference solves too; all by default"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each for a budget")
    parser.add_argument("--first_seed", type=int, default=0, help="the others follow it")
    parser.add_argument("--many", type=int, default=40, help="budgets in one call; 0 for none")
    parser.add_argument("--repeats", type=int, default=3, help="of that call")
    args = parser.parse_args()
    if args.reference_budgets is None:
        args.reference_budgets = args.budgets
    return args


if __name__ == "__main__":
    if sys.argv[1:2] == [_MANY]:
        _many(*sys.argv[2:])
    else:
        main()
