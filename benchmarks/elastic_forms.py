"""Measures the training step's forms: --elastic=slice, mask, and mask compiled by XLA.

    python benchmarks/elastic_forms.py --space=ofa_mbv3_cifar --resolution=32 --batch_size=64

The forms take turns, step by step, each in a process of its own. Times are medians relative to
slice; brackets hold the smallest and the largest of the repeats.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from workers import Setting, Worker

import ofa_tf

_FORMS = {
    "slice": {"elastic": "slice"},
    "mask": {"elastic": "mask"},
    "mask, XLA": {"elastic": "mask", "xla": True},
}


def main() -> None:
    args = _arguments()
    setting = Setting(args.space, args.resolution, args.batch_size, "float32", args.threads)
    workers = {name: Worker("ours", setting._replace(**form)) for name, form in _FORMS.items()}
    space = ofa_tf.get_space(args.space).restrict(resolutions=(args.resolution,))
    archs = {
        "largest": space.max(),
        "random": space.sample(np.random.default_rng(0)),
        "smallest": space.min(),
    }
    print(f"{'':<12}{'slice, images/s':>20}" + "".join(f"{name:>24}" for name in list(_FORMS)[1:]))
    for name, arch in archs.items():
        for worker in workers.values():
            worker("train", arch)  # traces and compiles
        turns = [
            [worker("train", arch) for worker in workers.values()] for _ in range(args.repeats)
        ]
        speed = args.batch_size / statistics.median(turn[0] for turn in turns)
        cells = [
            _relative([turn[0] / turn[column] for turn in turns])
            for column in range(1, len(workers))
        ]
        print(f"{name:<12}{speed:>20.1f}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    for worker in workers.values():
        worker.close()


def _relative(ratios: list[float]) -> str:
    """Images/s over those of slice."""
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_cifar")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7, help="steps of each form on an arch")
    parser.add_argument("--threads", type=int, default=2, help="of each form")
    return parser.parse_args()


if __name__ == "__main__":
    main()
