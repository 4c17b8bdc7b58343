"""ofa-export: subnets as Keras models, SavedModels and TFLite files, verified.

    ofa-export --workdir=DIR --formats=keras,tflite_float32,tflite_int8
    ofa-export --net_config=FILE --checkpoint=FILE --formats=keras,tflite_float32 --workdir=DIR

The first form cuts out the subnets that ofa-search chose, recalibrates, converts, verifies and
evaluates them, several at a time; the second builds the network of a published net.config.
--specialized=ID downloads one of the authors' specialized networks. Run the same command again to
go on after an interruption.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags
from tqdm import tqdm

from ofa_tf.cli import common
from ofa_tf.cli.export_task import (
    ExportTask,
    ImageOptions,
    ModelFile,
    ModelInMemory,
    QatOptions,
    prepare_process,
    run_task,
)
from ofa_tf.cli.processes import run_tasks
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import scratch_folder, write_bytes
from ofa_tf.job import Job
from ofa_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    import keras

    from ofa_tf.export import Interface, SubnetSpec, Thresholds
    from ofa_tf.spaces import Blueprint

FLAGS = flags.FLAGS

# Formats that are made with the help of training images.
_OF_IMAGES = ("tflite_int8", "tflite_int16x8", "tflite_qat")


def define_flags() -> None:
    flags.DEFINE_list(
        "formats",
        ["keras", "tflite_float32", "tflite_int8"],
        "What to write: keras, saved_model, and tflite_ with float32, float16, dynamic, int8, "
        "int16x8 or qat.",
    )
    flags.DEFINE_enum(
        "input",
        "pixels",
        ["pixels", "uint8", "float32"],
        "Images: pixels from 0 to 255 as float32 or uint8, normalized inside the network, or "
        "float32 that comes normalized.",
    )
    flags.DEFINE_enum("output", "logits", ["logits", "softmax"], "What the network gives.")
    flags.DEFINE_integer("int8_images", 200, "Training images that int8 is calibrated on.", 1)
    common.define_seed("calibration_seed", "Chooses these images.")
    flags.DEFINE_integer("qat_epochs", 0, "Train so long for int8, and write tflite_qat too.", 0)
    flags.DEFINE_float("qat_lr", 1e-3, "Largest step of that, relative to each weight.", 0.0)
    flags.DEFINE_integer("qat_batch_size", 64, "Images per step of that.", 1)
    flags.DEFINE_integer("test_images", None, "Evaluate on so many only; all by default.", 1)
    flags.DEFINE_integer("verify_images", 256, "Compare outputs on so many test images.", 1)
    flags.DEFINE_float(
        "min_agreement",
        None,
        "Least share of these that a file classifies as the Keras model does; by default 0.99 in "
        "float32 to 0.85 in int8, and 0.75 after training for int8.",
        0,
        1,
    )
    flags.DEFINE_float(
        "max_accuracy_drop",
        None,
        "Most points of accuracy that a file may lose against the Keras model; any number by "
        "default.",
        0,
        100,
    )
    flags.DEFINE_integer("jobs", None, "Processes; one for each core and subnet by default.", 1)


def _define_more_flags() -> None:
    """What ofa-quickstart has no use for, or has from another of its steps."""
    common.define_form()
    flags.DEFINE_integer("batch_size", 1, "Of the TFLite files.", 1)
    flags.DEFINE_enum(
        "weights",
        "supernet",
        ["supernet", "finetuned"],
        "Whose: ofa-finetune's, or the supernet's.",
    )
    flags.DEFINE_string("net_config", None, "Published net.config to build, instead of a search.")
    flags.DEFINE_string(
        "checkpoint", None, "PyTorch weights of that network; made-up ones, for timing, without."
    )
    flags.DEFINE_string("specialized", None, "Id of a published specialized network to download.")
    common.define_labels()


@common.writes_job
def export(weights: str = "supernet", batch_size: int = 1) -> None:
    """Exports every subnet in search.json that is not exported yet.

    Args:
        weights: "supernet" or "finetuned".
        batch_size: of the TFLite files.
    """
    formats = _formats()
    job = common.open_job()
    subnets = job.chosen_subnets()
    tuned = weights == "finetuned"
    sources = {row["name"]: job.finetuned(row["name"]) if tuned else job for row in subnets}
    tasks = [_task_of_arch(row, job, sources[row["name"]], formats, batch_size) for row in subnets]
    missing = [task for task in tasks if not _is_done(task)]
    processes = min(FLAGS.jobs or os.cpu_count() or 1, max(1, len(missing)))
    with scratch_folder(job.workdir.path) as scratch:
        ready = _cut_outs(missing, job, sources, scratch if processes > 1 else None)
        failures = _run_all(ready, missing, job, processes)
    _finish(tasks, failures, f"The subnets are in {job.workdir.subnets}.")


def _formats() -> tuple[str, ...]:
    """Those that the flags ask for."""
    import_tensorflow()
    from ofa_tf.export import check_formats

    formats = check_formats(FLAGS.formats)
    if FLAGS.qat_epochs:
        import ofa_tf.export.qat  # noqa: F401  # says at once what is not installed

        return check_formats([*formats, "tflite_qat"])
    if "tflite_qat" in formats:
        raise UsageError("tflite_qat is trained: say for how many epochs, --qat_epochs=N.")
    return formats


def _task_of_arch(
    subnet: dict, job: Job, source: Job, formats: tuple[str, ...], batch_size: int
) -> ExportTask:
    """The export of a chosen subnet with the weights of its source, without the model yet."""
    from ofa_tf.export import SubnetSpec

    spec = SubnetSpec.of_arch(
        subnet["name"],
        job.space,
        subnet["arch"],
        job.class_names,
        _interface(),
        f"{source.fingerprint}-{_describe_images()}",
        form=FLAGS.form,
        batch_size=batch_size,
    )
    folder, images = job.workdir.subnets / spec.name, _image_options(job)
    return ExportTask(spec, folder, formats, _thresholds(), images, _qat_options())


def _cut_outs(
    tasks: list[ExportTask], job: Job, sources: dict[str, Job], scratch: pathlib.Path | None
) -> Iterator[tuple[str, ExportTask]]:
    """The tasks with models, which are in files of the scratch folder for other processes."""
    from ofa_tf.export.keras_file import keras_file

    source = None
    for task in tasks:
        spec = task.spec
        if source is not sources[spec.name]:
            source = sources[spec.name]
            evaluator = source.evaluator("test")
        with evaluator.calibrated(spec.arch):
            model = source.supernet.subnet(
                spec.arch, name=spec.name, **spec.interface.build_options
            )
            classes = task.images.supernet_classes(source.supernet, job, spec)
        make_model = ModelInMemory(model)
        if scratch is not None:
            make_model = ModelFile(scratch / f"{spec.name}.keras")
            write_bytes(make_model.path, keras_file(model))
        yield spec.name, dataclasses.replace(task, make_model=make_model, supernet_classes=classes)


@common.writes_job
def export_network() -> None:
    """Exports the network of --net_config or --specialized."""
    from ofa_tf.interop import download_specialized, read_net_config

    if FLAGS.net_config and FLAGS.specialized:
        raise UsageError("give either --net_config or --specialized.")
    if FLAGS.specialized and FLAGS.checkpoint:
        raise UsageError("--specialized has its own weights: leave --checkpoint out.")
    workdir = common.workdir()
    config, checkpoint = FLAGS.net_config, FLAGS.checkpoint
    if FLAGS.specialized:
        config, checkpoint = download_specialized(FLAGS.specialized, workdir.path / "downloads")
    plan = read_net_config(config)
    if checkpoint is not None and not pathlib.Path(checkpoint).is_file():
        raise UsageError(f"--checkpoint={checkpoint} is no file.")
    formats = _formats()
    job = common.open_job() if workdir.config_file.exists() else None
    if job is not None and job.config["data"] is None:
        job = None  # without images it is of no use
    needing = [name.removeprefix("tflite_") for name in formats if name in _OF_IMAGES]
    if needing and job is None:
        raise UsageError(
            f"{', '.join(needing)} is calibrated on training images, but the --workdir holds no "
            "job with images: give one that does, or --formats=keras,tflite_float32."
        )
    _export_plan(plan, pathlib.Path(config), checkpoint, formats, job)


def _export_plan(
    plan: Blueprint,
    config: pathlib.Path,
    checkpoint: str | None,
    formats: tuple[str, ...],
    job: Job | None,
) -> None:
    from ofa_tf.export import SubnetSpec

    if job is not None and len(job.class_names) != plan.num_classes:
        raise UsageError(
            f"{config} has {plan.num_classes} classes, but the job in {job.workdir.path} has "
            f"{len(job.class_names)}. Give another --workdir."
        )
    if job is not None and FLAGS.labels:
        raise UsageError("--labels is for networks without images; these have names of their own.")
    files = [config, *([pathlib.Path(checkpoint)] if checkpoint else [])]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files]
    # Published files are called net.config, in a folder that has the network's name.
    name = config.resolve().parent.name if config.name == "net.config" else config.stem
    spec = SubnetSpec(
        name=name,
        plan=plan,
        class_names=job.class_names if job else common.read_labels(plan.num_classes),
        interface=_interface(),
        fingerprint="-".join([*hashes, _describe_images(), *_images_of(job)]),
        form=FLAGS.form,
        batch_size=FLAGS.batch_size,
    )
    task = ExportTask(
        spec,
        common.workdir().subnets / spec.name,
        formats,
        _thresholds(made_up=checkpoint is None),
        _image_options(job) if job else None,
        _qat_options(),
        make_model=lambda: _network(spec, config, checkpoint),
    )
    missing = [task for task in [task] if not _is_done(task)]
    if missing and checkpoint is None:
        common.log.warning("Without --checkpoint the weights are made up: good for timing only.")
    with scratch_folder(common.workdir().path):
        failures = _run_all(((spec.name, task) for task in missing), missing, job, processes=1)
    _finish([task], failures, f"The network is in {task.folder}." if missing else None)


def _network(spec: SubnetSpec, config: pathlib.Path, checkpoint: str | None) -> keras.Model:
    from ofa_tf.interop import load_specialized
    from ofa_tf.models import build_subnet

    options = {**spec.interface.build_options, "name": spec.name}
    if checkpoint is None:
        return build_subnet(spec.plan, **options)
    return load_specialized(config, checkpoint, **options)


def _interface() -> Interface:
    from ofa_tf.data import MEAN, STD
    from ofa_tf.export import Interface

    return Interface((MEAN, STD), FLAGS.input, FLAGS.output)


def _thresholds(made_up: bool = False) -> Thresholds:
    """Those of the flags; classes of made-up weights are decided by next to nothing."""
    from ofa_tf.export import Thresholds

    least = 0.0 if made_up and FLAGS.min_agreement is None else FLAGS.min_agreement
    return Thresholds(least, FLAGS.max_accuracy_drop)


def _image_options(job: Job) -> ImageOptions:
    return ImageOptions(
        str(job.workdir.path),
        FLAGS.int8_images,
        FLAGS.calibration_seed,
        FLAGS.test_images,
        FLAGS.verify_images,
    )


def _describe_images() -> str:
    """What the flags say of images, for the fingerprint."""
    flags_of_images = ("int8_images", "calibration_seed", "test_images", "verify_images")
    return "-".join(str(getattr(FLAGS, name)) for name in flags_of_images)


def _images_of(job: Job | None) -> list[str]:
    """Stands for the images of a job that has some on record."""
    return [job.images_fingerprint] if job and job.images_fingerprint else []


def _qat_options() -> QatOptions | None:
    if not FLAGS.qat_epochs:
        return None
    return QatOptions(FLAGS.qat_epochs, FLAGS.qat_lr, FLAGS.qat_batch_size)


def _is_done(task: ExportTask) -> bool:
    done = task.is_done()
    if done:
        common.log.info("%s is exported already.", task.folder)
    return done


def _run_all(
    ready: Iterator[tuple[str, ExportTask]],
    tasks: list[ExportTask],
    job: Job | None,
    processes: int,
) -> dict[str, str]:
    """Runs the tasks as they become ready; why some failed, by name."""
    if not tasks:
        return {}
    work = run_task if processes > 1 else functools.partial(run_task, job=job)
    with tqdm(total=sum(len(task.formats) for task in tasks), desc="export", unit="file") as bar:

        def report(told: tuple[int, str]) -> None:
            files, text = told
            bar.set_postfix_str(text, refresh=not files)
            bar.update(files)

        prepare = functools.partial(prepare_process, tempfile.gettempdir())
        return run_tasks(work, ready, processes, report, prepare)


def _finish(tasks: list[ExportTask], failures: dict[str, str], done: str | None) -> None:
    """Prints the table of all files that are there, and says what is not.

    Raises:
        FailureError: there are failures.
    """
    from ofa_tf.report import file_table

    print(file_table([row for task in tasks for row in task.rows()]))
    if failures:
        raise FailureError(
            f"{len(failures)} of {len(tasks)} failed, all else is there. "
            + " ".join(f"{name}: {reason}" for name, reason in failures.items())
        )
    if done:
        common.log.info("%s", done)


def main() -> None:
    define_flags()
    _define_more_flags()
    common.define_workdir()
    common.define_moved_images()
    common.run(_run, __doc__)


def _run() -> None:
    if FLAGS.net_config or FLAGS.specialized:
        if FLAGS.weights != "supernet":
            raise UsageError("--weights is for subnets that ofa-search chose.")
        export_network()
        return
    if FLAGS.checkpoint or FLAGS.labels:
        raise UsageError("--checkpoint and --labels go with --net_config or --specialized.")
    export(FLAGS.weights, FLAGS.batch_size)


if __name__ == "__main__":
    main()
