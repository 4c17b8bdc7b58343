"""Measures the published predictors: ours on arrays of archs, the reference one arch at a time.

    python benchmarks/predictors.py --published=DIR

DIR has acc_predictor.pth and the folder note10. Needs `pip install ofa torch`. Both take turns,
round by round, in one process. Ours is timed on encoded archs and on Arch objects.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import records
from published_reference import accuracy_predictor, latency_estimators
from records import Record

from ofa_tf.search import AccuracyPredictor, LatencyTable

_Run = Callable[[], object]


def main() -> None:
    args = _arguments()
    records.report(_measure(args), args.records)


def _measure(args: argparse.Namespace) -> Iterator[Record]:
    accuracy = AccuracyPredictor.load(args.published / "acc_predictor.pth")
    table = LatencyTable.load(args.published / "note10", accuracy.space)
    codes = accuracy.space.sample_codes(args.archs, np.random.default_rng(0))
    archs = accuracy.space.decode(codes)
    choices = [arch.to_dict() | {"r": [arch.resolution]} for arch in archs]
    for name, ours, theirs in (
        ("accuracy", accuracy, _reference_accuracy(args.published)),
        ("latency", table, _reference_latency(args.published, accuracy.space.resolutions)),
    ):
        runs: dict[str, _Run] = {
            "codes": lambda ours=ours: ours(codes),
            "Arch objects": lambda ours=ours: ours(ours.space.encode(archs)),
            "reference": lambda theirs=theirs: [theirs(choice) for choice in choices],
        }
        for run in runs.values():
            run()  # warm-up
        turns = [
            {form: args.archs / _seconds(run) for form, run in runs.items()}
            for _ in range(args.repeats)
        ]
        speeds = {form: tuple(turn[form] for turn in turns) for form in runs}
        for form, asked in (("codes", ">= 100"), ("Arch objects", "")):
            yield Record(
                f"published predictor and Note10 tables, {args.archs} archs",
                f"{name} of {form}",
                "archs/s",
                speeds[form],
                speeds["reference"],
                against="PyTorch reference",
                goal=asked,
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=pathlib.Path, required=True)
    parser.add_argument("--archs", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    records.add_flag(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
