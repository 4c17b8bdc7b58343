"""Blocks: the order of their layers in NumPy, the weights they cut, and permuted channels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from layers_helpers import (
    convolve,
    convolve_depthwise,
    draw,
    halve,
    images,
    normalized,
    pool,
    squeeze_excite,
)

from ofa_tf.layers import (
    KEEP_STATISTICS,
    BottleneckBlock,
    ClassifierBlock,
    ConvBlock,
    GlobalPoolBlock,
    InvertedResidualBlock,
    MaxPoolBlock,
)
from ofa_tf.layers.blocks import _ACTIVATIONS
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
    "swish": (
        dataclasses.replace(LARGEST, activation="swish"),
        {"mid_channels": 16, "kernel_size": 5, "se_channels": 4},
    ),
    "first": (
        dataclasses.replace(
            LARGEST, mid_channels=8, kernel_size=3, se_channels=0, expand=False, activation="relu"
        ),
        {},
    ),
}

# 9 x 9 x 12 to 5 x 5 x 16 channels, and narrower on both sides.
STRIDED = blueprint.Bottleneck("block", 0, 9, 12, 8, 16, 3, 2, "relu", "avg_pool_conv")
SAME = dataclasses.replace(STRIDED, in_channels=16, stride=1, shortcut="identity")
BOTTLENECKS = {
    "avg_pool": (STRIDED, {"in_channels": 7, "mid_channels": 4, "out_channels": 9}),
    "even_avg_pool": (
        dataclasses.replace(STRIDED, in_size=8),
        {"in_channels": 7, "mid_channels": 4, "out_channels": 16},
    ),
    "wider": (
        dataclasses.replace(STRIDED, stride=1),
        {"in_channels": 12, "mid_channels": 5, "out_channels": 9},
    ),
    "conv": (
        dataclasses.replace(STRIDED, shortcut="conv", activation="relu6"),
        {"in_channels": 7, "mid_channels": 4, "out_channels": 9},
    ),
    "identity": (SAME, {"in_channels": 9, "mid_channels": 4, "out_channels": 9}),
}


def relu(x):
    return np.maximum(x, 0)


def relu6(x):
    return np.clip(x, 0, 6)


def swish(x):
    return x / (1 + np.exp(-x))


def hard_swish(x):
    return x * np.clip(x + 3, 0, 6) / 6


ACTIVATIONS = {"relu": relu, "relu6": relu6, "swish": swish, "hard_swish": hard_swish}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def residual_block(plan, rng) -> InvertedResidualBlock:
    kernel_sizes = (3, 5, 7) if plan.kernel_size == 7 else None
    block = InvertedResidualBlock(plan, kernel_sizes=kernel_sizes, bn_epsilon=1e-3)
    block.build((None, None, None, plan.in_channels))
    draw(block, rng)
    return block


def bottleneck_block(plan, rng) -> BottleneckBlock:
    block = BottleneckBlock(plan, bn_epsilon=1e-3)
    block.build((None, None, None, plan.in_channels))
    draw(block, rng)
    return block


def arrays(weights) -> dict[str, list[np.ndarray]]:
    return {name: [value.numpy() for value in values] for name, values in weights.items()}


def assert_near(outputs, expected):
    """Within rounding of the largest."""
    assert outputs.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs / scale, expected / scale, rtol=0, atol=2e-5)


def computed(plan, weights, inputs):
    """An inverted residual from the weights that `active_weights` cut, in NumPy."""
    weights = arrays(weights)
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
        outputs = block(inputs, sizes=plan.sizes)
        assert outputs.shape == (2, plan.out_size, plan.out_size, plan.out_channels)
        assert_near(outputs, computed(plan, block.active_weights(plan), inputs))
    np.testing.assert_array_equal(block(inputs), block(inputs, sizes=largest.sizes))


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


def computed_bottleneck(plan, weights, inputs):
    """From the weights that `active_weights` cut, in NumPy."""
    weights = arrays(weights)
    activation = ACTIVATIONS[plan.activation]
    outputs = convolve(inputs, weights["reduce_conv"][0], 1)
    outputs = activation(normalized(outputs, *weights["reduce_bn"], 1e-3))
    outputs = convolve(outputs, weights["spatial_conv"][0], plan.stride)
    outputs = activation(normalized(outputs, *weights["spatial_bn"], 1e-3))
    outputs = convolve(outputs, weights["widen_conv"][0], 1)
    outputs = normalized(outputs, *weights["widen_bn"], 1e-3)
    shortcut = inputs
    if plan.shortcut == "avg_pool_conv" and plan.stride == 2:
        shortcut = halve(inputs)
    if plan.shortcut == "conv":
        shortcut = inputs[:, :: plan.stride, :: plan.stride]
    if plan.shortcut != "identity":
        shortcut = convolve(shortcut, weights["shortcut_conv"][0], 1)
        shortcut = normalized(shortcut, *weights["shortcut_bn"], 1e-3)
    return activation(outputs + shortcut)


@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_bottleneck_computes_with_its_active_weights(kind, rng):
    largest, part = BOTTLENECKS[kind]
    block = bottleneck_block(largest, rng)
    for plan in (largest, dataclasses.replace(largest, **part)):
        for side in (plan.in_size, 6, 7):
            inputs = images(rng, 2, side, side, plan.in_channels)
            outputs = block(inputs, sizes=plan.sizes)
            out = -(-side // plan.stride)
            assert outputs.shape == (2, out, out, plan.out_channels)
            assert_near(outputs, computed_bottleneck(plan, block.active_weights(plan), inputs))
            assert np.mean(outputs > 0) > 0.1  # ReLU left something to compare
    inputs = images(rng, 2, 9, 9, largest.in_channels)
    np.testing.assert_array_equal(block(inputs), block(inputs, sizes=largest.sizes))


@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_active_weights_of_a_bottleneck_are_the_first_channels(kind, rng):
    """In both directions."""
    largest, part = BOTTLENECKS[kind]
    plan, block = dataclasses.replace(largest, **part), bottleneck_block(largest, rng)
    ins, mid, out = plan.in_channels, plan.mid_channels, plan.out_channels
    corners = {"reduce": (ins, mid), "spatial": (mid, mid), "widen": (mid, out)}
    if plan.shortcut != "identity":
        corners["shortcut"] = (ins, out)
    weights = block.active_weights(plan)
    assert list(weights) == list(block.named_layers)
    assert set(weights) == {f"{name}_{kind}" for name in corners for kind in ("conv", "bn")}
    for name, (first, last) in corners.items():
        conv, bn = block.named_layers[f"{name}_conv"], block.named_layers[f"{name}_bn"]
        (kernel,) = weights[f"{name}_conv"]
        np.testing.assert_array_equal(kernel, conv.kernel.numpy()[:, :, :first, :last])
        for value, weight in zip(weights[f"{name}_bn"], bn.weights, strict=True):
            np.testing.assert_array_equal(value, weight.numpy()[:last])


def test_average_pool_divides_a_partial_window_by_its_own_pixels(rng):
    """As PyTorch's AvgPool2d(2, 2, ceil_mode=True) of odd sizes."""
    plan = dataclasses.replace(STRIDED, in_size=3, in_channels=1, out_channels=1)
    block = bottleneck_block(plan, rng)
    for weight in block.widen_bn.trainable_weights:
        weight.assign([0.0])  # what is left is the shortcut
    block.shortcut_conv.kernel.assign([[[[1.0]]]])
    for weight, value in zip(block.shortcut_bn.weights, (1, 0, 0, 1 - 1e-3), strict=True):
        weight.assign([value])
    inputs = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(block(inputs)[0, :, :, 0], [[3, 4.5], [7.5, 9]], rtol=1e-5)


@pytest.mark.parametrize("side", [5, 6, 9])
def test_max_pool(side, rng):
    block = MaxPoolBlock(blueprint.MaxPool("max_pool", side, 6, 3, 2))
    inputs = np.maximum(images(rng, 2, side, side, 4), 0)
    expected = pool(inputs, 3, 2)
    assert expected.shape == (2, block.plan.out_size, block.plan.out_size, 4)
    np.testing.assert_array_equal(block(inputs), expected)


def test_global_pool(rng):
    block = GlobalPoolBlock(blueprint.GlobalPool("pool", 5, 6))
    inputs = images(rng, 2, 5, 5, 4)
    expected = inputs.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(block(inputs), expected, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize(("ins", "out"), [(6, 8), (4, 8), (6, 5), (3, 2)])
def test_narrower_conv_block(ins, out, rng):
    largest = blueprint.Conv("stem", 8, 6, 8, 3, 2, "relu")
    plan = dataclasses.replace(largest, in_channels=ins, out_channels=out)
    block = ConvBlock(largest, bn_epsilon=1e-3)
    block.build((None, None, None, 6))
    draw(block, rng)
    inputs = images(rng, 2, 8, 8, ins)
    expected = convolve(inputs, block.conv.kernel.numpy()[:, :, :ins, :out], 2)
    expected = normalized(expected, *(w.numpy()[:out] for w in block.bn.weights), 1e-3)
    assert_near(block(inputs, sizes=plan.sizes), relu(expected))
    (kernel,), statistics = block.active_weights(plan).values()
    np.testing.assert_array_equal(kernel, block.conv.kernel.numpy()[:, :, :ins, :out])
    assert [value.shape for value in statistics] == [(out,)] * 4


@pytest.mark.parametrize("channels", [6, 4])
def test_conv_block_adds_its_input_after_the_activation(channels, rng):
    plan = blueprint.Conv("stem1", 8, 6, 6, 3, 1, "relu", shortcut=True)
    block = ConvBlock(plan, bn_epsilon=1e-3)
    block.build((None, None, None, 6))
    draw(block, rng)
    inputs = images(rng, 2, 7, 7, channels)
    plan = dataclasses.replace(plan, in_channels=channels, out_channels=channels)
    weights = arrays(block.active_weights(plan))
    expected = convolve(inputs, weights["conv"][0], 1)
    expected = inputs + relu(normalized(expected, *weights["bn"], 1e-3))
    assert expected.min() < 0
    assert_near(block(inputs, sizes=plan.sizes), expected)


def test_classifier_block(rng):
    plan = blueprint.Classifier("classifier", 6, 4, 0.1)
    block = ClassifierBlock(plan)
    block.build((None, 1, 1, 6))
    draw(block, rng)
    inputs = images(rng, 3, 1, 1, 6)
    kernel, bias = (weight.numpy() for weight in block.active_weights(plan)["dense"])
    np.testing.assert_allclose(block(inputs), inputs[:, 0, 0] @ kernel + bias, atol=1e-5)


def make_block(plan, rng):
    bottleneck = isinstance(plan, blueprint.Bottleneck)
    return (bottleneck_block if bottleneck else residual_block)(plan, rng)


PERMUTED = {name: PLANS[name] for name in ("shortcut", "strided", "plain")} | BOTTLENECKS


@pytest.mark.parametrize("kind", PERMUTED)
@pytest.mark.parametrize("mode", [{}, {"bn_update": KEEP_STATISTICS}])
def test_permuted_channels_leave_the_function_unchanged(kind, mode, rng):
    plan, part = PERMUTED[kind]
    block = make_block(plan, rng)
    inputs = images(rng, 2, 8, 8, plan.in_channels)
    narrow = dataclasses.replace(plan, **part)
    fewer = inputs[..., : narrow.in_channels]
    before, narrow_before = block(inputs, **mode), block(fewer, sizes=narrow.sizes, **mode)
    for group in block.channel_groups:
        weights_before = block.get_weights()
        group.permute(rng.permutation(getattr(plan, group.size)))
        scale = np.abs(before).max()
        np.testing.assert_allclose(block(inputs, **mode) / scale, before / scale, atol=3e-6)
        # It moved the variables that it names, and no other.
        pairs = zip(block.weights, weights_before, strict=True)
        moved = {id(v) for v, old in pairs if (v.numpy() != old).any()}
        assert moved == {id(variable) for variable, _ in group.axes}
        assert id(group.reader) in moved
    # It did reorder: a narrower subnet has other channels now.
    changed = block(fewer, sizes=narrow.sizes, **mode) - narrow_before
    assert np.abs(changed).max() > 0.01 * scale


@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_a_bottleneck_has_a_group_at_each_side_of_its_middle(kind, rng):
    """Each stands between one convolution that writes it and one that reads it."""
    block = bottleneck_block(BOTTLENECKS[kind][0], rng)
    groups = block.channel_groups
    assert [group.size for group in groups] == ["mid_channels"] * 2
    assert {id(group.reader) for group in groups} == {
        id(block.spatial_conv.kernel),
        id(block.widen_conv.kernel),
    }
    for group in groups:
        assert (id(group.reader), 2) in [(id(variable), axis) for variable, axis in group.axes]
        assert sum(axis == 3 for _, axis in group.axes) == 1
        assert sum(axis == 0 for _, axis in group.axes) == 4


def test_permutation_takes_channels_in_the_given_order(rng):
    plan, _ = PLANS["shortcut"]
    block = residual_block(plan, rng)
    project = block.project_conv.kernel.numpy()
    reduce = block.squeeze_excite.reduce.bias.numpy()
    mid_order, se_order = rng.permutation(32), rng.permutation(8)
    mid, se = block.channel_groups
    mid.permute(mid_order)
    se.permute(se_order)
    np.testing.assert_array_equal(block.project_conv.kernel, project[:, :, mid_order])
    np.testing.assert_array_equal(block.squeeze_excite.reduce.bias, reduce[se_order])


def test_every_elastic_size_is_one_trace(rng):
    plan, _ = PLANS["shortcut"]
    block = residual_block(plan, rng)
    traces = 0

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 8], tf.float32),
            tf.TensorSpec([4], tf.int32),
        ]
    )
    def run(inputs, row):
        nonlocal traces
        traces += 1
        return block(inputs, sizes=blueprint.Sizes(*tf.unstack(row)))

    for size in (5, 8):
        inputs = images(rng, 2, size, size, 8)
        for kernel, mid, se in ((3, 8, 2), (5, 32, 8), (7, 24, 5)):
            part = dataclasses.replace(
                plan, in_size=size, kernel_size=kernel, mid_channels=mid, se_channels=se
            )
            expected = computed(part, block.active_weights(part), inputs)
            outputs = run(inputs, part.sizes.values())
            np.testing.assert_allclose(outputs, expected, rtol=0, atol=2e-6 * np.ptp(expected))
    assert traces == 1


def test_every_width_of_a_bottleneck_is_one_trace(rng):
    block = bottleneck_block(STRIDED, rng)
    traces = 0

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, None], tf.float32),
            tf.TensorSpec([4], tf.int32),
        ]
    )
    def run(inputs, row):
        nonlocal traces
        traces += 1
        return block(inputs, sizes=blueprint.Sizes(*tf.unstack(row)))

    for size in (5, 8):
        for ins, mid, out in ((12, 8, 16), (1, 1, 1), (7, 5, 9)):
            part = dataclasses.replace(
                STRIDED, in_size=size, in_channels=ins, mid_channels=mid, out_channels=out
            )
            inputs = images(rng, 2, size, size, ins)
            expected = computed_bottleneck(part, block.active_weights(part), inputs)
            assert_near(run(inputs, part.sizes.values()), expected)
    assert traces == 1


def test_blueprints_and_layers_know_the_same_activations():
    assert set(_ACTIVATIONS) == set(blueprint.ACTIVATIONS)


NAMES = {
    "conv": ["conv", "bn"],
    "inverted_residual": [
        *("expand_conv", "expand_bn", "depthwise_conv", "depthwise_bn", "se_reduce", "se_expand"),
        *("project_conv", "project_bn"),
    ],
    "first": ["depthwise_conv", "depthwise_bn", "project_conv", "project_bn"],
    "classifier": ["dense"],
    "max_pool": [],
}


def test_layers_by_the_names_of_the_plain_network(rng):
    blocks = {
        "conv": ConvBlock(blueprint.Conv("stem", 8, 3, 8, 3, 2, "relu")),
        "inverted_residual": residual_block(LARGEST, rng),
        "first": residual_block(PLANS["first"][0], rng),
        "classifier": ClassifierBlock(blueprint.Classifier("classifier", 6, 4, 0.1)),
        "max_pool": MaxPoolBlock(blueprint.MaxPool("max_pool", 8, 6, 3, 2)),
    }
    for name, block in blocks.items():
        if not block.built:
            block.build((None, None, None, None))
        named = block.named_layers
        assert list(named) == NAMES[name]
        held = [id(weight) for layer in named.values() for weight in layer.weights]
        assert sorted(held) == sorted(id(weight) for weight in block.weights)
        if held:
            assert list(block.active_weights(block.plan)) == NAMES[name]
