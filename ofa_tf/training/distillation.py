"""The loss of a subnet: cross-entropy with the labels, and distance to the teacher's logits."""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf

Weight: TypeAlias = float | tf.Tensor


def smooth_labels(labels: tf.Tensor, num_classes: int, smoothing: float) -> tf.Tensor:
    """int32 (batch,) -> float32 (batch, classes), `smoothing` of it spread over all classes."""
    off = smoothing / num_classes
    return tf.one_hot(labels, num_classes, on_value=1.0 - smoothing + off, off_value=off)


def subnet_loss(
    logits: tf.Tensor,
    targets: tf.Tensor,
    teacher_logits: tf.Tensor | None = None,
    *,
    label_weight: Weight = 1.0,
    kd_weight: Weight = 1.0,
    kd_loss: str = "cross_entropy",
) -> tf.Tensor:
    """Mean over the batch of label_weight * CE(targets) + kd_weight * distillation loss.

    The distillation loss is the cross-entropy with the softmax of the teacher's logits, or the
    mean squared difference of the logits (both forms of arXiv 1908.09791's released code). The
    teacher gets no gradient.

    Args:
        logits: float32 (batch, classes).
        targets: float32 (batch, classes).
        teacher_logits: float32 (batch, classes); None for the labels' loss alone.
        label_weight: of the loss with the labels.
        kd_weight: of the loss with the teacher.
        kd_loss: "cross_entropy" or "mse".
    """
    loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
    if teacher_logits is None:
        return loss
    teacher_logits = tf.stop_gradient(teacher_logits)
    if kd_loss == "mse":
        distance = tf.reduce_mean(tf.math.squared_difference(logits, teacher_logits))
    else:
        soft_targets = tf.nn.softmax(teacher_logits)
        distance = tf.nn.softmax_cross_entropy_with_logits(soft_targets, logits)
    return label_weight * loss + kd_weight * tf.reduce_mean(distance)
