"""One training step of each form against gradients computed by hand; one trace for all archs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from one_stage import TINY
from tensorflow.python.framework import kernels  # nowhere public: what kernels there are
from training_helpers import CLASSES, random_images, randomize, recipe, restore, values

from ofa_tf.layers import depthwise
from ofa_tf.models import Supernet
from ofa_tf.training.optimizer import Optimizer
from ofa_tf.training.phases import Phase
from ofa_tf.training.recipe import dtype_policy
from ofa_tf.training.sampler import mixup_share, step_archs
from ofa_tf.training.step import TrainStep

SEED, STEP, BATCH = 3, 5, 8
SPEC = (
    tf.TensorSpec([None, None, None, 3], tf.float32),
    tf.TensorSpec([None], tf.int32),
)
PROGRESSIVE = Phase("expand2", 1, 0.1, subnets_per_step=3)
SANDWICH = Phase("sandwich", 1, 0.1, subnets_per_step=4)


def make_step(supernet, phase: Phase, largest=None, **changes) -> TrainStep:
    """A step whose weights move by minus the gradients."""
    made = recipe(phase, batch_size=BATCH, seed=SEED, **changes)
    variables = supernet.trainable_variables
    return TrainStep(
        supernet,
        Optimizer(variables, [False] * len(variables), momentum=0.0),
        made,
        tf.distribute.get_strategy(),
        SPEC,
        teacher=phase.teacher,
        largest=largest,
        several=phase.subnets_per_step > 1,
    )


@pytest.fixture(scope="module")
def largest():
    """A trained largest net: other weights than those of the supernet."""
    largest = Supernet(TINY, len(CLASSES))
    randomize(largest, seed=1)
    return largest


def batch(side: int = 28, count: int = BATCH):
    labels = np.random.default_rng(side).integers(0, len(CLASSES), count).astype(np.int32)
    return tf.constant(random_images(count, side)), tf.constant(labels)


def one_hot(labels, smoothing: float = 0.1) -> np.ndarray:
    smooth = np.eye(len(CLASSES))[np.asarray(labels)] * (1 - smoothing) + smoothing / len(CLASSES)
    return smooth.astype(np.float32)


def cross_entropy(targets, logits):
    return -tf.reduce_mean(tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=1))


def dropout_seed(micro_batch: int, subnet: int | None = None):
    seed = tf.constant([SEED, STEP], tf.int64)
    for number in (micro_batch, subnet):
        if number is not None:
            number = tf.constant(number, tf.int64)
            seed = tf.random.experimental.stateless_fold_in(seed, number)
    return seed


@pytest.fixture(scope="module")
def plain(shared_supernet):
    """Loss, logits and gradients of one subnet, with none of the trainer's code.

    The loss is label * CE(targets) + kd * CE(softmax(teacher)) + mse * mean((logits - teacher)^2).
    """
    matrix = tf.TensorSpec([None, len(CLASSES)], tf.float32)
    scalar = tf.TensorSpec([], tf.float32)
    sizes = tf.TensorSpec(TINY.sizes_shape, tf.int32)
    seed = tf.TensorSpec([2], tf.int64)

    @tf.function(input_signature=[SPEC[0], sizes, seed, matrix, matrix, *[scalar] * 4])
    def run(images, sizes, seed, targets, teacher, dropout, label, kd, mse):
        options = {"training": True, "dropout_seed": seed, "dropout_scale": dropout}
        with tf.GradientTape() as tape:
            logits = shared_supernet(images, sizes, **options)
            loss = label * cross_entropy(targets, logits)
            loss += kd * cross_entropy(tf.nn.softmax(teacher), logits)
            loss += mse * tf.reduce_mean((logits - teacher) ** 2)
        variables = [variable.value for variable in shared_supernet.trainable_variables]
        return loss, logits, tape.gradient(loss, variables, unconnected_gradients="zero")

    def call(images, arch, targets, teacher=None, *, seed=(0, 0), dropout=1.0, **weights):
        teacher = np.zeros_like(targets) if teacher is None else teacher
        factors = [weights.get(name, default) for name, default in WEIGHTS.items()]
        seed = tf.constant(seed, tf.int64)
        factors = map(tf.constant, (dropout, *factors))
        found = run(images, TINY.sizes(arch), seed, targets, teacher, *factors)
        loss, logits, gradients = tf.nest.map_structure(lambda tensor: tensor.numpy(), found)
        return float(loss), logits, gradients

    return call


WEIGHTS = {"label": 1.0, "kd": 0.0, "mse": 0.0}


def added(*lists):
    return [np.sum(arrays, axis=0) for arrays in zip(*lists, strict=True)]


def sizes_of(archs) -> np.ndarray:
    return np.stack([TINY.sizes(arch) for arch in archs])


def assert_moved_by(supernet, before, gradients) -> None:
    """A shared scale for all: a weight whose true gradient is zero has rounding only."""
    scale = max(np.abs(gradient).max() for gradient in gradients)
    assert scale > 1e-2
    assert sum(np.abs(gradient).max() > 1e-3 * scale for gradient in gradients) > 20
    trainable = supernet.trainable_variables
    for variable, old, gradient in zip(trainable, before, gradients, strict=True):
        moved = old - variable.numpy()
        np.testing.assert_allclose(
            moved, gradient, rtol=2e-3, atol=2e-4 * scale, err_msg=variable.path
        )


def batch_norm_logits(net, images):
    """The largest net's, normalized with the statistics of the batch."""
    return net(images, "largest", bn_update=(1, 0)).numpy()


def test_progressive_sums_its_subnets_and_learns_from_the_largest(supernet, plain, largest):
    """And one trace serves other archs, numbers of subnets and resolutions."""
    step = make_step(supernet, PROGRESSIVE, largest, kd_ratio=0.7)
    archs = step_archs(PROGRESSIVE, TINY, SEED, STEP)
    images, labels = batch()
    state = values(supernet.variables)
    before = values(supernet.trainable_variables)
    teacher_before = values(largest.variables)
    soft = batch_norm_logits(largest, images)
    by_hand = [
        plain(images, arch, one_hot(labels), soft, kd=0.7, seed=dropout_seed(0, i))
        for i, arch in enumerate(archs)
    ]
    statistics = values(supernet.non_trainable_variables)
    restore(supernet.variables, state)
    result = step((images, labels), sizes_of(archs), 1.0, STEP, asked=[1, 0]).read()
    expected = added(*(gradients for *_, gradients in by_hand))
    assert_moved_by(supernet, before, expected)
    assert result.loss == pytest.approx(np.mean([loss for loss, *_ in by_hand]), rel=1e-4)
    norm = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in expected))
    assert result.gradient_norm == pytest.approx(norm, rel=1e-3)
    assert result.applied
    assert result.asked.tolist() == [1, 0]
    # The subnets' statistics were taken over one after the other; the teacher's stay.
    for a, b in zip(values(supernet.non_trainable_variables), statistics, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    for a, b in zip(values(largest.variables), teacher_before, strict=True):
        np.testing.assert_array_equal(a, b)

    for other in range(12):
        side = TINY.resolutions[other % len(TINY.resolutions)]
        count = 1 + other % 4
        some = Phase("expand2", 1, 0.1, subnets_per_step=count)
        step(batch(side), sizes_of(step_archs(some, TINY, SEED, other)), 1e-6, other)
    step(batch(), sizes_of([TINY.max(), TINY.min()]), 1e-6, 99)
    assert step.num_traces == 1

    spoiled = tf.concat([images[:1] * np.nan, images[1:]], axis=0)
    before = values(supernet.trainable_variables)
    assert not step((spoiled, labels), sizes_of(archs), 1.0, STEP).applied
    for a, b in zip(values(supernet.trainable_variables), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sandwich_teaches_in_place(supernet, plain):
    """The largest learns from labels, with dropout; the others from it alone, without dropout."""
    step = make_step(supernet, SANDWICH, kd_ratio=0.7)
    archs = step_archs(SANDWICH, TINY, SEED, STEP)
    assert archs[:2] == [TINY.max(), TINY.min()]
    images, labels = batch()
    state = values(supernet.variables)
    before = values(supernet.trainable_variables)
    targets = one_hot(labels)
    _, logits, first = plain(images, archs[0], targets, seed=dropout_seed(0, 0))
    _, without_dropout, _ = plain(images, archs[0], targets, dropout=0.0)
    assert np.abs(logits - without_dropout).max() > 1e-2
    others = [
        plain(images, arch, targets, logits, label=0.0, kd=0.7, dropout=0.0) for arch in archs[1:]
    ]
    restore(supernet.variables, state)
    step((images, labels), sizes_of(archs), 1.0, STEP)
    expected = added(first, *(gradients for *_, gradients in others))
    assert_moved_by(supernet, before, expected)

    for other in range(6):
        side = TINY.resolutions[other % len(TINY.resolutions)]
        step(batch(side), sizes_of(step_archs(SANDWICH, TINY, SEED, other)), 1e-6, other)
    assert step.num_traces == 1


def test_micro_batches_mixup_and_squared_distance(supernet, plain, largest):
    """The gradient is the mean over two halves, each mixed and normalized by itself."""
    phase = Phase("kernel", 1, 0.1)
    options = {"accumulation_steps": 2, "mixup_alpha": 0.4, "kd_loss": "mse", "kd_ratio": 0.3}
    step = make_step(supernet, phase, largest, **options)
    (arch,) = step_archs(phase, phase.restrict(TINY), SEED, STEP)
    count = 32  # small halves make much of the last digit
    images, labels = batch(count=count)
    share = 0.8
    state = values(supernet.variables)
    before = values(supernet.trainable_variables)
    losses, gradients = [], []
    for micro_batch, half in enumerate((slice(0, count // 2), slice(count // 2, count))):
        mixed = share * images[half] + (1 - share) * images[half][::-1]
        targets = one_hot(labels[half])
        targets = share * targets + (1 - share) * targets[::-1]
        teacher_logits = batch_norm_logits(largest, mixed)
        seed = dropout_seed(micro_batch)
        loss, _, found = plain(mixed, arch, targets, teacher_logits, mse=0.3, seed=seed)
        losses.append(loss)
        gradients.append([gradient / 2 for gradient in found])
    restore(supernet.variables, state)
    result = step((images, labels), sizes_of([arch]), 1.0, STEP, mixup_share=share).read()
    assert_moved_by(supernet, before, added(*gradients))
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-4)

    for other in range(6):
        side = TINY.resolutions[other % len(TINY.resolutions)]
        step(batch(side), sizes_of([TINY.sample(np.random.default_rng(other))]), 1e-6, other)
    assert step.num_traces == 1


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_share_is_of_the_beta_distribution(alpha):
    shares = [mixup_share(alpha, SEED, step) for step in range(2000)]
    assert shares[:5] == [mixup_share(alpha, SEED, step) for step in range(5)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)
    assert mixup_share(0.0, SEED, 1) == 1.0


def has_gpu_kernel(node) -> bool:
    """Whether TensorFlow has a kernel of an operation for GPUs, with the types that it has here."""
    registered = kernels.get_registered_kernels_for_op(node.op).kernel
    return any(
        kernel.device_type in ("GPU", "DEFAULT")
        and all(
            node.attr[constraint.name].type in constraint.allowed_values.list.type
            for constraint in kernel.constraint
        )
        for kernel in registered
    )


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_all_of_a_step_has_kernels_for_gpus(monkeypatch, precision):
    """So that nothing of it goes to and fro between a GPU and the CPU."""
    monkeypatch.setattr(depthwise, "on_gpu", lambda: True)
    supernet = Supernet(TINY, len(CLASSES), dtype=dtype_policy(precision))
    step = make_step(supernet, SANDWICH, precision=precision)
    graph = step._step.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    assert len(nodes) > 1000
    calls = {each.signature.name for each in graph.library.function}
    without = {node.op for node in nodes if node.op not in calls and not has_gpu_kernel(node)}
    assert not without
