"""ofa-export: subnets as Keras models and TFLite files.

    ofa-export --workdir=DIR --formats=keras,tflite_float32,tflite_int8
    ofa-export --net_config=FILE --checkpoint=FILE --formats=keras,tflite_float32 --workdir=DIR

The first form cuts out the subnets that ofa-search chose, recalibrates, converts and evaluates
them; the second builds the network of a published net.config. --specialized=ID downloads one of
the authors' specialized networks. Run the same command again to go on after an interruption.
"""

from __future__ import annotations

import hashlib
import pathlib
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from tqdm import tqdm

from ofa_tf.cli import common
from ofa_tf.errors import UsageError
from ofa_tf.job import Job
from ofa_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    import keras

    from ofa_tf.spaces import Blueprint

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list(
        "formats", ["keras", "tflite_float32", "tflite_int8"], "What to write; of these three."
    )
    flags.DEFINE_integer("int8_images", 200, "Training images that int8 is calibrated on.", 1)
    flags.DEFINE_integer("test_images", None, "Evaluate on so many only; all by default.", 1)


def _define_network_flags() -> None:
    flags.DEFINE_string("net_config", None, "Published net.config to build, instead of a search.")
    flags.DEFINE_string(
        "checkpoint", None, "PyTorch weights of that network; made-up ones, for timing, without."
    )
    flags.DEFINE_string("specialized", None, "Id of a published specialized network to download.")
    common.define_labels()


def export() -> None:
    """Exports every subnet in search.json that is not exported yet."""
    import_tensorflow()
    from ofa_tf.data import MEAN, STD
    from ofa_tf.export import SubnetSpec, check_formats, export_subnet, is_up_to_date

    formats = check_formats(FLAGS.formats)
    job = Job(common.workdir())
    subnets = job.chosen_subnets()
    evaluator = job.evaluator("test")
    for subnet in tqdm(subnets, "export", unit="subnet"):
        spec = SubnetSpec.of_arch(
            subnet["name"],
            job.space,
            subnet["arch"],
            job.class_names,
            (MEAN, STD),
            f"{job.fingerprint}-{FLAGS.int8_images}-{FLAGS.test_images}",
        )
        folder = job.workdir.subnets / spec.name
        if is_up_to_date(spec, folder, formats, evaluated=True):
            common.log.info("%s is exported already.", folder)
            continue
        with evaluator.calibrated(spec.arch):
            export_subnet(
                lambda spec=spec: job.supernet.subnet(
                    spec.arch, normalization=spec.normalization, name=spec.name
                ),
                spec,
                folder,
                formats=formats,
                **_images(job, spec.plan.resolution),
            )
    common.log.info("The subnets are in %s.", job.workdir.subnets)


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
    import_tensorflow()
    from ofa_tf.export import check_formats

    formats = check_formats(FLAGS.formats)
    job = Job(workdir) if workdir.config_file.exists() else None
    if "tflite_int8" in formats and (job is None or job.config["data"] is None):
        raise UsageError(
            "int8 is calibrated on training images, but the --workdir holds no job with images: "
            "give one that does, or --formats=keras,tflite_float32."
        )
    _export_plan(plan, pathlib.Path(config), checkpoint, formats, job)


def _export_plan(
    plan: Blueprint,
    config: pathlib.Path,
    checkpoint: str | None,
    formats: tuple[str, ...],
    job: Job | None,
) -> None:
    from ofa_tf.data import MEAN, STD
    from ofa_tf.export import SubnetSpec, export_subnet, is_up_to_date

    # The images of the job are of use where their classes are the network's.
    fits = job is not None and job.config["data"] and len(job.class_names) == plan.num_classes
    if job is not None and job.config["data"] and not fits:
        raise UsageError(
            f"{config} has {plan.num_classes} classes, but the job in {job.workdir.path} has "
            f"{len(job.class_names)}. Give another --workdir."
        )
    if fits and FLAGS.labels:
        raise UsageError("--labels is for networks without images; these have names of their own.")
    files = [config, *([pathlib.Path(checkpoint)] if checkpoint else [])]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files]
    # Published files are called net.config, in a folder that has the network's name.
    name = config.resolve().parent.name if config.name == "net.config" else config.stem
    spec = SubnetSpec(
        name=name,
        plan=plan,
        class_names=job.class_names if fits else common.read_labels(plan.num_classes),
        normalization=(MEAN, STD),
        fingerprint="-".join([*hashes, f"{FLAGS.int8_images}-{FLAGS.test_images}"]),
    )
    folder = common.workdir().subnets / spec.name
    if is_up_to_date(spec, folder, formats, evaluated=bool(fits)):
        common.log.info("%s is exported already.", folder)
        return
    if checkpoint is None:
        common.log.warning("Without --checkpoint the weights are made up: good for timing only.")
    images = _images(job, plan.resolution) if fits else {}
    export_subnet(
        lambda: _network(spec, config, checkpoint), spec, folder, formats=formats, **images
    )
    common.log.info("The network is in %s.", folder)


def _network(spec, config: pathlib.Path, checkpoint: str | None) -> keras.Model:
    from ofa_tf.interop import load_specialized
    from ofa_tf.models import build_subnet

    options = {"normalization": spec.normalization, "name": spec.name}
    if checkpoint is None:
        return build_subnet(spec.plan, **options)
    return load_specialized(config, checkpoint, **options)


def _images(job: Job, resolution: int) -> dict:
    """What `export_subnet` calibrates int8 on and evaluates on: raw pixels."""
    options = {"eval_crop": job.config["eval_crop"], "normalize": False}
    count = min(FLAGS.int8_images, job.data.num_train)
    batches = job.data.calibration_batches(resolution, 1, count, **options)
    return {
        "calibration_images": np.concatenate([images for images, _ in batches]),
        "test_batches": job.data.eval_batches(
            "test", resolution, 100, limit=FLAGS.test_images, **options
        ),
    }


def main() -> None:
    define_flags()
    _define_network_flags()
    common.define_workdir()
    common.run(_run, __doc__)


def _run() -> None:
    if FLAGS.net_config or FLAGS.specialized:
        export_network()
        return
    if FLAGS.checkpoint or FLAGS.labels:
        raise UsageError("--checkpoint and --labels go with --net_config or --specialized.")
    export()


if __name__ == "__main__":
    main()
