"""The loss of a subnet: cross-entropy with the labels, and with the teacher's probabilities."""

from __future__ import annotations

import tensorflow as tf


def smooth_labels(labels: tf.Tensor, num_classes: int, smoothing: float) -> tf.Tensor:
    """int32 (batch,) -> float32 (batch, classes), `smoothing` of it spread over all classes."""
    off = smoothing / num_classes
    return tf.one_hot(labels, num_classes, on_value=1.0 - smoothing + off, off_value=off)


def subnet_loss(
    logits: tf.Tensor,
    targets: tf.Tensor,
    teacher_logits: tf.Tensor | None = None,
    kd_ratio: float = 1.0,
) -> tf.Tensor:
    """Mean over the batch of CE(targets) + kd_ratio * CE(softmax of the teacher's logits).

    The distillation loss of Once-for-All (arXiv 1908.09791). All arguments but the last are
    (batch, classes).
    """
    loss = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    if teacher_logits is not None:
        soft_targets = tf.stop_gradient(tf.nn.softmax(teacher_logits))
        loss += kd_ratio * tf.nn.softmax_cross_entropy_with_logits(soft_targets, logits)
    return tf.reduce_mean(loss)
