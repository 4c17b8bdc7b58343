"""Label smoothing and the distillation loss, against NumPy; and which subnets a step draws."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from training_helpers import TINY

from ofa_tf.training.distillation import smooth_labels, subnet_loss
from ofa_tf.training.phases import Phase
from ofa_tf.training.sampler import step_sizes


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 2, (6, 5)).astype(np.float32) for name in ("student", "teacher")}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smooth_labels(smoothing):
    labels = np.array([0, 3, 4, 1, 1, 2], np.int32)
    expected = np.eye(5)[labels] * (1 - smoothing) + smoothing / 5
    smoothed = smooth_labels(labels, 5, smoothing).numpy()
    np.testing.assert_allclose(smoothed, expected, atol=1e-7)
    np.testing.assert_allclose(smoothed.sum(axis=1), 1, atol=1e-6)


def test_loss_without_a_teacher_is_the_cross_entropy(logits):
    targets = smooth_labels(np.arange(6, dtype=np.int32) % 5, 5, 0.1)
    expected = -(targets.numpy() * log_softmax(logits["student"])).sum(axis=1).mean()
    np.testing.assert_allclose(subnet_loss(logits["student"], targets), expected, rtol=1e-5)


@pytest.mark.parametrize("kd_ratio", [0.0, 0.5, 1.0])
def test_loss_with_a_teacher_adds_its_soft_targets(logits, kd_ratio):
    targets = smooth_labels(np.arange(6, dtype=np.int32) % 5, 5, 0.1)
    log_probabilities = log_softmax(logits["student"])
    soft = np.exp(log_softmax(logits["teacher"]))
    expected = -((targets.numpy() + kd_ratio * soft) * log_probabilities).sum(axis=1).mean()
    loss = subnet_loss(logits["student"], targets, logits["teacher"], kd_ratio)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_teacher_gets_no_gradient(logits):
    student, teacher = tf.constant(logits["student"]), tf.constant(logits["teacher"])
    targets = smooth_labels(np.zeros(6, np.int32), 5, 0.1)
    with tf.GradientTape() as tape:
        tape.watch([student, teacher])
        loss = subnet_loss(student, targets, teacher)
    gradients = tape.gradient(loss, [student, teacher])
    assert gradients[1] is None
    soft = np.exp(log_softmax(logits["student"]))
    expected = (2 * soft - targets.numpy() - np.exp(log_softmax(logits["teacher"]))) / 6
    np.testing.assert_allclose(gradients[0], expected, atol=1e-6)


def test_subnets_are_a_function_of_seed_and_step():
    drawn = step_sizes(TINY, 3, 17, 4)
    np.testing.assert_array_equal(drawn, step_sizes(TINY, 3, 17, 4))
    assert drawn.shape == (4, TINY.num_positions, 4)
    assert drawn.dtype == np.int32
    for seed, step in ((3, 18), (4, 17)):
        assert not np.array_equal(drawn, step_sizes(TINY, seed, step, 4))


@pytest.mark.parametrize("name", ["largest", "kernel", "depth1", "expand1", "expand2"])
def test_subnets_stay_in_the_phase(name):
    space = Phase(name, 1, 0.1).restrict(TINY)
    drawn = np.concatenate([step_sizes(space, 0, step, 2) for step in range(60)])
    largest = TINY.sizes(TINY.max())
    active = drawn[..., 0] == 1
    assert set(drawn[..., 1][active]) == set(space.kernel_sizes)
    assert {bool(a) for a in active.all(axis=1)} == {len(space.depths) == 1, True}
    narrower = (drawn[..., 2] < largest[:, 2]) & active
    assert narrower.any() == (len(space.expand_ratios) > 1)
    widths = {
        int(width)
        for expand in space.expand_ratios
        for width in [
            block.mid_channels
            for block in TINY.uniform_blueprint(
                0, 0, TINY.expand_ratios.index(expand), 4
            ).elastic_blocks
        ]
    }
    assert set(drawn[..., 2][active].tolist()) <= widths
