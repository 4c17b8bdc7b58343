"""ofa-latency: measures the blocks of a space and makes its latency table.

    ofa-latency --workdir=DIR --target=host
    ofa-latency --workdir=DIR --target=R58M12ABCDE --benchmark_binary=tools/ --cpus=big

Run the same command again to go on after an interruption. Latencies do not depend on weights: with
a --space, no job is needed, and ofa-search takes the table by --latency_table.

    ofa-latency --workdir=DIR --space=ofa_mbv3_w1.0 --num_classes=1000 \
        --latency_resolutions=160,192,224
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

import mobile_bench
from ofa_tf.cli import common
from ofa_tf.errors import UsageError
from ofa_tf.job import Job
from ofa_tf.quiet import import_tensorflow
from ofa_tf.spaces import Blueprint, SearchSpace, get_space
from ofa_tf.workdir import Workdir

if TYPE_CHECKING:
    import keras

    from ofa_tf.search import LatencyTable

FLAGS = flags.FLAGS

_NUM_CALIBRATION = 2  # inputs that calibrate int8 models; accuracy does not matter here
_BATCH = 50  # models that a phone runs in one go, between two looks at its temperature


def define_flags() -> None:
    flags.DEFINE_list(
        "latency_resolutions",
        None,
        "Pixels at which blocks are measured, and between which the table answers; three over "
        "all of the space by default.",
    )
    flags.DEFINE_float("latency_min_secs", 0.02, "Seconds of timed runs per model and round.", 0.0)
    flags.DEFINE_integer(
        "latency_rounds",
        5,
        "Times that every model is measured; up to twice as many if disturbed.",
        1,
    )
    flags.DEFINE_integer("fit_subnets", 20, "Whole subnets that correct the table.", 2)
    flags.DEFINE_integer("check_subnets", 20, "Others that tell how good it is.", 1)


def latency() -> None:
    """Makes the table, unless it is there, and says how good it is."""
    workdir = common.workdir()
    space, num_classes = _measured_space(workdir)
    path = common.latency_file(workdir)
    if path.exists():
        _check_kept(path, space)
        common.log.info("%s is there already; remove it to measure anew.", path)
        return
    resolutions = common.whole_numbers("latency_resolutions")
    if resolutions:
        space.restrict(resolutions=resolutions)  # an error before any work
    if FLAGS.target == "all" or "," in FLAGS.target:
        raise UsageError(f"A latency table is of one device: give its serial, not {FLAGS.target}.")
    _measure_models([])  # opens the device: an error before any conversion
    table = _measure(space, num_classes, path, resolutions)
    common.print_result(_summary(table))
    common.log.info("The latency table is %s.", path)


def _check_kept(path: pathlib.Path, space: SearchSpace) -> None:
    """Raises UsageError where ofa-search would refuse the table that is there."""
    from ofa_tf.search import LatencyTable

    try:
        LatencyTable.load(path, space, FLAGS.tflite_precision, FLAGS.form)
    except UsageError as error:
        raise UsageError(f"{error} ofa-latency measures anew once {path} is removed.") from error


def _measured_space(workdir: Workdir) -> tuple[SearchSpace, int]:
    """The space and the number of classes: those of the job, or of the flags where is none."""
    space, num_classes = FLAGS["space"].value, None
    if "num_classes" in FLAGS:  # not in ofa-quickstart, which has a job
        num_classes = FLAGS["num_classes"].value
    if not workdir.config_file.exists() and space is not None:
        if num_classes is None:
            raise UsageError("Give --num_classes: the last layer's latency depends on it.")
        return get_space(space), num_classes
    job = Job(workdir)  # an error where there is none
    same_space = space is None or get_space(space).name == job.space.name
    if not same_space or num_classes not in (None, len(job.class_names)):
        raise UsageError(
            f"{workdir.path} holds a job of {job.space.name} with {len(job.class_names)} classes. "
            f"Leave out --space and --num_classes, or give another --workdir."
        )
    if space is not None:
        workdir.check_space(get_space(space))
    return job.space, len(job.class_names)


def _measure(
    space: SearchSpace, num_classes: int, path: pathlib.Path, resolutions: list[int]
) -> LatencyTable:
    """Measures with a progress bar each for conversions and measurements."""
    import_tensorflow()
    from ofa_tf.search import build_latency_table

    with contextlib.ExitStack() as stack:
        updates = {}
        for what in ("convert", "measure"):
            bar, updates[what] = common.progress_bar(desc=f"{what} blocks", unit="model")
            stack.enter_context(bar)
        return build_latency_table(
            space,
            num_classes,
            convert=_converter(FLAGS.tflite_precision, FLAGS.form),
            measure=_measure_models,
            path=path,
            precision=FLAGS.tflite_precision,
            form=FLAGS.form,
            resolutions=resolutions,
            rounds=FLAGS.latency_rounds,
            num_fit=FLAGS.fit_subnets,
            num_check=FLAGS.check_subnets,
            progress=lambda what, done, total: updates[what](done, total),
        )


def _measure_models(
    paths: Sequence[str], on_result: Callable[[mobile_bench.Measurement], None] | None = None
) -> None:
    """Measures each model once; build_latency_table does the rounds."""
    mobile_bench.measure(
        paths,
        target=FLAGS.target,
        threads=FLAGS.threads,
        cpus=FLAGS.cpus,
        delegate=FLAGS.delegate,
        rounds=1,
        num_runs=10,
        min_secs=FLAGS.latency_min_secs,
        warmup_min_secs=FLAGS.latency_min_secs / 2,
        batch=_BATCH,
        benchmark_binary=FLAGS.benchmark_binary,
        adb_path=FLAGS.adb_path,
        on_result=on_result,
        notice=common.log.info,
    )


def _converter(precision: str, form: str) -> Callable[[Blueprint, bool], bytes]:
    """Converts networks as ofa-export does, but int8 ones calibrated on made-up inputs.

    Input and output of an int8 model are int8, so that no op at its border converts numbers.
    """
    from ofa_tf.data import MEAN, STD
    from ofa_tf.export import Interface, convert_subnet
    from ofa_tf.models import build_subnet

    def made(plan: Blueprint, takes_images: bool) -> bytes:
        interface = Interface((MEAN, STD), "pixels" if takes_images else "float32")
        model = build_subnet(plan, batch_size=1, **interface.build_options)
        shape, rng = (_NUM_CALIBRATION, *model.input_shape[1:]), np.random.default_rng(0)
        inputs = rng.uniform(0, 255, shape) if takes_images else rng.normal(size=shape)
        if precision == "int8":
            _normalize_activations(model, inputs)
        return convert_subnet(model, plan, interface, precision, inputs, form=form)

    return made


def _normalize_activations(model: keras.Model, inputs: np.ndarray) -> None:
    """Sets the statistics of batch norm to those of the inputs.

    With fresh ones, the activations of deep networks die, and a delegate refuses their scales.
    """
    for layer in model.layers:
        if hasattr(layer, "moving_variance"):
            layer.momentum = 0.0
    model(inputs, training=True)


def _summary(table: LatencyTable) -> str:
    """What was measured and how good the table is, in a few lines."""
    report, settings, device = table.report, table.setup["settings"], table.setup["device"]
    unseen = report["n"]
    lines = [
        f"{table.space.name} on {device['target']} ({device['cpu']}), {settings['threads']} "
        f"thread{'s' * (settings['threads'] > 1)}, {table.precision}: {len(table.block_ms)} blocks "
        f"at {', '.join(map(str, table.resolutions))} pixels",
        f"{'':30}{'mean error':>10}{'bias':>9}{'worst':>9}{'Kendall':>9}",
        _errors_line(f"{report['fitted']['n']} subnets it was fitted on", report["fitted"]),
        _errors_line(f"{unseen} subnets it never saw", report),
    ]
    between = report["interpolation"]
    if between["n"]:
        lines.append(_errors_line(f"{between['n']} interpolated blocks", between))
    slopes = table.slopes or {"block": table.slope}
    terms = " + ".join(f"{slope:.3f} x {kind}" for kind, slope in slopes.items())
    lines.append(f"Correction: {terms} + {table.constant_ms:.4f} ms")
    worst = max(
        report["subnets"], key=lambda row: abs(row["predicted_ms"] / row["measured_ms"] - 1)
    )
    lines.append(
        f"Worst: {worst['predicted_ms']:.3f} ms predicted, {worst['measured_ms']:.3f} ms measured "
        f"at {worst['arch']['r']} pixels, depths {worst['arch']['d']}"
    )
    interpolation = (
        f"interpolation {100 * between['mape']:.1f} %" if between["n"] else "no interpolation"
    )
    lines.append(
        f"Mean error on unseen subnets {100 * report['mape']:.1f} %, {interpolation}, rounds "
        f"differ by {100 * report['round_spread']:.1f} %."
    )
    if doubtful := report["doubtful"]:
        reason = "; ".join(next(iter(doubtful.values())))
        lines.append(f"{len(doubtful)} models had no valid round, the first one because: {reason}")
    return "\n".join(lines)


def _errors_line(what: str, errors: Mapping[str, Any]) -> str:
    tau = errors["kendall"]
    return (
        f"{what:<30}{100 * errors['mape']:>8.1f} %{100 * errors['bias']:>+7.1f} %"
        f"{100 * errors['worst']:>7.1f} %{'-' if tau is None else f'{tau:.3f}':>9}"
    )


def main() -> None:
    define_flags()
    # Not among the others, because ofa-quickstart has the --space of ofa-train.
    flags.DEFINE_string("space", None, "Name or FILE.py, for a workdir that holds no job.")
    flags.DEFINE_integer("num_classes", None, "Classes of the networks, for such a workdir.", 1)
    common.define_workdir()
    common.define_target()
    common.define_measuring()
    common.run(latency, __doc__)


if __name__ == "__main__":
    main()
