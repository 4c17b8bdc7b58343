"""Mixed precision: 16 bits between the layers, float32 weights, statistics and logits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from model_helpers import calibrated, deviation, make_archs, make_images, spread, twin

from ofa_tf.models import Supernet

TOLERANCES = {"mixed_bfloat16": 0.05, "mixed_float16": 0.01}  # of the largest logit


@pytest.fixture(scope="module", params=TOLERANCES)
def mixed(request, supernet) -> Supernet:
    return twin(supernet, dtype=request.param)


def test_weights_and_logits_are_float32(mixed):
    assert {variable.dtype for variable in mixed.variables} == {"float32"}
    assert mixed(make_images(24, 2, seed=0), mixed.space.min()).dtype == tf.float32


@pytest.mark.parametrize("index", range(3))
def test_logits_are_near_those_of_float32(supernet, mixed, index):
    tolerance = TOLERANCES[mixed.dtype_policy.name]
    arch = make_archs(supernet.space, 3)[index]
    images = make_images(arch.resolution, 8, seed=index)
    for mode in ({"bn_update": (1.0, 0.0)}, {"training": True}):
        with supernet.kept_statistics(), mixed.kept_statistics():
            expected = supernet(images, arch, **mode).numpy()
            actual = mixed(images, arch, **mode).numpy()
        assert 1e-6 < deviation(actual, expected) < tolerance < spread(expected)
    with calibrated(supernet, arch, [images]), calibrated(mixed, arch, [images]):
        assert deviation(mixed(images, arch), supernet(images, arch)) < tolerance


def test_layers_compute_in_16_bits(mixed):
    run = tf.function(lambda images: mixed(images, "largest", training=True))
    operations = run.get_concrete_function(tf.TensorSpec([4, 24, 24, 3])).graph.get_operations()
    for kind in ("Conv2D", "DepthwiseConv2dNative", "FusedBatchNormV3", "Relu6", "MatMul"):
        types = {op.outputs[0].dtype.name for op in operations if op.type == kind}
        assert types == {mixed.compute_dtype}, kind


def test_gradients_of_every_variable_are_float32(supernet, mixed):
    images = make_images(24, 8, seed=0)
    # The smallest kernels of the deepest net: every transform takes part.
    arch = {**supernet.space.max().to_dict()}
    arch["ks"] = [3] * len(arch["ks"])
    sizes = tf.constant(supernet.space.sizes(arch))

    @tf.function
    def gradients(net, images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(net(images, sizes, bn_update=(1, 0)) ** 2)
        return tape.gradient(loss, [variable.value for variable in net.trainable_variables])

    expected, actual = gradients(supernet, images), gradients(mixed, images)
    for variable, ours in zip(mixed.trainable_variables, actual, strict=True):
        assert ours.dtype == tf.float32
        assert np.isfinite(ours).all()
        assert np.abs(ours).max() > 0, variable.path
    ours, theirs = (np.concatenate([np.ravel(g) for g in grads]) for grads in (actual, expected))
    cosine = np.dot(ours, theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine > 0.95


def test_moving_statistics_are_not_rounded(mixed):
    """A share of 1/3 is no bfloat16 number, and 1 as `keep` changes nothing."""
    images, arch = make_images(24, 8, seed=0), "largest"
    statistic = mixed.blocks[0].bn.moving_variance
    with mixed.kept_statistics():
        mixed(images, arch, bn_update=(0.0, 1.0))
        whole = statistic.numpy()
        mixed(images, arch, bn_update=(0.0, 1 / 3))
        np.testing.assert_allclose(statistic.numpy(), whole / 3, rtol=1e-6)


def test_a_subnet_cut_out_is_that_of_float32(supernet, mixed):
    arch, images = supernet.space.min(), make_images(24, 3, seed=0)
    one, other = supernet.subnet(arch), mixed.subnet(arch)
    for ours, theirs in zip(other.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(other(images), one(images))
