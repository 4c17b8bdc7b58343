"""ofa-train: trains a supernet by progressive shrinking.

    ofa-train --flagfile=flags/cifar10/progressive_shrinking.flags --data_dir=PATH --workdir=DIR

Run the same command again to go on after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable

from absl import flags

from ofa_tf.cli import common
from ofa_tf.errors import UsageError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("space", "ofa_mbv3_w1.0", "Search space; a wrong name lists all.")
    flags.DEFINE_string("dataset", None, "TFDS image-classification set, e.g. ofa_doodles.")
    flags.DEFINE_string("data_dir", None, "Folder of images in train/ and test/ class folders.")
    flags.DEFINE_string("train_split", None, "TFDS split of the training images.")
    flags.DEFINE_string("test_split", None, "TFDS split of the test images.")
    flags.DEFINE_string("tfds_dir", None, "Where prepared TFDS sets are; TFDS's own by default.")
    flags.DEFINE_integer("num_validation", None, "Training images held out; 10 % by default.")
    flags.DEFINE_list("resolutions", None, "Pixels, drawn per step; all of the space by default.")
    flags.DEFINE_list(
        "phases",
        ["largest", "kernel", "depth1", "depth2", "expand1", "expand2"],
        "Phases to run, in this order.",
    )
    flags.DEFINE_list("epochs", None, "Epochs of each phase.")
    flags.DEFINE_list("warmup_epochs", None, "Epochs of warm-up of each phase; 0 by default.")
    flags.DEFINE_list("base_lr", None, "Peak learning rate of each phase, for 64 images a step.")
    flags.DEFINE_list("subnets_per_step", None, "Subnets per step of each phase; 1 by default.")
    flags.DEFINE_integer("batch_size", 128, "Images per step.", lower_bound=1)
    flags.DEFINE_float("momentum", 0.9, "Of Nesterov SGD.", 0.0, 1.0)
    flags.DEFINE_float("weight_decay", 3e-5, "On kernels only.", 0.0)
    flags.DEFINE_float("label_smoothing", 0.1, "Share of a label spread over all.", 0.0, 1.0)
    flags.DEFINE_float("kd_ratio", 1.0, "Weight of the teacher's probabilities.", 0.0)
    flags.DEFINE_float("crop_scale_min", 0.08, "Least share of the image in a random crop.", 0, 1)
    flags.DEFINE_bool("flip", None, "Mirror training images; where the classes allow by default.")
    flags.DEFINE_float("brightness", 32 / 255, "Random brightness.", 0.0, 1.0)
    flags.DEFINE_float("saturation", 0.5, "Random saturation.", 0.0, 1.0)
    flags.DEFINE_float("eval_crop", 0.875, "Share of the image that evaluation sees.", 0.0, 1.0)
    flags.DEFINE_integer("calibration_images", 2000, "For batch-norm recalibration.", 1)
    flags.DEFINE_integer("seed", 0, "Of weights, images and subnets.", 0)
    flags.DEFINE_float("checkpoint_minutes", 2.0, "Time between checkpoints.", 0.0)


def train() -> None:
    """Trains, or goes on training, the job that FLAGS describe."""
    from ofa_tf.spaces import get_space

    space = get_space(FLAGS.space)  # before TensorFlow's slow import, so that a typo ends fast
    common.import_tensorflow()
    recipe = _recipe(space)
    data_config = {
        name: getattr(FLAGS, name)
        for name in (
            "dataset",
            "data_dir",
            "train_split",
            "test_split",
            "tfds_dir",
            "num_validation",
            "flip",
            "seed",
        )
    }
    workdir = common.workdir()
    import keras

    from ofa_tf.models import Supernet
    from ofa_tf.training.calibration import SubnetEvaluator
    from ofa_tf.training.trainer import Trainer

    data = common.load_data(data_config, workdir)
    keras.utils.set_random_seed(FLAGS.seed)
    supernet = Supernet(space, data.num_classes)
    evaluator = SubnetEvaluator(
        supernet,
        data,
        calibration_images=FLAGS.calibration_images,
        eval_crop=FLAGS.eval_crop,
    )
    trainer = Trainer(supernet, data, recipe, workdir, evaluator, FLAGS.checkpoint_minutes)
    # All is checked by now: settings that cannot work are not recorded.
    workdir.start(
        {
            "space": space.name,
            "data": data_config,
            "class_names": data.class_names,
            "eval_crop": FLAGS.eval_crop,
            "calibration_images": FLAGS.calibration_images,
            "recipe": recipe.to_dict(),
        }
    )
    trainer.fit()
    common.log.info("Trained. The supernet is in %s.", workdir.checkpoints)


def _recipe(space):
    """The recipe that FLAGS describe, checked."""
    from ofa_tf.data import Augmentation
    from ofa_tf.training.phases import Phase, Recipe

    columns = zip(
        FLAGS.phases,
        _per_phase("epochs", common.numbers),
        _per_phase("base_lr", common.numbers),
        _per_phase("warmup_epochs", common.numbers, default=0.0),
        _per_phase("subnets_per_step", common.whole_numbers, default=1),
        strict=True,
    )
    resolutions = common.whole_numbers("resolutions") or space.resolutions
    return Recipe(
        phases=tuple(Phase(*column) for column in columns),
        batch_size=FLAGS.batch_size,
        # Checked to be of the space.
        resolutions=space.restrict(resolutions=resolutions).resolutions,
        momentum=FLAGS.momentum,
        weight_decay=FLAGS.weight_decay,
        label_smoothing=FLAGS.label_smoothing,
        kd_ratio=FLAGS.kd_ratio,
        augmentation=Augmentation(
            FLAGS.crop_scale_min,
            flip=FLAGS.flip is not False,
            brightness=FLAGS.brightness,
            saturation=FLAGS.saturation,
        ),
        seed=FLAGS.seed,
    )


def _per_phase(flag: str, read: Callable[[str], list], default: float | None = None) -> list:
    """A list flag with a number for each phase; the default for each where it is not given."""
    values, count = read(flag), len(FLAGS.phases)
    if not values and default is not None:
        return [default] * count
    if len(values) != count:
        raise UsageError(
            f"--{flag} needs a number for each of the {count} phases, not {len(values)}."
        )
    return values


def main() -> None:
    define_flags()
    common.define_workdir()
    common.run(train, __doc__)


if __name__ == "__main__":
    main()
