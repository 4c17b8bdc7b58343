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
import io
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr

import numpy as np
import records
from records import Record

from ofa_tf.search import AccuracyPredictor, LatencyTable, evolve, evolve_many

_REFERENCE = "PyTorch reference"
_MANY = "many"  # the first argument of the fresh process


def main() -> None:
    args = _arguments()
    records.report(_measure(args), args.records)


def _measure(args: argparse.Namespace) -> Iterator[Record]:
    accuracy, table = _predictors(args.published)
    title = "published predictor and Note10 tables"
    speeds = _throughput(accuracy, table)
    yield Record(title, "latency and accuracy together", "archs/s", speeds)
    yield from _compare(args, accuracy, table, title)
    if args.many:
        seconds = tuple(_seconds_of_many(args.published, args.many) for _ in range(args.repeats))
        yield Record(title, f"{args.many} budgets in a fresh process", "s", seconds, goal="<= 20")


def _predictors(folder: pathlib.Path) -> tuple[AccuracyPredictor, LatencyTable]:
    accuracy = AccuracyPredictor.load(folder / "acc_predictor.pth")
    return accuracy, LatencyTable.load(folder / "note10", accuracy.space)


def _throughput(
    accuracy: AccuracyPredictor, table: LatencyTable, rounds: int = 7
) -> tuple[float, ...]:
    codes = accuracy.space.sample_codes(8192, np.random.default_rng(0))
    speeds = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        accuracy(codes), table(codes)
        speeds.append(len(codes) / (time.perf_counter() - start))
    return tuple(speeds[1:])


def _compare(
    args: argparse.Namespace, accuracy: AccuracyPredictor, table: LatencyTable, title: str
) -> Iterator[Record]:
    """For each budget the accuracies and the speeds; then the accuracies of all budgets."""
    referenced = args.reference_budgets
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    reference = _reference(args.published, accuracy.space.resolutions) if referenced else None
    means: dict[str, list[float]] = {"normal": [], "high": [], _REFERENCE: []}
    for budget in args.budgets:
        runs: dict[str, Callable[[int], float]] = {
            effort: functools.partial(_ours, accuracy, table, budget, effort)
            for effort in ("normal", "high")
        }
        if budget in referenced:
            runs = {_REFERENCE: functools.partial(reference, budget), **runs}
        turns = [{name: _timed(run, seed) for name, run in runs.items()} for seed in seeds]
        found = {name: tuple(100 * turn[name][0] for turn in turns) for name in runs}
        speeds = {name: tuple(60 / turn[name][1] for turn in turns) for name in runs}
        for effort, goal in (("normal", ">= 20"), ("high", "")):
            for unit, values, asked in (
                ("% predicted", found, ""),
                ("searches/min", speeds, goal if budget in referenced else ""),
            ):
                case = f"{budget:g} ms, effort={effort}"
                yield _record(title, case, unit, values, effort, asked)
        if budget in referenced:
            for name, values in found.items():
                means[name].append(statistics.mean(values))
    if means[_REFERENCE]:
        for effort in ("normal", "high"):
            yield _record(
                title,
                f"means of the seeds, effort={effort}",
                "% predicted",
                {name: tuple(values) for name, values in means.items()},
                effort,
                goal="all >= 1",
                of="budgets",
            )


def _record(
    title: str,
    case: str,
    unit: str,
    values: dict[str, tuple[float, ...]],
    effort: str,
    goal: str,
    of: str = "seeds",
) -> Record:
    """Ours of an effort, against the reference where that has values too."""
    reference = values.get(_REFERENCE, ())
    against = _REFERENCE if reference else ""
    return Record(title, case, unit, values[effort], reference, against, goal, of)


def _ours(
    accuracy: AccuracyPredictor, table: LatencyTable, budget: float, effort: str, seed: int
) -> float:
    constraints = {"latency_ms": (table, budget)}
    return evolve(accuracy.space, accuracy, constraints, seed=seed, effort=effort).accuracy


def _timed(run: Callable[[int], float], seed: int) -> tuple[float, float]:
    """What a run found with a seed, and its seconds."""
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
    records.add_flag(parser)
    args = parser.parse_args()
    if args.reference_budgets is None:
        args.reference_budgets = args.budgets
    return args


if __name__ == "__main__":
    if sys.argv[1:2] == [_MANY]:
        _many(*sys.argv[2:])
    else:
        main()
