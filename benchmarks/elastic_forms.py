"""Measures the training step's forms: --elastic=slice, mask, and mask compiled by XLA.

    python benchmarks/elastic_forms.py --space=ofa_mbv3_cifar --resolution=32 --batch_size=64

The forms take turns, step by step, each in a process of its own. Ratios are to slice.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import records
from records import Record
from workers import Setting, Worker

import ofa_tf

_SLICE = "slice"
_FORMS = {
    _SLICE: {"elastic": "slice"},
    "mask": {"elastic": "mask"},
    "mask, XLA": {"elastic": "mask", "xla": True},
}


def main() -> None:
    parser = records.parser(__doc__)
    parser.add_argument("--space", default="ofa_mbv3_cifar")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7, help="steps of each form on an arch")
    parser.add_argument("--threads", type=int, default=2, help="of each form")
    args = parser.parse_args()
    records.report(_measure(args), args.records)


def _measure(args: argparse.Namespace) -> Iterator[Record]:
    setting = Setting(args.space, args.resolution, args.batch_size, "float32", args.threads)
    title = f"{args.space}, {args.resolution} px, batch {args.batch_size}, {args.threads} threads"
    workers = {name: Worker("ours", setting._replace(**form)) for name, form in _FORMS.items()}
    space = ofa_tf.get_space(args.space).restrict(resolutions=(args.resolution,))
    archs = {
        "largest": space.max(),
        "random": space.sample(np.random.default_rng(0)),
        "smallest": space.min(),
    }
    for case, arch in archs.items():
        forms = {
            name: lambda worker=worker, arch=arch: args.batch_size / worker("train", arch)
            for name, worker in workers.items()
        }
        speeds = records.in_turn(forms, args.repeats)
        for name in list(_FORMS)[1:]:
            values = speeds[name], speeds[_SLICE]
            yield Record(title, f"train step, {case}, {name}", "images/s", *values, against=_SLICE)


if __name__ == "__main__":
    main()
