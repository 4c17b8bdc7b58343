"""Measures the exported formats: size, operations, delegate partitions, latency, and the export.

    python benchmarks/export_formats.py --output=DIR

The largest, the smallest and two random subnets of each family at 224 px, with made-up weights, in
every format and in both forms, and keras.applications.MobileNetV3Large converted the same way. All
files are measured in turn on this host, one thread; ratios are to the subnet's float32 file in the
cpu form. What is converted is kept in DIR, and what is measured in DIR/measurements.jsonl. A second
table has the seconds to cut each of these subnets out of a supernet and to write its .keras file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pathlib
import tempfile
import time

import keras
import numpy as np
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
INTERFACE = Interface((MEAN, STD))


def main() -> None:
    args = _arguments()
    args.output.mkdir(parents=True, exist_ok=True)
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
        tasks = [(args.output, name, plan, args.files) for name, plan in plans.items()]
        list(tqdm(pool.imap(_convert_all, tasks, chunksize=1), "convert", len(tasks)))
        timed = pool.imap(_seconds_to_materialize, subnets.items(), chunksize=1)
        seconds = dict(zip(subnets, tqdm(timed, "materialize", len(subnets)), strict=True))
    if args.keras:
        macs["MobileNetV3Large"] = _convert_keras(args.output)
    paths = sorted(args.output.glob("*.tflite"))
    measured = {pathlib.Path(s.model).stem: s for s in _measure(paths, args)}
    rows = [_row(path, measured, macs) for path in paths]
    (args.output / "rows.json").write_text(json.dumps(rows, indent=1))
    _print(rows)
    _print_seconds(seconds)


def _archs(space_name: str, count: int) -> dict[str, Arch]:
    """The largest, the smallest and some random subnets."""
    space, rng = ofa_tf.get_space(space_name), np.random.default_rng(0)
    side = RESOLUTION if RESOLUTION in space.resolutions else max(space.resolutions)
    space = space.restrict(resolutions=[side])
    archs = {"largest": space.max(), "smallest": space.min()}
    return archs | {f"random{number}": space.sample(rng) for number in range(1, count + 1)}


def _seconds_to_materialize(task: tuple[str, dict[str, Arch]]) -> dict[str, tuple[float, float]]:
    """Seconds to cut each subnet out of a supernet, and to write its .keras file."""
    space_name, archs = task
    supernet, seconds = Supernet(ofa_tf.get_space(space_name), NUM_CLASSES), {}
    with tempfile.TemporaryDirectory() as folder:
        for which, arch in archs.items():
            start = time.perf_counter()
            model = supernet.subnet(arch, **INTERFACE.build_options)
            cut_out = time.perf_counter()
            model.save(pathlib.Path(folder, "model.keras"))
            seconds[which] = (cut_out - start, time.perf_counter() - cut_out)
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
    path = _path(folder, "MobileNetV3Large", "float32", "cpu")
    if not path.exists():
        path.write_bytes(convert(model, "float32"))
    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            pixels = int(np.prod(layer.output.shape[1:3]))
            total += pixels * int(np.prod(layer.kernel.shape))
    return total


def _measure(paths: list[pathlib.Path], args: argparse.Namespace) -> list:
    with tqdm(desc="measure", unit="round") as bar:

        def progress(done: int, steps: int, model: str) -> None:
            bar.total = steps
            bar.update(done - bar.n)

        measurements = mobile_bench.measure(
            paths,
            rounds=args.rounds,
            num_runs=10,
            min_secs=0.3,
            warmup_min_secs=0.1,
            progress=progress,
        )
    with open(args.output / "measurements.jsonl", "w") as file:
        file.writelines(json.dumps(m.to_dict()) + "\n" for m in measurements)
    return mobile_bench.summarize(measurements)


def _row(path: pathlib.Path, measured: dict, macs: dict[str, int]) -> dict:
    name, precision, form = path.stem.rsplit("-", 2)
    summary = measured[path.stem]
    base = measured[f"{name}-float32-cpu"].median_us
    ms = summary.median_us / 1e3
    return {
        "subnet": name,
        "precision": precision,
        "form": form,
        "kB": path.stat().st_size // 1000,
        "ops": summary.delegation.ops,
        "partitions": summary.delegation.partitions,
        "ops_outside": summary.delegation.ops_outside,
        "ms": ms,
        "ratio": ms * 1e3 / base,
        "us_per_mmac": ms * 1e9 / macs[name],
    }


def _print(rows: list[dict]) -> None:
    print("| subnet | file | form | kB | ops | partitions | ms | / float32 | us per M MACs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['subnet']} | {row['precision']} | {row['form']} | {row['kB']} | {row['ops']} "
            f"| {row['partitions']} | {row['ms']:.2f} | {row['ratio']:.2f} "
            f"| {row['us_per_mmac']:.1f} |"
        )


def _print_seconds(seconds: dict[str, dict[str, tuple[float, float]]]) -> None:
    print("\n| subnet | s to materialize | s to save | s in all |\n|---|---|---|---|")
    for space, archs in seconds.items():
        for which, (cut_out, saved) in archs.items():
            print(f"| {space}.{which} | {cut_out:.2f} | {saved:.2f} | {cut_out + saved:.2f} |")


def _path(folder: pathlib.Path, name: str, precision: str, form: str) -> pathlib.Path:
    return folder / f"{name}-{precision}-{form}.tflite"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
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
    return parser.parse_args()


if __name__ == "__main__":
    main()
