"""Gradients of the supernet's weights are those of the subnet's, and zero where inactive."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_helpers import (
    NUM_CLASSES,
    deviation,
    every_family,
    make_archs,
    make_images,
    run_plain,
)

from ofa_tf.layers import KEEP_STATISTICS, InvertedResidualBlock

TOLERANCE = 1e-4  # of a variable's largest gradient
# A beta whose shift the next batch norm takes away again has no gradient but rounding.
SMALLEST = 0.1
NUM_ARCHS = 5  # of each family


@pytest.fixture(scope="module")
def gradients(supernet):
    """Gradients by variable path, for any arch, from one traced graph."""
    space = supernet.space
    signature = [
        tf.TensorSpec([None, None, None, 3], tf.float32),
        tf.TensorSpec(space.sizes(space.max()).shape, tf.int32),
        tf.TensorSpec([None, NUM_CLASSES], tf.float32),
    ]

    @tf.function(input_signature=signature)
    def run(images, sizes, upstream):
        variables = supernet.trainable_variables
        with tf.GradientTape() as tape:
            logits = supernet(images, sizes, bn_update=KEEP_STATISTICS)
        return tape.gradient(logits, [v.value for v in variables], output_gradients=upstream)

    def by_variable(images, arch, upstream):
        values = run(images, space.sizes(arch), upstream)
        assert run.experimental_get_tracing_count() == 1
        paired = zip(supernet.trainable_variables, values, strict=True)
        return {id(variable): value.numpy() for variable, value in paired}

    return by_variable


def kernel_gradients(layer, size: int, gradient: np.ndarray) -> list[tuple]:
    """From an active kernel's gradient to those of the stored kernel and of the transforms.

    With k5 = center(k7) @ t5 and k3 = center(k5) @ t3, flattened per channel.
    """
    kernels = {7: layer.kernel.numpy()[:, :, : gradient.shape[2]].astype(np.float64)}
    for small in (5, 3):
        center = kernels[small + 2][1:-1, 1:-1].reshape(small**2, -1)
        matrix = layer.transforms[small].numpy()
        kernels[small] = (matrix.T @ center).reshape(small, small, -1)
    expected, gradient = [], gradient[..., 0].astype(np.float64)
    for small in (s for s in (3, 5) if s >= size):
        center = kernels[small + 2][1:-1, 1:-1].reshape(small**2, -1)
        flat = gradient.reshape(small**2, -1)
        expected.append((layer.transforms[small], center @ flat.T))
        inner = (layer.transforms[small].numpy() @ flat).reshape(small, small, -1)
        gradient = np.pad(inner, [(1, 1), (1, 1), (0, 0)])
    return [*expected, (layer.kernel, gradient)]


def expected_gradients(block, plan, plain: dict) -> list[tuple]:
    """(variable, gradient of its active corner) for a block, from the plain layers' gradients."""
    pairs = []
    for name in block.active_weights(plan):
        values = plain[f"{plan.name}_{name}"]
        layer = block.named_layers[name]
        if name == "depthwise_conv" and len(layer.kernel_sizes) > 1:
            pairs += kernel_gradients(layer, plan.kernel_size, values[0])
        elif name == "depthwise_conv":
            pairs.append((layer.kernel, values[0][..., 0]))
        else:
            pairs += zip(layer.trainable_weights, values, strict=True)
    return pairs


def plain_gradients(model, images, upstream) -> dict[str, list[np.ndarray]]:
    """Gradients of the plain network by layer name, on batch statistics."""
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
    values = tape.gradient(logits, model.trainable_variables, output_gradients=upstream)
    by_path = {v.path: g.numpy() for v, g in zip(model.trainable_variables, values, strict=True)}
    return {
        layer.name: [by_path[v.path] for v in layer.trainable_variables] for layer in model.layers
    }


def worst_deviation(supernet, gradients, arch, seed: int) -> float:
    """Of all active gradients; checks that all others are exactly zero."""
    images = make_images(arch.resolution, 6, seed)
    upstream = np.random.default_rng(seed).normal(size=(6, NUM_CLASSES)).astype(np.float32)
    plain = plain_gradients(supernet.subnet(arch), images, upstream)
    remaining = gradients(images, arch, upstream)
    elastic = {block.name: block for block in supernet.blocks}
    worst = 0.0
    for plan in supernet.space.blueprint(arch, NUM_CLASSES).blocks:
        if not plan.weighted_layers:
            continue
        for variable, expected in expected_gradients(elastic[plan.name], plan, plain):
            actual = remaining.pop(id(variable))
            corner = tuple(slice(size) for size in expected.shape)
            scale = max(np.abs(expected).max(), SMALLEST)
            worst = max(worst, np.abs(actual[corner] - expected).max() / scale)
            outside = actual.copy()
            outside[corner] = 0
            assert not outside.any(), variable.path
    # All others belong to blocks that are switched off, or to transforms that were not used.
    assert not any(value.any() for value in remaining.values())
    if arch == supernet.space.max():  # only the transforms are left
        blocks = [b for b in supernet.blocks if isinstance(b, InvertedResidualBlock)]
        transforms = [t for b in blocks for t in b.depthwise_conv.transforms.values()]
        assert set(remaining) == {id(t) for t in transforms}
    return worst


@every_family
@pytest.mark.parametrize("index", range(NUM_ARCHS))
def test_gradients_equal_those_of_the_plain_network(supernet, gradients, index):
    """For one of four batches: in some, an input of a ReLU rounds to the other side of zero.

    That moves the gradients by a share of a percent, where a mistake would under every batch.
    """
    arch = make_archs(supernet.space, NUM_ARCHS)[index]
    seeds = range(10 * index, 10 * index + 4)
    deviations = (worst_deviation(supernet, gradients, arch, seed) for seed in seeds)
    assert any(value < TOLERANCE for value in deviations)


@every_family
def test_a_step_moves_only_what_is_active(supernet, gradients):
    """One SGD step on the smallest net, in the supernet and in the plain network."""
    arch = supernet.space.min()
    images = make_images(24, 8, seed=1)
    upstream = np.random.default_rng(1).normal(size=(8, NUM_CLASSES)).astype(np.float32)
    values = gradients(images, arch, upstream)
    before = {id(v): v.numpy() for v in supernet.trainable_variables}
    try:
        optimizer = keras.optimizers.SGD(0.01)
        optimizer.apply(
            [tf.constant(values[id(v)]) for v in supernet.trainable_variables],
            supernet.trainable_variables,
        )
        model = supernet.subnet(arch)
        expected = run_plain(model, images, momentum=0.0)
        assert deviation(supernet(images, arch, bn_update=KEEP_STATISTICS), expected) < 1e-4
        moved = sum((v.numpy() != before[id(v)]).sum() for v in supernet.trainable_variables)
        assert 0 < moved < supernet.count_params() / 2
    finally:
        for variable in supernet.trainable_variables:
            variable.assign(before[id(variable)])


def test_a_tape_around_the_call_gives_the_gradients_of_one_inside_a_graph(supernet, gradients):
    """As in a user's own eager loop; blocks that are off are branches of the graph inside."""
    arch = supernet.space.min()
    images = make_images(arch.resolution, 6, seed=3)
    upstream = np.random.default_rng(3).normal(size=(6, NUM_CLASSES)).astype(np.float32)
    expected = gradients(images, arch, upstream)
    with tf.GradientTape() as tape:
        logits = supernet(images, arch, bn_update=KEEP_STATISTICS)
    variables = supernet.trainable_variables
    found = tape.gradient(logits, [v.value for v in variables], output_gradients=upstream)
    for variable, gradient in zip(variables, found, strict=True):
        other = expected[id(variable)]
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())
