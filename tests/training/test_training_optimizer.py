"""The optimizer against Keras's SGD and NumPy: decay, clipping, averages, scaling, skipping."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from ofa_tf.training import optimizer as module
from ofa_tf.training.optimizer import Optimizer

SHAPES = ((4, 3), (3,), (2, 2, 5))
DECAYED = (True, False, True)


def weights(seed: int = 0) -> list[keras.Variable]:
    return [keras.Variable(array) for array in gradients(seed)]


def gradients(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng((7, seed))
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


def arrays(variables) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def assert_close(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def assert_equal(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def stepper(optimizer: Optimizer):
    """`apply` in a graph, as TrainStep calls it: a replica context and gradients as tensors."""

    @tf.function
    def step(gradients, loss, rate):
        strategy = tf.distribute.get_strategy()
        return strategy.run(lambda: optimizer.apply(gradients, loss, rate))

    return lambda gradients, rate=0.1, loss=1.0: step(
        [tf.constant(gradient) for gradient in gradients], tf.constant(loss), tf.constant(rate)
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_decay_it_is_keras_sgd(momentum):
    mine, theirs = weights(), weights()
    sgd = keras.optimizers.SGD(momentum=momentum, nesterov=momentum > 0)
    sgd.build(theirs)
    step = stepper(Optimizer(mine, DECAYED, momentum=momentum))
    for i in range(5):
        rate = 0.1 / (i + 1)  # another one in each step, as on a schedule
        step(gradients(i), rate)
        sgd.learning_rate.assign(rate)
        sgd.apply([tf.constant(gradient) for gradient in gradients(i)])
    assert_close(arrays(mine), arrays(theirs))
    assert np.abs(mine[0].numpy() - weights()[0].numpy()).max() > 0.1


def numpy_sgd(start, steps, *, decay=0.0, clip=np.inf, momentum=0.9, rate=0.1):
    """The weights after each step, by the published formula."""
    current = [array.astype(np.float64) for array in start]
    velocities = [np.zeros_like(array) for array in current]
    history = []
    for step_gradients in steps:
        norm = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in step_gradients))
        factor = min(1.0, clip / norm)
        for i, gradient in enumerate(step_gradients):
            gradient = gradient * factor + (decay * current[i] if DECAYED[i] else 0.0)
            velocities[i] = momentum * velocities[i] - rate * gradient
            current[i] = current[i] + momentum * velocities[i] - rate * gradient
        history.append([array.copy() for array in current])
    return history


@pytest.mark.parametrize(("decay", "clip"), [(0.3, 0.0), (0.0, 0.5), (0.3, 0.5), (0.0, 1e6)])
def test_decay_is_on_kernels_only_and_clipping_is_of_the_global_norm(decay, clip):
    variables = weights()
    start = arrays(variables)
    step = stepper(Optimizer(variables, DECAYED, weight_decay=decay, clip_norm=clip))
    updates = [step(gradients(i)) for i in range(4)]
    steps = [gradients(i) for i in range(4)]
    expected = numpy_sgd(start, steps, decay=decay, clip=clip or np.inf)
    assert_close(arrays(variables), expected[-1])
    for update, each in zip(updates, steps, strict=True):  # the norm is told before clipping
        norm = np.sqrt(sum((gradient**2).sum() for gradient in each))
        np.testing.assert_allclose(update.gradient_norm, norm, rtol=1e-5)
        assert update.applied


def test_the_average_follows_the_weights():
    variables = weights()
    start = arrays(variables)
    optimizer = Optimizer(variables, DECAYED, ema_decay=0.8)
    optimizer.start_average()
    step = stepper(optimizer)
    for i in range(3):
        step(gradients(i))
    expected = start
    for after in numpy_sgd(start, [gradients(i) for i in range(3)]):
        expected = [0.8 * old + 0.2 * new for old, new in zip(expected, after, strict=True)]
    assert_close(arrays(optimizer.average), expected)

    trained = arrays(variables)
    with optimizer.averaged():
        assert_equal(arrays(variables), arrays(optimizer.average))
    assert_equal(arrays(variables), trained)
    with pytest.raises(ZeroDivisionError), optimizer.averaged():
        raise ZeroDivisionError
    assert_equal(arrays(variables), trained)
    optimizer.adopt_average()
    assert_close(arrays(variables), expected)
    assert np.abs(trained[0] - expected[0]).max() > 0.01


def test_without_an_average_the_weights_stay():
    variables = weights()
    optimizer = Optimizer(variables, DECAYED)
    with optimizer.averaged():
        assert_equal(arrays(variables), arrays(weights()))
    optimizer.adopt_average()
    assert_equal(arrays(variables), arrays(weights()))
    assert optimizer.average == []


def test_reset_is_a_fresh_start():
    variables = weights()
    optimizer = Optimizer(variables, DECAYED, ema_decay=0.5)
    step = stepper(optimizer)
    step(gradients(0))
    optimizer.reset()
    start = arrays(variables)
    assert_equal(arrays(optimizer.average), start)
    step(gradients(1))
    assert_close(arrays(variables), numpy_sgd(start, [gradients(1)])[-1])


def test_the_loss_scale_halves_and_doubles(monkeypatch):
    monkeypatch.setattr(module, "_LOSS_SCALE_GROWS_AFTER", 3)
    variables = weights()
    start = arrays(variables)
    optimizer = Optimizer(variables, DECAYED, scale_loss=True, clip_norm=0.5)
    step = stepper(optimizer)
    first = 2.0**15
    assert float(optimizer.scaled(tf.constant(2.0))) == 2 * first
    overflown = [np.full(shape, np.inf, np.float32) for shape in SHAPES]
    scales, good = [], 0
    for overflows in (False, False, True, False, False, False, False):
        scale = float(optimizer.loss_scale[0].numpy())
        scaled = [gradient * scale for gradient in gradients(good)]
        update = step(overflown if overflows else scaled)
        assert bool(update.applied) is not overflows
        good += not overflows
        scales.append(float(optimizer.loss_scale[0].numpy()))
    # Three good steps in a row, counted anew after the overflow, double it.
    assert scales == [first, first, first / 2, first / 2, first / 2, first, first]
    # The scale is no part of the result, nor of what is clipped.
    expected = numpy_sgd(start, [gradients(i) for i in range(good)], clip=0.5)
    assert_close(arrays(variables), expected[-1])


def test_the_loss_scale_stays_at_least_one():
    optimizer = Optimizer(weights(), DECAYED, scale_loss=True)
    step = stepper(optimizer)
    for _ in range(20):
        step([np.full(shape, np.nan, np.float32) for shape in SHAPES])
    assert float(optimizer.loss_scale[0].numpy()) == 1.0


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["loss", 0, 1, 2])
def test_a_step_that_is_not_finite_is_skipped_as_a_whole(bad, where, clip_norm):
    variables = weights()
    optimizer = Optimizer(variables, DECAYED, weight_decay=0.1, clip_norm=clip_norm, ema_decay=0.5)
    optimizer.start_average()
    step = stepper(optimizer)
    step(gradients(0))
    state = [*variables, *optimizer.velocities, *optimizer.average]
    before = arrays(state)
    spoiled, loss = gradients(1), 1.0
    if where == "loss":
        loss = float(bad)
    else:
        spoiled[where].flat[-1] = bad
    assert not step(spoiled, loss=loss).applied
    assert_equal(arrays(state), before)
    assert step(gradients(1)).applied
    assert all(np.any(a != b) for a, b in zip(arrays(state), before, strict=True))
