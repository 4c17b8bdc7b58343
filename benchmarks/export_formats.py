"""Measures the exported formats: size, operations, delegate partitions, latency, and the export.

    python benchmarks/export_formats.py

The largest, the smallest and two random subnets of each family at 224 px, with made-up weights, in
every format and in both forms, and keras.applications.MobileNetV3Large converted the same way. All
files are measured in turn on this host, one thread; ratios are to the subnet's float32 file in the
cpu form, and of MobileNetV3Large's time per million multiply-accumulates. Then the seconds to cut
each of these subnets out of a supernet and to write its .keras file. With --output=DIR the
converted files are kept there, and what is measured in DIR/measurements.jsonl.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import records
from records import Record
from tqdm import tqdm

import mobile_bench
import ofa_tf
from ofa_tf.data import MEAN, STD
from ofa_tf.export import Interface, convert, convert_subnet
from ofa_tf.files import append_json
from ofa_tf.models import Supernet, build_subnet
from ofa_tf.spaces import Arch, Blueprint

RESOLUTION, NUM_CLASSES = 224, 1000
_BASE = "float32-cpu"  # precision and form of the files that the others are compared with
FILES = f"{_BASE},float32-plain,float16-cpu,dynamic-cpu,int8-cpu,int8-plain"
_KERAS = "MobileNetV3Large"  # of keras.applications
_HOW = f"{RESOLUTION} px, {NUM_CLASSES} classes, host, one thread"
INTERFACE = Interface((MEAN, STD))


def main() -> None:
    parser = records.parser(__doc__)
    parser.add_argument("--output", type=pathlib.Path, help="folder that keeps the files")
    parser.add_argument(
        "--spaces",
        type=lambda text: text.split(","),
        default=["ofa_mbv3_w1.0", "ofa_proxyless_w1.3", "ofa_resnet50"],
    )
    parser.add_argument("--random", type=int, default=2, help="random subnets of each space")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", default=FILES, help="precisions and forms, of %(default)s")
    parser.add_argument("--keras", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    args.files = args.files.split(",")
    if _BASE not in args.files:
        parser.error(f"--files: {_BASE} must be among them, which the others are compared with")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.output or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        records.report(_records(args, folder), args.records)


def _records(args: argparse.Namespace, folder: pathlib.Path) -> Iterator[Record]:
    subnets = {name: _archs(name, args.random) for name in args.spaces}
    plans = {
        f"{space}.{which}": ofa_tf.get_space(space).blueprint(arch, NUM_CLASSES)
        for space, archs in subnets.items()
        for which, arch in archs.items()
    }
    macs = {name: plan.macs for name, plan in plans.items()}
    # A process for each: what TensorFlow holds of a large network after its conversion adds up.
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        tasks = [(folder, name, plan, args.files) for name, plan in plans.items()]
        list(tqdm(pool.imap(_convert_all, tasks, chunksize=1), "convert", len(tasks)))
        timed = pool.imap(_seconds_to_materialize, subnets.items(), chunksize=1)
        seconds = dict(zip(subnets, tqdm(timed, "materialize", len(subnets)), strict=True))
    if args.keras:
        macs[_KERAS] = _convert_keras(folder)
    summaries = _measure(folder, args.rounds)
    yield from _of_files(list(plans), args.files, summaries)
    if args.keras:
        yield from _per_mac(macs, summaries)
    what = "materialize a subnet and write its .keras file"
    for space, archs in seconds.items():
        title, goal = f"{space}, {', '.join(archs)}", "all <= 3" * (space == "ofa_mbv3_w1.0")
        yield Record(title, what, "s", tuple(archs.values()), goal=goal, of="subnets")


def _archs(space_name: str, count: int) -> dict[str, Arch]:
    """The largest, the smallest and some random subnets."""
    space, rng = ofa_tf.get_space(space_name), np.random.default_rng(0)
    side = RESOLUTION if RESOLUTION in space.resolutions else max(space.resolutions)
    space = space.restrict(resolutions=[side])
    archs = {"largest": space.max(), "smallest": space.min()}
    return archs | {f"random{number}": space.sample(rng) for number in range(1, count + 1)}


def _seconds_to_materialize(task: tuple[str, dict[str, Arch]]) -> dict[str, float]:
    """Seconds to cut each subnet out of a supernet and to write its .keras file."""
    space_name, archs = task
    supernet, seconds = Supernet(ofa_tf.get_space(space_name), NUM_CLASSES), {}
    with tempfile.TemporaryDirectory() as folder:
        for which, arch in archs.items():
            start = time.perf_counter()
            model = supernet.subnet(arch, **INTERFACE.build_options)
            model.save(pathlib.Path(folder, "model.keras"))
            seconds[which] = time.perf_counter() - start
    return seconds


def _convert_all(task: tuple[pathlib.Path, str, Blueprint, list[str]]) -> None:
    folder, name, plan, files = task
    model = build_subnet(plan, **INTERFACE.build_options)
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    for layer in model.layers:  # with fresh statistics activations die, and int8 has no scales
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    for file in files:
        precision, form = file.split("-")
        content = convert_subnet(model, plan, INTERFACE, precision, images, form=form)
        (folder / f"{name}-{file}.tflite").write_bytes(content)


def _convert_keras(folder: pathlib.Path) -> int:
    """MobileNetV3Large as Keras has it, and its multiply-accumulates."""
    model = keras.applications.MobileNetV3Large(
        (RESOLUTION, RESOLUTION, 3), weights=None, classifier_activation=None
    )
    (folder / f"{_KERAS}-{_BASE}.tflite").write_bytes(convert(model, "float32"))
    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            pixels = int(np.prod(layer.output.shape[1:3]))
            total += pixels * int(np.prod(layer.kernel.shape))
    return total


def _measure(folder: pathlib.Path, rounds: int) -> dict[str, mobile_bench.Summary]:
    """What was measured of each file of a folder, by its name without the ending."""
    paths = sorted(folder.glob("*.tflite"))
    print(f"measures {len(paths)} files in {rounds} rounds", file=sys.stderr, flush=True)
    measurements = mobile_bench.measure(
        paths, rounds=rounds, num_runs=10, min_secs=0.3, warmup_min_secs=0.1
    )
    for measurement in measurements:
        append_json(folder / "measurements.jsonl", measurement.to_dict())
    return {pathlib.Path(s.model).stem: s for s in mobile_bench.summarize(measurements)}


def _of_files(
    names: Sequence[str], files: Sequence[str], summaries: dict[str, mobile_bench.Summary]
) -> Iterator[Record]:
    """Latencies of each file; then sizes and partitions of each format, a value for each subnet."""
    for name in names:
        found = {file: summaries[f"{name}-{file}"].round_us for file in files}
        times = {file: tuple(us / 1e3 for us in rounds) for file, rounds in found.items()}
        yield from _against_base(name, "ms", times, "rounds")
    of_file = {file: [summaries[f"{name}-{file}"] for name in names] for file in files}
    sizes = {file: tuple(one.size_bytes / 1e3 for one in found) for file, found in of_file.items()}
    yield from _against_base("all subnets", "kB", sizes, "subnets")
    for file, found in of_file.items():
        counts = tuple(float(one.delegation.partitions) for one in found)
        goal = "all <= 1" if file == "int8-cpu" else ""
        case = f"all subnets, {file}"
        yield Record(_HOW, case, "delegate partitions", counts, goal=goal, of="subnets")


def _against_base(
    case: str, unit: str, values: dict[str, tuple[float, ...]], of: str
) -> Iterator[Record]:
    """The values of each file against those of the base, which itself is against nothing."""
    for file, ours in values.items():
        other = {} if file == _BASE else {"reference": values[_BASE], "against": _BASE}
        yield Record(_HOW, f"{case}, {file}", unit, ours, **other, of=of)


def _per_mac(macs: dict[str, int], summaries: dict[str, mobile_bench.Summary]) -> Iterator[Record]:
    """Time per million multiply-accumulates of each float32 file in the cpu form."""
    found = {name: summaries[f"{name}-{_BASE}"].round_us for name in macs}
    times = {name: tuple(us * 1e6 / macs[name] for us in found[name]) for name in macs}
    title, keras_times = f"time per multiply-accumulate, {_BASE}", times.pop(_KERAS)
    for name, ours in times.items():
        yield Record(title, name, "us per million", ours, keras_times, _KERAS, of="rounds")


if __name__ == "__main__":
    main()
