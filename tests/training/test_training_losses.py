"""Label smoothing and the distillation losses, against NumPy; and which subnets a step draws."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ofa_tf.spaces import get_space
from ofa_tf.training.distillation import smooth_labels, subnet_loss
from ofa_tf.training.phases import PHASE_NAMES, Phase
from ofa_tf.training.sampler import step_archs

TINY = get_space("ofa_mbv3_tiny")


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
    loss = subnet_loss(logits["student"], targets, logits["teacher"], kd_weight=kd_ratio)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(("label_weight", "kd_weight"), [(1.0, 0.5), (0.0, 2.0), (1.0, 0.0)])
def test_loss_with_squared_distances(logits, label_weight, kd_weight):
    targets = smooth_labels(np.arange(6, dtype=np.int32) % 5, 5, 0.1)
    labels_loss = -(targets.numpy() * log_softmax(logits["student"])).sum(axis=1).mean()
    distance = ((logits["student"] - logits["teacher"]) ** 2).mean()
    loss = subnet_loss(
        logits["student"],
        targets,
        logits["teacher"],
        label_weight=label_weight,
        kd_weight=kd_weight,
        kd_loss="mse",
    )
    np.testing.assert_allclose(loss, label_weight * labels_loss + kd_weight * distance, rtol=1e-5)


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


def phase(name: str, count: int) -> Phase:
    return Phase(name, 1, 0.1, subnets_per_step=count)


def test_subnets_are_a_function_of_seed_and_step():
    drawn = step_archs(phase("expand2", 4), TINY, 3, 17)
    assert drawn == step_archs(phase("expand2", 4), TINY, 3, 17)
    assert len(drawn) == 4
    for seed, step in ((3, 18), (4, 17)):
        assert drawn != step_archs(phase("expand2", 4), TINY, seed, step)


def test_a_sandwich_has_the_ends_and_random_subnets():
    steps = [step_archs(phase("sandwich", 4), TINY, 0, step) for step in range(20)]
    assert {archs[0] for archs in steps} == {TINY.max()}
    assert {archs[1] for archs in steps} == {TINY.min()}
    assert all(len(archs) == 4 for archs in steps)
    assert len({arch for archs in steps for arch in archs[2:]}) > 35
    assert step_archs(phase("sandwich", 2), TINY, 0, 0) == [TINY.max(), TINY.min()]


@pytest.mark.parametrize("name", PHASE_NAMES)
def test_subnets_stay_in_the_phase_and_reach_all_of_it(name):
    space = phase(name, 2).restrict(TINY)
    drawn = [arch for step in range(60) for arch in step_archs(phase(name, 2), space, 0, step)]
    for arch in drawn:
        assert space.arch(arch) == arch
    plain = [arch.to_dict() for arch in drawn]
    for key, choices in (
        ("d", space.depths),
        ("ks", space.kernel_sizes),
        ("e", space.expand_ratios),
    ):
        assert {value for arch in plain for value in arch[key] if value} >= set(choices)
