"""Measures the train step, alone or side by side with the PyTorch reference.

    python benchmarks/train_step.py --reference --records=train_step.csv

Both sides take turns, step by step, each in a process of its own; a ratio compares steps that
follow each other. A repeat's speed is the mean over the archs of a case.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import records
from records import Record
from workers import Setting, Worker

import ofa_tf
from ofa_tf.spaces import Arch

_SUBNETS_PER_STEP = 4
_EVALUATION = (4, 4)  # calibration and evaluation batches per subnet
_REFERENCE = "PyTorch reference"
# What was asked for the published space in float32.
_GOALS = {
    "largest": ">= 2",
    "random": ">= 2",
    "smallest": ">= 1.3",
    "standalone": "<= 1.05",
    "evaluation": ">= 1.5",
    "memory": "<= 1",
    "first": "<= 15",
}


def main() -> None:
    parser = records.parser(__doc__)
    parser.add_argument("--reference", action="store_true", help="measure the reference, too")
    parser.add_argument("--space", default="ofa_mbv3_w1.0")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--archs", type=int, default=20, help="random subnets")
    parser.add_argument("--standalone", type=int, default=10, help="of these, also cut out")
    parser.add_argument("--evaluated", type=int, default=3, help="of these, also recalibrated")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each side on an arch")
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    args = parser.parse_args()
    records.report(_measure(args), args.records)


def _measure(args: argparse.Namespace) -> Iterator[Record]:
    setting = Setting(args.space, args.resolution, args.batch_size, args.dtype, args.threads)
    ours = Worker("ours", setting)
    references = []
    if args.reference:
        formats = (setting, setting._replace(channels_last=True))
        references = [Worker("reference", each) for each in formats]
    space = ofa_tf.get_space(args.space).restrict(resolutions=(args.resolution,))
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(args.archs)]
    sides = [ours]
    if references:
        sides.append(_faster(references, space.max()))
    goals = _GOALS if (args.space, args.dtype) == ("ofa_mbv3_w1.0", "float32") else {}

    def record(case: str, unit: str, goal: str, *values: Sequence[float], **fields) -> Record:
        if len(values) > 1:
            fields = {"against": _REFERENCE} | fields
        title = f"{args.space}, {args.resolution} px, batch {args.batch_size}, {args.dtype}"
        title += f", {args.threads} threads a side"
        return Record(title, case, unit, *map(tuple, values), goal=goals.get(goal, ""), **fields)

    def train(worker: Worker, arch: Arch) -> float:
        """Images per second of a step."""
        return args.batch_size / worker("train", arch)

    for goal, case, of_case in (
        ("largest", "train step, largest", [space.max()]),
        ("smallest", "train step, smallest", [space.min()]),
        ("random", f"train step, {args.archs} random archs", archs),
    ):
        yield record(case, "images/s", goal, *_compare(sides, of_case, args.repeats, train))
    yield record("peak memory", "MB", "memory", *([worker.peak_memory()] for worker in sides))
    if args.standalone:
        pairs = [_beside_standalone(ours, arch, args.repeats) for arch in archs[: args.standalone]]
        values = zip(*pairs, strict=True)
        fields = {"against": "cut-out Keras model", "of": "archs"}
        yield record("train step, random arch", "s", "standalone", *values, **fields)
    if args.evaluated:
        evaluated = _compare(sides, archs[: args.evaluated], args.repeats, _evaluate)
        yield record("recalibrated and evaluated", "subnets/min", "evaluation", *evaluated)
    first = ours("first_step", archs[:_SUBNETS_PER_STEP])
    yield record(f"first step, {len(archs[:_SUBNETS_PER_STEP])} subnets", "s", "first", [first])
    yield record("traces of the step", "", "", [ours("traces")])


def _faster(references: Sequence[Worker], arch: Arch) -> Worker:
    """The reference in its faster memory format."""
    return min(references, key=lambda worker: min(worker("train", arch) for _ in range(4)))


def _evaluate(worker: Worker, arch: Arch) -> float:
    """Subnets per minute."""
    return 60 / worker("evaluate", arch, *_EVALUATION)


def _compare(
    sides: Sequence[Worker],
    archs: Sequence[Arch],
    repeats: int,
    speed: Callable[[Worker, Arch], float],
) -> list[tuple[float, ...]]:
    """Of each side, the mean speed over the archs in each repeat."""
    turns = []  # of each repeat: of each arch: of each side
    for _ in range(1 + repeats):
        turns.append([[speed(worker, arch) for worker in sides] for arch in archs])
    # The first is a warm-up: kernels are made for new shapes. A harmonic mean, since it is times
    # that add up.
    return [
        tuple(statistics.harmonic_mean([each[side] for each in turn]) for turn in turns[1:])
        for side in range(len(sides))
    ]


def _beside_standalone(ours: Worker, arch: Arch, repeats: int) -> tuple[float, float]:
    """Median seconds of the supernet's step and of the step of the subnet by itself."""
    ours("prepare_standalone", arch)
    turns = [(ours("train", arch), ours("train_standalone", arch)) for _ in range(repeats)]
    elastic, alone = zip(*turns, strict=True)
    return statistics.median(elastic), statistics.median(alone)


if __name__ == "__main__":
    main()
