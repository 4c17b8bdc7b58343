"""Measures the train step, alone or side by side with the PyTorch reference.

    python benchmarks/train_step.py --reference --output=train_step.csv

Both sides take turns, step by step, each in a process of its own; a ratio compares steps that
follow each other. Rows are medians; brackets hold the smallest and the largest of the repeats.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Sequence

import numpy as np
from workers import Setting, Worker

import ofa_tf

_SUBNETS_PER_STEP = 4
_OVERHEAD_ARCHS = 10
_EVALUATED_ARCHS = 3
_EVALUATION = (4, 4)  # calibration and evaluation batches per subnet

Row = tuple[str, str, str, str]


def main() -> None:
    args = _arguments()
    setting = Setting(args.space, args.resolution, args.batch_size, args.dtype, args.threads)
    ours = Worker("ours", setting)
    references = []
    if args.reference:
        formats = (setting, setting._replace(channels_last=True))
        references = [Worker("reference", each) for each in formats]
    space = ofa_tf.get_space(args.space).restrict(resolutions=(args.resolution,))
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(args.archs)]
    rows: list[Row] = []

    def add(*row: str) -> None:
        rows.append(row)
        print(f"{row[0]:<34}{row[1]:>24}{row[2]:>24}{row[3]:>20}", flush=True)

    add("", "ours", "reference", "ratio")
    reference = _faster(references, space.max())
    for name, of_name in (
        ("largest", [space.max()]),
        ("smallest", [space.min()]),
        (f"{args.archs} random", archs),
    ):
        add(f"{name}, images/s", *_compare(ours, reference, of_name, args, _train))
    peaks = [worker("peak_memory") for worker in (ours, reference) if worker]
    ratio = f"{peaks[0] / peaks[1]:.2f}" if reference else ""
    add("peak memory, MB", *(f"{peak:.0f}" for peak in peaks), *[""] * (2 - len(peaks)), ratio)
    overheads = [_overhead(ours, arch, args.repeats) for arch in archs[:_OVERHEAD_ARCHS]]
    mean = statistics.mean(overheads)
    add("over the standalone subnet's time", f"{mean:.3f} {_range(overheads, 2)}", "", "")
    evaluated = archs[:_EVALUATED_ARCHS]
    add("recalibrated subnets/min", *_compare(ours, reference, evaluated, args, _evaluate))
    first = ours("first_step", archs[:_SUBNETS_PER_STEP])
    add(f"first step of {_SUBNETS_PER_STEP} subnets, s", f"{first:.1f}", "", "")
    add("traces of the step", str(ours("traces")), "", "")
    if args.output:
        with open(args.output, "w", newline="") as file:
            csv.writer(file).writerows([("measured", *rows[0][1:]), *rows[1:]])
    for worker in (ours, *references):
        worker.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", action="store_true", help="measure the reference, too")
    parser.add_argument("--space", default="ofa_mbv3_w1.0")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--archs", type=int, default=20, help="random subnets")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each side on an arch")
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    parser.add_argument("--output", help="a CSV file for the rows")
    return parser.parse_args()


def _faster(references: Sequence[Worker], arch) -> Worker | None:
    """The reference in its faster memory format."""
    return min(
        references,
        key=lambda worker: min(worker("train", arch) for _ in range(4)),
        default=None,
    )


def _train(worker: Worker, arch, args) -> float:
    """Images per second of a step."""
    return args.batch_size / worker("train", arch)


def _evaluate(worker: Worker, arch, args) -> float:
    """Subnets per minute."""
    return 60 / worker("evaluate", arch, *_EVALUATION)


def _compare(
    ours: Worker, reference: Worker | None, archs, args, speed: Callable[..., float]
) -> tuple[str, str, str]:
    """Means over the archs of the medians over the repeats, and of the ratios."""
    sides = [worker for worker in (ours, reference) if worker]
    speeds = []  # of each repeat: of each side: mean over the archs
    for arch in archs:
        for worker in sides:
            speed(worker, arch, args)  # warm-up: kernels are made for new shapes
    for _ in range(args.repeats):
        each = [[speed(worker, arch, args) for worker in sides] for arch in archs]
        # A harmonic mean, since it is times that add up.
        speeds.append([statistics.harmonic_mean(of_side) for of_side in zip(*each, strict=True)])
    cells = [
        f"{statistics.median(of_side):.1f} {_range(of_side, 1)}"
        for of_side in zip(*speeds, strict=True)
    ]
    if len(sides) == 1:
        return cells[0], "", ""
    ratios = [mine / other for mine, other in speeds]
    return *cells, f"{statistics.median(ratios):.2f} {_range(ratios, 2)}"


def _overhead(ours: Worker, arch, repeats: int) -> float:
    """The supernet's step over the step of the subnet by itself, median of the repeats."""
    ours("prepare_standalone", arch)
    ratios = [ours("train", arch) / ours("train_standalone", arch) for _ in range(repeats)]
    return statistics.median(ratios)


def _range(values: Sequence[float], digits: int) -> str:
    return f"[{min(values):.{digits}f}, {max(values):.{digits}f}]"


if __name__ == "__main__":
    main()
