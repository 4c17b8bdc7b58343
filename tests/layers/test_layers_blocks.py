"""Blocks: the order of their layers in NumPy, the weights they cut, and permuted channels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from layers_helpers import convolve, convolve_depthwise, draw, images, normalized, squeeze_excite

from ofa_tf.layers import (
    KEEP_STATISTICS,
    BlockSizes,
    ClassifierBlock,
    ConvBlock,
    InvertedResidualBlock,
)
from ofa_tf.spaces import blueprint

LARGEST = blueprint.InvertedResidual(
    name="block",
    position=0,
    in_size=8,
    in_channels=8,
    mid_channels=32,
    out_channels=8,
    kernel_size=7,
    stride=1,
    activation="hard_swish",
    se_channels=8,
    expand=True,
    shortcut=True,
)
# What a block can be, and a part of it.
PLANS = {
    "shortcut": (LARGEST, {"mid_channels": 16, "kernel_size": 3, "se_channels": 4}),
    "strided": (
        dataclasses.replace(LARGEST, stride=2, out_channels=12, shortcut=False),
        {"mid_channels": 24, "kernel_size": 5, "se_channels": 6},
    ),
    "plain": (
        dataclasses.replace(LARGEST, se_channels=0, activation="relu"),
        {"mid_channels": 16, "kernel_size": 7},
    ),
    "first": (
        dataclasses.replace(
            LARGEST, mid_channels=8, kernel_size=3, se_channels=0, expand=False, activation="relu"
        ),
        {},
    ),
}


def relu(x):
    return np.maximum(x, 0)


def hard_swish(x):
    return x * np.clip(x + 3, 0, 6) / 6


ACTIVATIONS = {"relu": relu, "hard_swish": hard_swish}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def residual_block(plan, rng) -> InvertedResidualBlock:
    kernel_sizes = (3, 5, 7) if plan.kernel_size == 7 else None
    block = InvertedResidualBlock(plan, kernel_sizes=kernel_sizes, bn_epsilon=1e-3)
    block.build((None, None, None, plan.in_channels))
    draw(block, rng)
    return block


def sizes(plan) -> BlockSizes:
    return BlockSizes(plan.kernel_size, plan.mid_channels, plan.se_channels)


def computed(plan, weights, inputs):
    """An inverted residual from the weights that `active_weights` cut, in NumPy."""
    weights = {name: [value.numpy() for value in values] for name, values in weights.items()}
    activation = ACTIVATIONS[plan.activation]
    outputs = inputs
    if plan.expand:
        outputs = convolve(outputs, weights["expand_conv"][0], 1)
        outputs = activation(normalized(outputs, *weights["expand_bn"], 1e-3))
    outputs = convolve_depthwise(outputs, weights["depthwise_conv"][0][..., 0], plan.stride)
    outputs = activation(normalized(outputs, *weights["depthwise_bn"], 1e-3))
    if plan.se_channels:
        reduce, expand = weights["se_reduce"], weights["se_expand"]
        outputs = squeeze_excite(outputs, reduce[0][0, 0], reduce[1], expand[0][0, 0], expand[1])
    outputs = convolve(outputs, weights["project_conv"][0], 1)
    outputs = normalized(outputs, *weights["project_bn"], 1e-3)
    return outputs + inputs if plan.shortcut else outputs


@pytest.mark.parametrize("kind", PLANS)
def test_inverted_residual_computes_with_its_active_weights(kind, rng):
    largest, part = PLANS[kind]
    block = residual_block(largest, rng)
    inputs = images(rng, 2, 8, 8, 8)
    for plan in (largest, dataclasses.replace(largest, **part)):
        outputs = block(inputs, sizes=sizes(plan))
        expected = computed(plan, block.active_weights(plan), inputs)
        assert outputs.shape == (2, plan.out_size, plan.out_size, plan.out_channels)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(outputs / scale, expected / scale, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(block(inputs), block(inputs, sizes=sizes(largest)))


def test_active_weights_are_the_first_channels(rng):
    largest, part = PLANS["shortcut"]
    block = residual_block(largest, rng)
    weights = block.active_weights(dataclasses.replace(largest, **part))
    excite = block.squeeze_excite
    expected = {
        "expand_conv": [block.expand_conv.kernel.numpy()[..., :16]],
        "expand_bn": [weight.numpy()[:16] for weight in block.expand_bn.weights],
        "depthwise_bn": [weight.numpy()[:16] for weight in block.depthwise_bn.weights],
        "se_reduce": [excite.reduce.kernel.numpy()[:, :, :16, :4], excite.reduce.bias.numpy()[:4]],
        "se_expand": [excite.expand.kernel.numpy()[:, :, :4, :16], excite.expand.bias.numpy()[:16]],
        "project_conv": [block.project_conv.kernel.numpy()[:, :, :16]],
        "project_bn": [weight.numpy() for weight in block.project_bn.weights],
    }
    assert set(weights) == {*expected, "depthwise_conv"}
    assert weights["depthwise_conv"][0].shape == (3, 3, 16, 1)
    for name, values in expected.items():
        for ours, theirs in zip(weights[name], values, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_conv_block(activation, batch_norm, rng):
    plan = blueprint.Conv("stem", 8, 3, 8, 3, 2, activation, batch_norm)
    block = ConvBlock(plan, bn_epsilon=1e-3)
    block.build((None, None, None, 3))
    draw(block, rng)
    inputs = images(rng, 2, 8, 8, 3)
    weights = block.active_weights(plan)
    expected = convolve(inputs, weights["conv"][0].numpy(), 2)
    if batch_norm:
        expected = normalized(expected, *(w.numpy() for w in weights["bn"]), 1e-3)
    assert set(weights) == ({"conv", "bn"} if batch_norm else {"conv"})
    np.testing.assert_allclose(block(inputs), ACTIVATIONS[activation](expected), atol=1e-4)


def test_classifier_block(rng):
    plan = blueprint.Classifier("classifier", 6, 4, 0.1)
    block = ClassifierBlock(plan)
    block.build((None, 1, 1, 6))
    draw(block, rng)
    inputs = images(rng, 3, 1, 1, 6)
    kernel, bias = (weight.numpy() for weight in block.active_weights(plan)["dense"])
    np.testing.assert_allclose(block(inputs), inputs[:, 0, 0] @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("kind", ["shortcut", "strided", "plain"])
@pytest.mark.parametrize("mode", [{}, {"bn_update": KEEP_STATISTICS}])
def test_permuted_channels_leave_the_function_unchanged(kind, mode, rng):
    plan, part = PLANS[kind]
    block = residual_block(plan, rng)
    inputs = images(rng, 2, 8, 8, 8)
    narrow = sizes(dataclasses.replace(plan, **part))
    before, narrow_before = block(inputs, **mode), block(inputs, sizes=narrow, **mode)
    weights_before = block.get_weights()
    se_order = rng.permutation(plan.se_channels) if plan.se_channels else None
    block.permute_channels(rng.permutation(plan.mid_channels), se_order)
    scale = np.abs(before).max()
    np.testing.assert_allclose(block(inputs, **mode) / scale, before / scale, atol=2e-6)
    # It did reorder: a narrower subnet has other channels now.
    assert np.abs(block(inputs, sizes=narrow, **mode) - narrow_before).max() > 0.01 * scale
    moved = [(a != b).any() for a, b in zip(block.get_weights(), weights_before, strict=True)]
    unmoved = 4 + len(block.depthwise_conv.transforms)  # project_bn and the transforms
    assert sum(moved) == len(moved) - unmoved


def test_permutation_takes_channels_in_the_given_order(rng):
    plan, _ = PLANS["shortcut"]
    block = residual_block(plan, rng)
    project = block.project_conv.kernel.numpy()
    reduce = block.squeeze_excite.reduce.bias.numpy()
    mid_order, se_order = rng.permutation(32), rng.permutation(8)
    block.permute_channels(mid_order, se_order)
    np.testing.assert_array_equal(block.project_conv.kernel, project[:, :, mid_order])
    np.testing.assert_array_equal(block.squeeze_excite.reduce.bias, reduce[se_order])


def test_every_elastic_size_is_one_trace(rng):
    plan, _ = PLANS["shortcut"]
    block = residual_block(plan, rng)
    traces = 0

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 8], tf.float32),
            tf.TensorSpec([3], tf.int32),
        ]
    )
    def run(inputs, row):
        nonlocal traces
        traces += 1
        return block(inputs, sizes=BlockSizes(*tf.unstack(row)))

    for size in (5, 8):
        inputs = images(rng, 2, size, size, 8)
        for kernel, mid, se in ((3, 8, 2), (5, 32, 8), (7, 24, 5)):
            part = dataclasses.replace(
                plan, in_size=size, kernel_size=kernel, mid_channels=mid, se_channels=se
            )
            expected = computed(part, block.active_weights(part), inputs)
            outputs = run(inputs, [kernel, mid, se])
            np.testing.assert_allclose(outputs, expected, rtol=0, atol=2e-6 * np.ptp(expected))
    assert traces == 1
