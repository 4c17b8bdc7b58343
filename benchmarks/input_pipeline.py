"""Does the input pipeline keep up? Images/s of training batches, against those of the train step.

Two cases: JPEG photographs read, decoded and cropped to 224 px, and small images decoded once and
kept in memory, at 32 px. Everything that is compared is measured in turn, in one run, several
times; a ratio is of values from one turn.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import records
import tensorflow as tf
from records import Record
from workers import Setting, Worker

from ofa_tf import get_space
from ofa_tf.data import ImageData, load_dataset

_PHOTO_HEIGHT, _PHOTO_WIDTH = 375, 500  # the usual ones of ImageNet
_NUM_TEST_PHOTOS = 20  # which the folder must have, and nothing here reads
_UNTIMED_BATCHES = 6  # more than are ready when the clock starts
_SMALL_BATCHES = 6  # of small images for each of photographs: they take less time
_PIPELINES = {"pipeline, one thread": 1, "pipeline, all threads": None}


class Case(NamedTuple):
    name: str
    data: ImageData
    space: str
    resolution: int
    batch_size: int
    num_batches: int  # that are timed in each turn


def main() -> None:
    parser = records.parser(__doc__)
    parser.add_argument(
        "--data_dir", help="folder of photographs in class folders; default: some are drawn"
    )
    parser.add_argument(
        "--small_data_dir", help="folder of small images, as CIFAR-10; default: ofa_doodles"
    )
    parser.add_argument("--photos", type=int, default=300, help="that are drawn")
    parser.add_argument("--train_step", action="store_true", help="measure train steps beside it")
    parser.add_argument("--photo_space", default="ofa_mbv3_w1.0", help="of the step at 224 px")
    parser.add_argument("--small_space", default="ofa_mbv3_cifar", help="of the step at 32 px")
    parser.add_argument("--batches", type=int, default=10, help="of photographs in a turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    args = parser.parse_args()
    records.report(_records(args), args.records)


def _records(args: argparse.Namespace) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as folder:
        if not args.data_dir:
            _draw_photographs(Path(folder), args.photos)
        # The drawn ones would fit into memory; real ones do not.
        photos = load_dataset(data_dir=args.data_dir or folder, cache_bytes=0)
        small_images = {"data_dir": args.small_data_dir, "cache_dir": folder}
        small = load_dataset(None if args.small_data_dir else "ofa_doodles", **small_images)
        many = args.batches * _SMALL_BATCHES
        for case in (
            Case("photographs", photos, args.photo_space, 224, 32, args.batches),
            Case("small images", small, args.small_space, 32, 128, many),
        ):
            yield from _compared(case, _measure(case, args.repeats, args.train_step))


def _compared(case: Case, rates: dict[str, tuple[float, ...]]) -> Iterator[Record]:
    """Each pipeline against each train step, or alone where no step was measured."""
    title = (
        f"{case.name} at {case.resolution} px, batch {case.batch_size}, {case.space}, "
        f"{os.cpu_count()} CPUs"
    )
    steps = [name for name in rates if name not in _PIPELINES]
    for pipeline in _PIPELINES:
        if not steps:
            yield Record(title, pipeline, "images/s", rates[pipeline])
        for step in steps:
            yield Record(title, pipeline, "images/s", rates[pipeline], rates[step], against=step)


def _draw_photographs(folder: Path, number: int) -> None:
    """JPEGs of about 50 kB: noise of several scales, the coarse ones strongest, as in nature."""
    rng = np.random.default_rng(0)
    size = [_PHOTO_HEIGHT, _PHOTO_WIDTH]
    for split, count in (("train", number), ("test", _NUM_TEST_PHOTOS)):
        for index in range(count):
            pixels = tf.fill([*size, 3], 128.0)
            for cells, strength in ((4, 60.0), (16, 30.0), (64, 15.0), (250, 7.0)):
                noise = rng.normal(0.0, strength, (cells, cells, 3))
                pixels += tf.image.resize(noise, size, "bicubic")
            encoded = tf.io.encode_jpeg(tf.saturate_cast(pixels, tf.uint8), quality=90)
            path = folder / split / f"class{index % 2}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded.numpy())


def _measure(case: Case, repeats: int, train_step: bool) -> dict[str, tuple[float, ...]]:
    """Images/s of each subject in each turn."""
    subjects = {name: _pipeline(case, threads) for name, threads in _PIPELINES.items()}
    if train_step:
        subjects |= _train_steps(case)
    return records.in_turn(subjects, repeats)


def _pipeline(case: Case, threads: int | None) -> Callable[[], float]:
    dataset = case.data.train_batches(case.batch_size, [case.resolution], seed=0)
    if threads:
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.threading.max_intra_op_parallelism = threads
        dataset = dataset.with_options(options)
    batches: Iterator = iter(dataset)

    def measure() -> float:
        for _ in itertools.islice(batches, _UNTIMED_BATCHES):
            pass
        start = time.perf_counter()
        for _ in itertools.islice(batches, case.num_batches):
            pass
        return case.batch_size * case.num_batches / (time.perf_counter() - start)

    return measure


def _train_steps(case: Case) -> dict[str, Callable[[], float]]:
    """The trainer's steps on the largest and on random archs, in a process of their own."""
    classes = case.data.num_classes
    setting = Setting(
        case.space, case.resolution, case.batch_size, "float32", os.cpu_count(), classes
    )
    worker, space, rng = Worker("ours", setting), get_space(case.space), np.random.default_rng(0)
    return {
        "train step, largest": lambda: case.batch_size / worker("train", space.max()),
        "train step, random": lambda: case.batch_size / worker("train", space.sample(rng)),
    }


if __name__ == "__main__":
    main()
