"""Measures the published predictors: ours on arrays of archs, the reference one arch at a time.

    python benchmarks/predictors.py --published=DIR

DIR has acc_predictor.pth and the folder note10. Needs `pip install ofa torch`. Both take turns,
round by round, in one process. Speeds are medians; brackets hold the smallest and the largest
ratio of the rounds.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable

import numpy as np
from published_reference import accuracy_predictor, latency_estimators

from ofa_tf.search import AccuracyPredictor, LatencyTable

_Run = Callable[[], None]


def main() -> None:
    args = _arguments()
    accuracy = AccuracyPredictor.load(args.published / "acc_predictor.pth")
    table = LatencyTable.load(args.published / "note10", accuracy.space)
    codes = accuracy.space.sample_codes(args.archs, np.random.default_rng(0))
    archs = accuracy.space.decode(codes)
    choices = [arch.to_dict() | {"r": [arch.resolution]} for arch in archs]
    columns = f"{'codes':>14}{'ratio':>22}{'Arch objects':>16}{'ratio':>20}"
    print(f"{'archs/s':<10}{'reference':>14}{columns}")
    for name, ours, theirs in (
        ("accuracy", accuracy, _reference_accuracy(args.published)),
        ("latency", table, _reference_latency(args.published, accuracy.space.resolutions)),
    ):
        runs: list[_Run] = [
            lambda theirs=theirs: [theirs(choice) for choice in choices],
            lambda ours=ours: ours(codes),
            lambda ours=ours: ours(ours.space.encode(archs)),
        ]
        for run in runs:
            run()
        rounds = [[args.archs / _seconds(run) for run in runs] for _ in range(args.repeats)]
        speeds = [statistics.median(column) for column in zip(*rounds, strict=True)]
        print(
            f"{name:<10}{speeds[0]:>14.0f}{speeds[1]:>14.0f}{_ratios(rounds, 1):>22}"
            f"{speeds[2]:>16.0f}{_ratios(rounds, 2):>20}",
            flush=True,
        )


def _reference_accuracy(folder: pathlib.Path) -> Callable[[dict], float]:
    predictor = accuracy_predictor(folder)
    return lambda choices: float(predictor.predict_accuracy([choices]))


def _reference_latency(
    folder: pathlib.Path, resolutions: tuple[int, ...]
) -> Callable[[dict], float]:
    tables = latency_estimators(folder, resolutions)
    return lambda choices: tables[choices["r"][0]].predict_network_latency_given_spec(choices)


def _seconds(run: _Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _ratios(rounds: list[list[float]], column: int) -> str:
    """Our speed over the reference's."""
    ratios = [speeds[column] / speeds[0] for speeds in rounds]
    return f"{statistics.median(ratios):.1f} [{min(ratios):.1f}, {max(ratios):.1f}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=pathlib.Path, required=True)
    parser.add_argument("--archs", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
