"""Batch-norm recalibration against NumPy, and accuracies against the subnet cut out."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from one_stage import TINY
from training_helpers import shared_evaluator, values

from ofa_tf.errors import UsageError
from ofa_tf.training.calibration import SubnetEvaluator


@pytest.fixture
def evaluator(supernet, shapes):
    return shared_evaluator(supernet, shapes)


def test_statistics_are_means_over_the_batches(supernet, shapes, evaluator):
    arch = TINY.min()
    batches = [images for images, _ in shapes.calibration_batches(arch.resolution, 16, 48)]
    assert len(batches) == 3
    stem = supernet.blocks[0]
    outputs = [stem.conv(batch).numpy() for batch in batches]
    mean = np.mean([out.mean(axis=(0, 1, 2)) for out in outputs], axis=0)
    variance = np.mean([out.var(axis=(0, 1, 2)) for out in outputs], axis=0)
    for _ in range(2):  # also with what the first time kept in memory
        with evaluator.calibrated(arch):
            np.testing.assert_allclose(stem.bn.moving_mean, mean, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(stem.bn.moving_variance, variance, rtol=1e-4)


def test_statistics_that_are_not_finite_are_forgotten(supernet, evaluator):
    """A step that was skipped leaves them behind."""
    expected = evaluator.accuracy(TINY.max())
    for variable in supernet.non_trainable_variables:
        variable.assign(np.full(variable.shape, np.nan, np.float32))
    with evaluator.calibrated(TINY.max()):
        for variable in supernet.blocks[0].bn.non_trainable_variables:
            assert np.all(np.isfinite(variable))
    assert evaluator.accuracy(TINY.max()) == expected


def test_old_statistics_are_back_afterwards(supernet, evaluator):
    before = values(supernet.variables)
    with evaluator.calibrated(TINY.max()):
        inside = values(supernet.variables)
    for a, b in zip(before, values(supernet.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    changed = [not np.array_equal(a, b) for a, b in zip(before, inside, strict=True)]
    assert any(changed)
    trainable = {id(variable) for variable in supernet.trainable_variables}
    for variable, was_changed in zip(supernet.variables, changed, strict=True):
        assert not (was_changed and id(variable) in trainable)


def test_old_statistics_are_back_after_an_error(supernet, evaluator):
    before = values(supernet.variables)
    with pytest.raises(ZeroDivisionError), evaluator.calibrated(TINY.max()):
        raise ZeroDivisionError
    for a, b in zip(before, values(supernet.variables), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("which", ["max", "min"])
def test_accuracy_is_that_of_the_subnet_cut_out(supernet, shapes, which):
    arch = getattr(TINY, which)()
    evaluator = SubnetEvaluator(
        supernet, shapes, "test", calibration_images=100, batch_size=20, eval_crop=0.9
    )
    with evaluator.calibrated(arch):
        model = supernet.subnet(arch)
    batches = list(shapes.eval_batches("test", arch.resolution, 7, eval_crop=0.9))
    images = tf.concat([images for images, _ in batches], axis=0)
    labels = tf.concat([labels for _, labels in batches], axis=0).numpy()
    predicted = model(images, training=False).numpy().argmax(axis=1)
    accuracy = evaluator.accuracy(arch)
    assert len(labels) == shapes.num_test == 40
    assert accuracy == pytest.approx((predicted == labels).mean(), abs=1e-6)
    assert accuracy == evaluator.accuracy(arch)  # from the batches kept in memory
    assert len(set(predicted)) > 1


def test_limit_takes_so_many_images(supernet, shapes):
    evaluator = SubnetEvaluator(supernet, shapes, "test", limit=10, calibration_images=20)
    accuracy = evaluator.accuracy(TINY.min())
    assert round(10 * accuracy, 6) == int(round(10 * accuracy, 6))


def test_wrong_settings_are_refused_before_any_work(supernet, shapes):
    with pytest.raises(UsageError, match="eval_crop is 0"):
        SubnetEvaluator(supernet, shapes, eval_crop=0.0)
    with pytest.raises(UsageError, match="Unknown split 'tets'"):
        SubnetEvaluator(supernet, shapes, "tets")
