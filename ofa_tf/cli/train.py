"""ofa-train: trains a supernet by progressive shrinking.

    ofa-train --flagfile=flags/cifar10/progressive_shrinking.flags --data_dir=PATH --workdir=DIR

Run the same command again to go on after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from absl import flags

from ofa_tf.cli import common
from ofa_tf.errors import UsageError
from ofa_tf.job import load_data
from ofa_tf.quiet import import_tensorflow

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("space", "ofa_mbv3_w1.0", "Search space; a wrong name lists all.")
    common.define_data()
    _define_recipe_flags()
    _define_run_flags()


def _define_recipe_flags() -> None:
    flags.DEFINE_enum(
        "schedule",
        "progressive",
        ["progressive", "sandwich"],
        "Progressive shrinking in phases, or the sandwich rule in one phase.",
    )
    flags.DEFINE_list("phases", None, "Phases to run, in order; all of the schedule by default.")
    flags.DEFINE_list("epochs", None, "Epochs of each phase.")
    flags.DEFINE_list("warmup_epochs", None, "Epochs of warm-up of each phase; 0 by default.")
    flags.DEFINE_list("base_lr", None, "Peak learning rate of each phase, for 64 images a step.")
    flags.DEFINE_list(
        "subnets_per_step",
        None,
        "Subnets per step of each phase; by default 1, for the sandwich 4: the largest, the "
        "smallest and 2 random ones.",
    )
    flags.DEFINE_list("resolutions", None, "Pixels, drawn per step; all of the space by default.")
    flags.DEFINE_integer("batch_size", 128, "Images per step, over all replicas.", lower_bound=1)
    flags.DEFINE_integer("accumulation_steps", 1, "Micro-batches per step and replica.", 1)
    flags.DEFINE_float("momentum", 0.9, "Of Nesterov SGD.", 0.0, 1.0)
    flags.DEFINE_float("weight_decay", 3e-5, "On kernels only.", 0.0)
    flags.DEFINE_float(
        "clip_norm", None, "Largest norm of the gradients, 0 for any; the sandwich's default is 1."
    )
    flags.DEFINE_float("ema_decay", 0.0, "Of the moving average of the weights; 0 for none.")
    flags.DEFINE_float("label_smoothing", 0.1, "Share of a label spread over all.", 0.0, 1.0)
    flags.DEFINE_float("kd_ratio", 1.0, "Weight of the teacher's loss.", 0.0)
    flags.DEFINE_enum(
        "kd_loss",
        "cross_entropy",
        ["cross_entropy", "mse"],
        "Distance to the teacher: of probabilities, or of logits.",
    )
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16", "float16"],
        "Of the computation: bfloat16 for CPUs and TPUs, float16 for GPUs.",
    )
    flags.DEFINE_float("crop_scale_min", 0.08, "Least share of the image in a random crop.", 0, 1)
    flags.DEFINE_float("brightness", 32 / 255, "Random brightness.", 0.0, 1.0)
    flags.DEFINE_float("saturation", 0.5, "Random saturation.", 0.0, 1.0)
    flags.DEFINE_integer("randaugment_layers", 0, "RandAugment's operations per image.", 0)
    flags.DEFINE_float("randaugment_magnitude", 9.0, "Their strength.", 0.0, 10.0)
    flags.DEFINE_float("mixup_alpha", 0.0, "Of mixup's Beta distribution; 0 for none.", 0.0)
    flags.DEFINE_string(
        "init", None, "Checkpoint to start from, e.g. DIR/checkpoints/phase_kernel.npz."
    )


def _define_run_flags() -> None:
    flags.DEFINE_enum(
        "strategy",
        "one_device",
        ["one_device", "mirrored", "multi_worker", "tpu"],
        "One device, all GPUs of this host, workers by TF_CONFIG, or a TPU.",
    )
    flags.DEFINE_string("tpu", "", "Name or address of the TPU.")
    flags.DEFINE_enum(
        "elastic",
        "slice",
        ["slice", "mask"],
        "Compute what is active, or the largest shapes with zeros in them (for XLA and TPUs).",
    )
    flags.DEFINE_bool("xla", False, "Compile with XLA; with --elastic=mask.")
    flags.DEFINE_bool("deterministic", False, "The same weights, bit for bit, in every run.")
    flags.DEFINE_bool("allow_recipe_change", False, "Go on with another recipe.")
    flags.DEFINE_float("checkpoint_minutes", 2.0, "Time between checkpoints.", 0.0)
    flags.DEFINE_integer("keep_checkpoints", 2, "Newest checkpoints that are kept.", 1)
    flags.DEFINE_integer("eval_epochs", 1, "Corner subnets are evaluated every so many epochs.", 1)
    flags.DEFINE_integer("eval_images", None, "On so many images; all held out by default.", 1)
    flags.DEFINE_list(
        "eval_resolutions", None, "At these pixels; by default the least and the most trained."
    )
    flags.DEFINE_integer(
        "max_skipped_steps", 20, "Steps in a row without finite gradients that end the run.", 1
    )


def train() -> None:
    """Trains, or goes on training, the job that FLAGS describe."""
    from ofa_tf.spaces import get_space

    space = get_space(FLAGS.space)  # before TensorFlow's slow import, so that a typo ends fast
    import_tensorflow()
    import tensorflow as tf

    from ofa_tf.training.strategy import (
        chief_first,
        is_chief,
        lost_worker_told,
        make_strategy,
        skip_graph_optimizer,
    )

    recipe = _recipe(space)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = make_strategy(FLAGS.strategy, FLAGS.tpu)
    skip_graph_optimizer()
    workdir = common.workdir()
    data_config = common.data_config()
    with chief_first(strategy):
        data = load_data(data_config, workdir)
    with lost_worker_told(strategy):  # weights are made by all workers together
        trainer = _trainer(space, data, recipe, workdir, strategy)
    config = {
        "space": space.name,
        "data": data_config,
        "class_names": data.class_names,
        "eval_crop": FLAGS.eval_crop,
        "calibration_images": FLAGS.calibration_images,
        "init": FLAGS.init,
        "recipe": recipe.to_dict(),
    }
    workdir.check(config, FLAGS.allow_recipe_change)
    trainer.restore()
    # All is checked by now: settings that cannot work are not recorded.
    if is_chief(strategy):
        workdir.start(config, FLAGS.allow_recipe_change)
    trainer.fit()
    common.log.info("Trained. The supernet is in %s.", workdir.checkpoints)


def _trainer(space, data, recipe, workdir, strategy):
    """The Trainer that FLAGS describe."""
    import keras

    from ofa_tf.models import Supernet
    from ofa_tf.training.calibration import SubnetEvaluator
    from ofa_tf.training.trainer import RunSettings, Trainer

    keras.utils.set_random_seed(FLAGS.seed)
    with strategy.scope():
        supernet = Supernet(
            space, data.num_classes, elastic=FLAGS.elastic, dtype=recipe.dtype_policy
        )
    evaluator = SubnetEvaluator(
        supernet,
        data,
        limit=FLAGS.eval_images,
        calibration_images=FLAGS.calibration_images,
        eval_crop=FLAGS.eval_crop,
        strategy=strategy,
    )
    settings = RunSettings(
        checkpoint_minutes=FLAGS.checkpoint_minutes,
        keep_checkpoints=FLAGS.keep_checkpoints,
        eval_epochs=FLAGS.eval_epochs,
        eval_resolutions=tuple(common.whole_numbers("eval_resolutions")),
        max_skipped_steps=FLAGS.max_skipped_steps,
        xla=FLAGS.xla,
    )
    return Trainer(
        supernet, data, recipe, workdir, evaluator, settings, strategy=strategy, init=FLAGS.init
    )


def _recipe(space):
    """The recipe that FLAGS describe, checked."""
    from ofa_tf.data import Augmentation
    from ofa_tf.training.phases import SANDWICH, SCHEDULES, Phase
    from ofa_tf.training.recipe import Recipe

    known = SCHEDULES[FLAGS.schedule]
    names = FLAGS.phases or known
    for name in names:
        if name not in known:
            raise UsageError(
                f"--schedule={FLAGS.schedule} has no phase {name!r}; known: {', '.join(known)}."
            )
    sandwich = FLAGS.schedule == SANDWICH
    columns = zip(
        names,
        _per_phase("epochs", common.numbers, names),
        _per_phase("base_lr", common.numbers, names),
        _per_phase("warmup_epochs", common.numbers, names, 0.0),
        _per_phase("subnets_per_step", common.whole_numbers, names, 4 if sandwich else 1),
        strict=True,
    )
    resolutions = common.whole_numbers("resolutions") or space.resolutions
    clip_norm = FLAGS.clip_norm
    if clip_norm is None:
        clip_norm = 1.0 if sandwich else 0.0
    return Recipe(
        phases=tuple(Phase(*column) for column in columns),
        batch_size=FLAGS.batch_size,
        # Checked to be of the space.
        resolutions=space.restrict(resolutions=resolutions).resolutions,
        momentum=FLAGS.momentum,
        weight_decay=FLAGS.weight_decay,
        label_smoothing=FLAGS.label_smoothing,
        kd_ratio=FLAGS.kd_ratio,
        kd_loss=FLAGS.kd_loss,
        clip_norm=clip_norm,
        accumulation_steps=FLAGS.accumulation_steps,
        ema_decay=FLAGS.ema_decay,
        mixup_alpha=FLAGS.mixup_alpha,
        precision=FLAGS.precision,
        augmentation=Augmentation(
            FLAGS.crop_scale_min,
            flip=FLAGS.flip is not False,
            brightness=FLAGS.brightness,
            saturation=FLAGS.saturation,
            randaugment_layers=FLAGS.randaugment_layers,
            randaugment_magnitude=FLAGS.randaugment_magnitude,
        ),
        seed=FLAGS.seed,
    )


def _per_phase(
    flag: str, read: Callable[[str], list], phases: Sequence[str], default: float | None = None
) -> list:
    """A list flag with a number for each phase; the default for each where it is not given."""
    values = read(flag)
    if not values and default is not None:
        return [default] * len(phases)
    if len(values) != len(phases):
        raise UsageError(
            f"--{flag} needs a number for each of the {len(phases)} phases, not {len(values)}."
        )
    return values


def main() -> None:
    define_flags()
    common.define_workdir()
    common.run(train, __doc__)


if __name__ == "__main__":
    main()
