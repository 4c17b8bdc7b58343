"""What ofa-train and ofa-finetune share: flags of a recipe and of a run, and how they are read."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from absl import flags

from ofa_tf.cli import common
from ofa_tf.errors import UsageError
from ofa_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

    from ofa_tf.training.trainer import RunSettings

FLAGS = flags.FLAGS


def define_recipe() -> None:
    """What decides the weights that come out, besides phases and images."""
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


def define_run() -> None:
    """How a run goes about its recipe."""
    flags.DEFINE_enum(
        "strategy",
        "one_device",
        ["one_device", "mirrored", "multi_worker", "tpu"],
        "One device (the first GPU, or the CPU), all GPUs of this host, workers by TF_CONFIG, or a "
        "TPU.",
    )
    flags.DEFINE_integer(
        "cores", None, "CPU cores to train on, where there is no GPU; by default all.", 1
    )
    flags.DEFINE_integer(
        "replicas",
        None,
        "That share a batch on these cores; by default as many as there are cores, so long as each "
        "has 32 images.",
        1,
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
    flags.DEFINE_integer("eval_epochs", 1, "Subnets are evaluated every so many epochs.", 1)
    flags.DEFINE_integer("eval_images", None, "On so many images; all held out by default.", 1)
    flags.DEFINE_integer(
        "max_skipped_steps", 20, "Steps in a row without finite gradients that end the run.", 1
    )


def recipe_settings(flip: bool | None) -> dict[str, Any]:
    """The fields of a `Recipe` that the flags of `define_recipe` give.

    Args:
        flip: mirror the training images where their classes allow it; False for never.
    """
    from ofa_tf.data import Augmentation

    return {
        "batch_size": FLAGS.batch_size,
        "momentum": FLAGS.momentum,
        "weight_decay": FLAGS.weight_decay,
        "label_smoothing": FLAGS.label_smoothing,
        "kd_ratio": FLAGS.kd_ratio,
        "kd_loss": FLAGS.kd_loss,
        "clip_norm": FLAGS.clip_norm or 0.0,
        "accumulation_steps": FLAGS.accumulation_steps,
        "ema_decay": FLAGS.ema_decay,
        "mixup_alpha": FLAGS.mixup_alpha,
        "precision": FLAGS.precision,
        "augmentation": Augmentation(
            FLAGS.crop_scale_min,
            flip=flip is not False,
            brightness=FLAGS.brightness,
            saturation=FLAGS.saturation,
            randaugment_layers=FLAGS.randaugment_layers,
            randaugment_magnitude=FLAGS.randaugment_magnitude,
        ),
    }


def run_settings(**others: Any) -> RunSettings:
    """The `RunSettings` that the flags of `define_run` give, with others."""
    from ofa_tf.training.trainer import RunSettings

    return RunSettings(
        checkpoint_minutes=FLAGS.checkpoint_minutes,
        keep_checkpoints=FLAGS.keep_checkpoints,
        eval_epochs=FLAGS.eval_epochs,
        max_skipped_steps=FLAGS.max_skipped_steps,
        xla=FLAGS.xla,
        **others,
    )


def sole_writer(strategy: tf.distribute.Strategy) -> contextlib.AbstractContextManager[None]:
    """Keeps the job to this process, if it is the one of the workers that writes."""
    from ofa_tf.training.strategy import is_chief

    return common.workdir().lock() if is_chief(strategy) else contextlib.nullcontext()


def start_strategy() -> tf.distribute.Strategy:
    """Where the flags say that a run takes place; before anything else touches TensorFlow."""
    import_tensorflow()
    import tensorflow as tf

    from ofa_tf.training.strategy import (
        available_cores,
        make_strategy,
        most_replicas,
        share_cores,
        skip_graph_optimizer,
    )

    one_device = FLAGS.strategy == "one_device"
    for flag in ("cores", "replicas"):
        if FLAGS[flag].value and not one_device:
            raise UsageError(
                f"--{flag} is for --strategy=one_device, on a CPU, not for {FLAGS.strategy}."
            )
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    if one_device and not tf.config.list_physical_devices("GPU"):
        cores = FLAGS.cores or available_cores()
        seen_together = FLAGS.batch_size // FLAGS.accumulation_steps  # by batch norm, undivided
        strategy = share_cores(cores, FLAGS.replicas or most_replicas(cores, seen_together))
        replicas = strategy.num_replicas_in_sync
        common.log.info(
            "Trains on %d CPU core%s%s.",
            cores,
            "s" * (cores > 1),
            f": {replicas} replicas, a batch shared out to them" * (replicas > 1),
        )
    else:
        strategy = make_strategy(FLAGS.strategy, FLAGS.tpu)
    skip_graph_optimizer()
    return strategy
