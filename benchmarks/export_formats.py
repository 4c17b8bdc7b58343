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
import json
import multiprocessing
import pathlib
import tempfile
import time
from collections.abc import Iterator

import keras
import numpy as np
import records
from records import Record
from tqdm import tqdm

import mobile_bench
import ofa_tf
from ofa_tf.data import MEAN, STD
from ofa_tf.export import Interface, convert, convert_subnet
from ofa_tf.models import Supernet, build_subnet
from ofa_tf.spaces import Arch, Blueprint

RESOLUTION, NUM_CLASSES = 224, 1000
# Precision and form of each file of a subnet.
FILES = (
    ("float32", "cpu"),
    ("float32", "plain"),
    ("float16", "cpu"),
    ("dynamic", "cpu"),
    ("int8", "cpu"),
    ("int8", "plain"),
)
_BASE = ("float32", "cpu")  # that the others are compared with
_KERAS = "MobileNetV3Large"  # of keras.applications
_HOW = f"{RESOLUTION} px, {NUM_CLASSES} classes, host, one thread"
INTERFACE = Interface((MEAN, STD))


def main() -> None:
    args = _arguments()
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
    summaries = _measure(sorted(folder.glob("*.tflite")), args.rounds, folder)
    yield from _of_files(plans, args.files, summaries)
    if args.keras:
        yield from _per_mac(macs, summaries)
    for space, archs in seconds.items():
        yield Record(
            f"{space}, {', '.join(archs)}",
            "materialize a subnet and write its .keras file",
            "s",
            tuple(archs.values()),
            goal="all <= 3" if space == "ofa_mbv3_w1.0" else "",
            of="subnets",
        )


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


def _convert_all(task: tuple[pathlib.Path, str, Blueprint, list[tuple[str, str]]]) -> None:
    folder, name, plan, files = task
    missing = [pair for pair in files if not _path(folder, name, *pair).exists()]
    if not missing:
        return
    model = build_subnet(plan, **INTERFACE.build_options)
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    for layer in model.layers:  # with fresh statistics activations die, and int8 has no scales
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    for precision, form in missing:
        content = convert_subnet(model, plan, INTERFACE, precision, images, form=form)
        _path(folder, name, precision, form).write_bytes(content)


def _convert_keras(folder: pathlib.Path) -> int:
    """MobileNetV3Large as Keras has it, and its multiply-accumulates."""
    model = keras.applications.MobileNetV3Large(
        (RESOLUTION, RESOLUTION, 3), weights=None, classifier_activation=None
    )
    path = _path(folder, _KERAS, "float32", "cpu")
    if not path.exists():
        path.write_bytes(convert(model, "float32"))
    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            pixels = int(np.prod(layer.output.shape[1:3]))
            total += pixels * int(np.prod(layer.kernel.shape))
    return total


def _measure(
    paths: list[pathlib.Path], rounds: int, folder: pathlib.Path
) -> dict[str, mobile_bench.Summary]:
    """What was measured of each file, by its name without the ending."""
    with tqdm(desc="measure", unit="round") as bar:

        def progress(done: int, steps: int, model: str) -> None:
            bar.total = steps
            bar.update(done - bar.n)

        measurements = mobile_bench.measure(
            paths,
            rounds=rounds,
            num_runs=10,
            min_secs=0.3,
            warmup_min_secs=0.1,
            progress=progress,
        )
    with open(folder / "measurements.jsonl", "w") as file:
        file.writelines(json.dumps(m.to_dict()) + "\n" for m in measurements)
    return {pathlib.Path(s.model).stem: s for s in mobile_bench.summarize(measurements)}


def _of_files(
    plans: dict[str, Blueprint],
    files: list[tuple[str, str]],
    summaries: dict[str, mobile_bench.Summary],
) -> Iterator[Record]:
    """Latencies of each file; then sizes and partitions of each format, a value for each subnet."""

    def of(name: str, file: tuple[str, str]) -> mobile_bench.Summary:
        return summaries[_path(pathlib.Path(), name, *file).stem]

    for name in plans:
        times = {file: tuple(us / 1e3 for us in of(name, file).round_us) for file in files}
        yield from _against_base(name, "ms", times, "rounds")
    sizes = {file: tuple(of(name, file).size_bytes / 1e3 for name in plans) for file in files}
    yield from _against_base("all subnets", "kB", sizes, "subnets")
    for file in files:
        yield Record(
            _HOW,
            f"all subnets, {'-'.join(file)}",
            "delegate partitions",
            tuple(float(of(name, file).delegation.partitions) for name in plans),
            goal="all <= 1" if file == ("int8", "cpu") else "",
            of="subnets",
        )


def _against_base(
    case: str, unit: str, values: dict[tuple[str, str], tuple[float, ...]], of: str
) -> Iterator[Record]:
    """The values of each file against those of the base, which itself is against nothing."""
    for file, ours in values.items():
        other = {} if file == _BASE else {"reference": values[_BASE], "against": "-".join(_BASE)}
        yield Record(_HOW, f"{case}, {'-'.join(file)}", unit, ours, **other, of=of)


def _per_mac(macs: dict[str, int], summaries: dict[str, mobile_bench.Summary]) -> Iterator[Record]:
    """Time per million multiply-accumulates of each float32 file in the cpu form."""

    def per_mac(name: str) -> tuple[float, ...]:
        times = summaries[_path(pathlib.Path(), name, *_BASE).stem].round_us
        return tuple(us * 1e6 / macs[name] for us in times)

    for name in macs:
        if name != _KERAS:
            yield Record(
                f"time per multiply-accumulate, {'-'.join(_BASE)}",
                name,
                "us per million",
                per_mac(name),
                per_mac(_KERAS),
                against=_KERAS,
                of="rounds",
            )


def _path(folder: pathlib.Path, name: str, precision: str, form: str) -> pathlib.Path:
    return folder / f"{name}-{precision}-{form}.tflite"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, help="folder that keeps the files")
    parser.add_argument(
        "--spaces",
        type=lambda text: text.split(","),
        default=["ofa_mbv3_w1.0", "ofa_proxyless_w1.3", "ofa_resnet50"],
    )
    parser.add_argument("--random", type=int, default=2, help="random subnets of each space")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--files",
        type=lambda text: [tuple(pair.split("-")) for pair in text.split(",")],
        default=list(FILES),
        help="such as float32-cpu,int8-cpu",
    )
    parser.add_argument("--keras", action=argparse.BooleanOptionalAction, default=True)
    records.add_flag(parser)
    args = parser.parse_args()
    if _BASE not in args.files:
        parser.error(
            f"--files: {'-'.join(_BASE)} must be among them, which the others are compared with"
        )
    return args


if __name__ == "__main__":
    main()
