"""Measures the published predictors: ours on arrays of archs, the reference one arch at a time.

    python benchmarks/predictors.py --published=DIR

DIR has acc_predictor.pth and the folder note10. Needs `pip install ofa torch`. Both take turns,
round by round, in one process. Ours is timed on encoded archs and on Arch objects.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import records
from published_reference import accuracy_predictor, latency_predictor
from records import Record

from ofa_tf.search import AccuracyPredictor, LatencyTable


def main() -> None:
    parser = records.parser(__doc__)
    parser.add_argument("--published", type=pathlib.Path, required=True)
    parser.add_argument("--archs", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    args = parser.parse_args()
    records.report(_measure(args), args.records)


def _measure(args: argparse.Namespace) -> Iterator[Record]:
    accuracy = AccuracyPredictor.load(args.published / "acc_predictor.pth")
    table = LatencyTable.load(args.published / "note10", accuracy.space)
    codes = accuracy.space.sample_codes(args.archs, np.random.default_rng(0))
    archs = accuracy.space.decode(codes)
    choices = [arch.to_dict() | {"r": [arch.resolution]} for arch in archs]
    title = f"published predictor and Note10 tables, {args.archs} archs"
    their_accuracy = accuracy_predictor(args.published)
    their_latency = latency_predictor(args.published, accuracy.space.resolutions)
    for name, ours, theirs in (
        ("accuracy", accuracy, lambda choice: float(their_accuracy.predict_accuracy([choice]))),
        ("latency", table, their_latency),
    ):
        runs: dict[str, Callable[[], object]] = {
            "codes": lambda ours=ours: ours(codes),
            "Arch objects": lambda ours=ours: ours(ours.space.encode(archs)),
            "reference": lambda theirs=theirs: [theirs(choice) for choice in choices],
        }
        speeds = records.in_turn(
            {form: functools.partial(_speed, run, args.archs) for form, run in runs.items()},
            args.repeats,
        )
        for form, goal in (("codes", ">= 100"), ("Arch objects", "")):
            against = {"against": "PyTorch reference", "goal": goal}
            values = speeds[form], speeds["reference"]
            yield Record(title, f"{name} of {form}", "archs/s", *values, **against)


def _speed(run: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
