"""ofa-export: cuts out the subnets that ofa-search chose, as Keras models and TFLite files.

    ofa-export --workdir=DIR --formats=keras,tflite_float32,tflite_int8

Each is recalibrated, converted and evaluated on the test images. Run the same command again to go
on after an interruption.
"""

from __future__ import annotations

import numpy as np
from absl import flags
from tqdm import tqdm

from ofa_tf.cli import common

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list(
        "formats", ["keras", "tflite_float32", "tflite_int8"], "What to write; of these three."
    )
    flags.DEFINE_integer("int8_images", 200, "Training images that int8 is calibrated on.", 1)
    flags.DEFINE_integer("test_images", None, "Evaluate on so many only; all by default.", 1)


def export() -> None:
    """Exports every subnet in search.json that is not exported yet."""
    from ofa_tf.data import MEAN, STD
    from ofa_tf.export import SubnetSpec, check_formats, export_subnet, is_up_to_date
    from ofa_tf.spaces import Arch

    formats = check_formats(FLAGS.formats)
    job = common.Job(common.workdir())
    subnets = job.chosen_subnets()
    evaluator = job.evaluator("test")
    for subnet in tqdm(subnets, "export", unit="subnet"):
        spec = SubnetSpec(
            name=subnet["name"],
            space=job.space,
            arch=Arch.from_dict(subnet["arch"]),
            class_names=job.class_names,
            normalization=(MEAN, STD),
            fingerprint=f"{job.fingerprint}-{FLAGS.int8_images}-{FLAGS.test_images}",
        )
        folder = job.workdir.subnets / spec.name
        if is_up_to_date(spec, folder, formats, evaluated=True):
            common.log.info("%s is exported already.", folder)
            continue
        with evaluator.calibrated(spec.arch):
            export_subnet(
                job.supernet,
                spec,
                folder,
                formats=formats,
                calibration_images=_pixels(job, spec.arch.resolution),
                test_batches=job.data.eval_batches(
                    "test",
                    spec.arch.resolution,
                    100,
                    limit=FLAGS.test_images,
                    eval_crop=job.config["eval_crop"],
                    normalize=False,
                ),
            )
    common.log.info("The subnets are in %s.", job.workdir.subnets)


def _pixels(job: common.Job, resolution: int) -> np.ndarray:
    """Training images as raw pixels, (n, resolution, resolution, 3)."""
    batches = job.data.calibration_batches(
        resolution,
        1,
        min(FLAGS.int8_images, job.data.num_train),
        eval_crop=job.config["eval_crop"],
        normalize=False,
    )
    return np.concatenate([images for images, _ in batches])


def main() -> None:
    define_flags()
    common.define_workdir()
    common.run(export, __doc__)


if __name__ == "__main__":
    main()
