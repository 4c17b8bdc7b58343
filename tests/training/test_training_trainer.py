"""The trainer: one step against plain gradients, interruptions, the teacher, a bad loss."""

from __future__ import annotations

import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_helpers import CLASSES, TINY, make_trainer, randomize, recipe, restore, values

from ofa_tf.errors import FailureError
from ofa_tf.models import Supernet
from ofa_tf.training import checkpoints
from ofa_tf.training.phases import Phase
from ofa_tf.training.sampler import step_sizes
from ofa_tf.training.sorting import sort_channels
from ofa_tf.training.trainer import Interrupted

STEPS_PER_EPOCH = 9  # of 144 images in batches of 16
NOT_DECAYED = ("gamma", "beta", "bias", "transform")


def steps(count: int) -> float:
    return count / STEPS_PER_EPOCH


def checkpoint(trainer, step: int):
    return trainer.workdir.checkpoints / f"step_{step:09d}.npz"


def plain_gradients(supernet, teacher, images, labels, sizes):
    """Of one subnet, with none of the trainer's code; the largest net on batch statistics."""
    targets = keras.ops.one_hot(labels, len(CLASSES)) * 0.9 + 0.1 / len(CLASSES)
    soft = tf.nn.softmax(teacher(images, TINY.max(), bn_momentum=1.0))
    with tf.GradientTape() as tape:
        log_probabilities = tf.nn.log_softmax(supernet(images, tf.constant(sizes), training=True))
        loss = -tf.reduce_mean(tf.reduce_sum((targets + soft) * log_probabilities, axis=1))
    variables = [variable.value for variable in supernet.trainable_variables]
    gradients = tape.gradient(loss, variables)
    return [
        np.zeros(variable.shape, np.float32) if gradient is None else gradient.numpy()
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def test_a_step_sums_its_subnets_and_decays_kernels_only(shapes, shared_supernet, tmp_path):
    """One step of each of two phases; the second is done again by hand from the checkpoint."""
    wide = Phase("expand2", steps(1), 0.05, subnets_per_step=2)
    made = recipe(Phase("largest", steps(1), 0.05), wide, weight_decay=0.5)
    trainer = make_trainer(shapes, tmp_path, made, shared_supernet)
    trainer.fit()

    supernet, teacher = (Supernet(TINY, len(CLASSES)) for _ in range(2))
    checkpoints.load(checkpoint(trainer, 1), weights=supernet.variables)
    checkpoints.load(trainer.workdir.teacher, weights=teacher.variables)
    for a, b in zip(values(supernet.variables), values(teacher.variables), strict=True):
        np.testing.assert_array_equal(a, b)  # the teacher is the net after the first phase

    sort_channels(supernet, made.phases[0].restrict(TINY))
    before = values(supernet.trainable_variables)
    batches = shapes.train_batches(
        16, made.resolutions, seed=0, first_step=1, augmentation=made.augmentation
    )
    images, labels = next(iter(batches))
    totals = [np.zeros_like(array) for array in before]
    for sizes in step_sizes(TINY, 0, 1, 2):
        gradients = plain_gradients(supernet, teacher, images, labels, sizes)
        totals = [a + b for a, b in zip(totals, gradients, strict=True)]
    rate = 0.05 * 16 / 64
    decayed = 0
    for variable, old, gradient in zip(supernet.trainable_variables, before, totals, strict=True):
        if not variable.name.startswith(NOT_DECAYED):
            gradient = gradient + 0.5 * old
            decayed += 1
        variable.assign(old - (1 + 0.9) * rate * gradient)  # Nesterov's first step from rest
    assert decayed > 20

    for mine, found in zip(supernet.variables, trainer.supernet.variables, strict=True):
        np.testing.assert_allclose(found.numpy(), mine.numpy(), rtol=1e-3, atol=2e-5)


class Interrupting:
    """ImageData that sends this process a signal as it hands out the batch of a step."""

    def __init__(self, data, step: int, number: int):
        self._data, self._step, self._number = data, step, number

    def __getattr__(self, name):
        return getattr(self._data, name)

    def train_batches(self, *args, first_step, **options):
        batches = self._data.train_batches(*args, first_step=first_step, **options)
        for step, batch in enumerate(batches, start=first_step):
            if step == self._step:
                os.kill(os.getpid(), self._number)
            yield batch


TWO_PHASES = recipe(
    Phase("largest", steps(6), 0.05, warmup_epochs=steps(2)), Phase("kernel", steps(4), 0.05)
)


@pytest.fixture(scope="module")
def undisturbed(shapes, shared_supernet, tmp_path_factory):
    """The weights, optimizer state and metrics of a run without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    trainer = make_trainer(shapes, folder, TWO_PHASES, shared_supernet)
    trainer.fit()
    metrics = trainer.workdir.metrics.read_text().splitlines()
    return values(trainer.supernet.variables), values(trainer.optimizer.variables), metrics


def accuracies(lines: list[str]) -> list[dict]:
    return [row for row in map(json.loads, lines) if "accuracy" in row]


def test_interrupted_at_the_end_of_a_phase_it_ends_like_an_undisturbed_run(
    shapes, shared_supernet, tmp_path, undisturbed
):
    """At the last step of a phase, and at the very last; amid one: tests/cli/test_cli_train.py."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for seed, (step, number) in enumerate([(5, signal.SIGINT), (9, signal.SIGTERM)]):
        data = Interrupting(shapes, step, number)
        # Only the first start may depend on the fresh weights.
        trainer = make_trainer(data, tmp_path, TWO_PHASES, shared_supernet, seed)
        with pytest.raises(Interrupted) as interrupted:
            trainer.fit()
        assert interrupted.value.exit_code == 128 + number
        assert checkpoint(trainer, step + 1).exists()
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    trainer = make_trainer(shapes, tmp_path, TWO_PHASES, shared_supernet, seed=9)
    trainer.fit()  # nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    weights, optimizer, metrics = undisturbed
    for found, expected in (
        (trainer.supernet.variables, weights),
        (trainer.optimizer.variables, optimizer),
    ):
        for a, b in zip(values(found), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    mine = trainer.workdir.metrics.read_text().splitlines()
    assert accuracies(mine) == accuracies(metrics)
    state = checkpoints.load(checkpoint(trainer, 10), weights=trainer.supernet.variables)
    assert state["finished"]


def test_metrics_have_a_row_per_epoch_and_one_per_phase(undisturbed):
    *_, metrics = undisturbed
    rows = [json.loads(line) for line in metrics]
    assert [(row["phase"], row["step"], "accuracy" in row) for row in rows] == [
        ("largest", 6, False),
        ("largest", 6, True),
        ("kernel", 10, False),
        ("kernel", 10, True),
    ]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)


def test_a_loss_that_is_not_finite_is_one_failure(shapes, shared_supernet, tmp_path):
    hot = recipe(Phase("largest", steps(9), 1e30))
    trainer = make_trainer(shapes, tmp_path, hot, shared_supernet)
    with pytest.raises(FailureError) as error:
        trainer.fit()
    message = str(error.value)
    assert message.startswith("The loss became ")
    assert "in phase largest at step " in message
    assert message.endswith("with a lower base_lr or a longer warm-up.")


@pytest.mark.parametrize("teacher", [None, b"PK"])
def test_without_a_readable_teacher_it_says_so(shapes, shared_supernet, tmp_path, teacher):
    trainer = make_trainer(shapes, tmp_path, TWO_PHASES, shared_supernet)
    after_phase_one = {
        "weights": trainer.supernet.variables,
        "optimizer": trainer.optimizer.variables,
    }
    checkpoints.CheckpointFolder(trainer.workdir.checkpoints).save(6, {}, **after_phase_one)
    if teacher is not None:
        trainer.workdir.teacher.write_bytes(teacher)
    with pytest.raises(FailureError, match=r"teacher\.npz is missing or damaged"):
        trainer.fit()


@pytest.mark.slow
def test_training_learns(shapes, shared_supernet, tmp_path):
    """Drawn shapes are told apart after some epochs, by the largest and the smallest net."""
    phases = (Phase("largest", 12, 0.2, 1), Phase("expand2", 4, 0.1, subnets_per_step=2))
    trainer = make_trainer(shapes, tmp_path, recipe(*phases), shared_supernet)
    keras.utils.set_random_seed(0)
    restore(trainer.supernet.variables, values(Supernet(TINY, len(CLASSES)).variables))
    trainer.fit()
    assert trainer.evaluator.accuracy(TINY.max()) > 0.6
    assert trainer.evaluator.accuracy(TINY.min()) > 0.45


def test_randomized_weights_are_not_trivial(shared_supernet):
    """The guard of the tests above: other images and other archs give other outputs."""
    randomize(shared_supernet)
    images = np.random.default_rng(0).normal(size=(4, 28, 28, 3)).astype(np.float32)
    largest, smallest = (shared_supernet(images, a).numpy() for a in (TINY.max(), TINY.min()))
    assert np.std(largest, axis=0).min() > 1e-3
    assert np.abs(largest - smallest).max() > 1e-2
