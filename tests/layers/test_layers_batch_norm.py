"""Batch norm in its three modes, with all channels and with some of them active."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from layers_helpers import draw, images, normalized

from ofa_tf.layers import KEEP_STATISTICS, ElasticBatchNormalization

EPSILON = 1e-3
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
AXES = (0, 1, 2)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def layer(rng) -> ElasticBatchNormalization:
    layer = ElasticBatchNormalization(momentum=0.8, epsilon=EPSILON)
    layer.build((None, None, None, 6))
    draw(layer, rng)
    return layer


def snapshot(layer) -> list[np.ndarray]:
    """Gamma, beta, moving mean, moving variance."""
    weights = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    return [weight.numpy() for weight in weights]


@pytest.fixture(params=[6, 4, 1])
def active(request) -> int:
    """Active channels."""
    return request.param


@pytest.fixture
def batch(rng, active) -> np.ndarray:
    return 3 * images(rng, 3, 4, 5, active) - 1


def test_inference_uses_the_moving_statistics(layer, batch, active):
    before = snapshot(layer)
    expected = normalized(batch, *(value[:active] for value in before), EPSILON)
    np.testing.assert_allclose(layer(batch), expected, **CLOSE)
    for value, kept in zip(snapshot(layer), before, strict=True):
        np.testing.assert_array_equal(value, kept)
    assert [w.shape for w in layer.active_weights(active)] == [(active,)] * 4


def check_batch_statistics(layer, batch, active, keep, take, correction, **mode):
    """`correction` 1 takes the unbiased variance for the moving one, 0 the biased one."""
    gamma, beta, mean, variance = snapshot(layer)
    batch64 = batch.astype(np.float64)
    batch_mean, biased = batch64.mean(axis=AXES), batch64.var(axis=AXES)
    expected = normalized(batch64, gamma[:active], beta[:active], batch_mean, biased, EPSILON)
    np.testing.assert_allclose(layer(batch, **mode), expected, **CLOSE)
    mean, variance = mean.copy(), variance.copy()
    moved = batch64.var(axis=AXES, ddof=correction)
    mean[:active] = keep * mean[:active] + take * batch_mean
    variance[:active] = keep * variance[:active] + take * moved
    np.testing.assert_allclose(layer.moving_mean, mean, **CLOSE)
    np.testing.assert_allclose(layer.moving_variance, variance, **CLOSE)
    # What is not active is left exactly as it was.
    np.testing.assert_array_equal(layer.moving_mean[active:], mean[active:])
    np.testing.assert_array_equal(layer.moving_variance[active:], variance[active:])


def test_training_moves_towards_the_unbiased_variance(layer, batch, active):
    check_batch_statistics(layer, batch, active, 0.8, 0.2, correction=1, training=True)


@pytest.mark.parametrize(("keep", "take"), [(0.0, 0.25), (0.25, 0.75), (1.0, 0.5), (1.0, 0.0)])
@pytest.mark.parametrize("training", [False, True])
def test_bn_update_takes_the_biased_variance(layer, batch, active, keep, take, training):
    mode = {"training": training, "bn_update": (tf.constant(keep), tf.constant(take))}
    check_batch_statistics(layer, batch, active, keep, take, correction=0, **mode)


def test_bn_update_as_numbers(layer, batch, active):
    check_batch_statistics(layer, batch, active, 0.5, 0.25, correction=0, bn_update=(0.5, 0.25))


def test_a_teacher_keeps_its_statistics_without_touching_them(layer, rng):
    before, batch = snapshot(layer), images(rng, 3, 4, 5, 4)
    run = tf.function(lambda inputs: layer(inputs, bn_update=KEEP_STATISTICS))
    outputs = run(batch)
    for value, kept in zip(snapshot(layer), before, strict=True):
        np.testing.assert_array_equal(value, kept)
    operations = run.get_concrete_function(batch).graph.get_operations()
    assert not [op.name for op in operations if "Assign" in op.type]
    np.testing.assert_allclose(outputs, layer(batch, bn_update=(1.0, 0.5)), **CLOSE)
    assert (snapshot(layer)[2] != before[2])[:4].all()


def test_running_mean_over_batches(layer, rng):
    """Keep nothing at the first of n batches, then all, and take 1 / n of each."""
    batches = [scale * images(rng, 3, 4, 5, 4) + scale for scale in (1, 2, 3, 5)]
    for index, batch in enumerate(batches):
        layer(batch, bn_update=(float(index > 0), 1 / len(batches)))
    means = np.mean([batch.mean(axis=AXES) for batch in batches], axis=0)
    variances = np.mean([batch.var(axis=AXES) for batch in batches], axis=0)
    np.testing.assert_allclose(layer.moving_mean[:4], means, **CLOSE)
    np.testing.assert_allclose(layer.moving_variance[:4], variances, **CLOSE)


def test_recalibration_heals_statistics_that_are_not_finite(layer, batch, active):
    for statistic in (layer.moving_mean, layer.moving_variance):
        statistic.assign([np.nan, np.inf] * 3)
    layer(batch, bn_update=(0.0, 1.0))
    assert np.isfinite(layer.moving_mean[:active]).all()
    assert np.isfinite(layer.moving_variance[:active]).all()


def test_statistics_are_weights_of_the_layer(layer):
    """Though not made by `add_weight`."""
    statistics = [layer.moving_mean, layer.moving_variance]
    assert layer.weights == [layer.gamma, layer.beta, *statistics]
    assert layer.non_trainable_weights == statistics
    assert [v.path for v in statistics] == [
        f"{layer.name}/moving_mean",
        f"{layer.name}/moving_variance",
    ]


def test_gradient_of_the_training_mode(layer, rng):
    """The batch's statistics are part of the function; against the formula under autodiff."""
    inputs = tf.constant(images(rng, 3, 4, 5, 4))
    upstream = images(rng, 3, 4, 5, 4)
    gamma, beta = (tf.constant(weight[:4]) for weight in snapshot(layer)[:2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([inputs, gamma, beta])
        mean, variance = tf.nn.moments(inputs, AXES)
        expected = gamma * (inputs - mean) / tf.sqrt(variance + EPSILON) + beta
        outputs = layer(inputs, training=True)
    wanted = tape.gradient(expected, [inputs, gamma, beta], output_gradients=upstream)
    sources = [inputs, layer.gamma.value, layer.beta.value]
    given = tape.gradient(outputs, sources, output_gradients=upstream)
    for ours, theirs in zip(given, wanted, strict=True):
        size = len(theirs) if theirs.shape.rank == 1 else None
        np.testing.assert_allclose(ours[:size], theirs, rtol=1e-3, atol=1e-4)
        if size:
            np.testing.assert_array_equal(ours[size:], [0, 0])
