"""What every elastic layer and block has to do, whatever it computes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from layers_helpers import draw, images

from ofa_tf import layers
from ofa_tf.spaces import blueprint

RESIDUAL = blueprint.InvertedResidual(
    name="block",
    position=0,
    in_size=9,
    in_channels=8,
    mid_channels=24,
    out_channels=8,
    kernel_size=7,
    stride=1,
    activation="hard_swish",
    se_channels=8,
    expand=True,
    shortcut=True,
)
FIRST = dataclasses.replace(
    RESIDUAL, position=None, mid_channels=8, kernel_size=3, se_channels=0, expand=False
)
STRIDED = dataclasses.replace(
    RESIDUAL, activation="relu", out_channels=12, stride=2, se_channels=0, shortcut=False
)
KERNELS = {"kernel_sizes": (3, 5, 7)}
BOTTLENECK = blueprint.Bottleneck(
    name="block",
    position=0,
    in_size=9,
    in_channels=12,
    mid_channels=8,
    out_channels=16,
    kernel_size=3,
    stride=2,
    activation="relu",
    shortcut="avg_pool_conv",
)
IDENTITY = dataclasses.replace(BOTTLENECK, out_channels=12, stride=1, shortcut="identity")


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, the shape of its largest input, and the sizes with which it runs in part.

    `call(layer, inputs, *sizes)` runs it; `sizes` lists (input channels, *sizes), largest first.
    """

    make: Callable[[], keras.layers.Layer]
    input_shape: tuple[int, ...]
    call: Callable
    sizes: tuple[tuple[int, ...], ...]


def run_block(layer, inputs, kernel, mid, se, out):
    return layer(inputs, sizes=blueprint.Sizes(kernel, mid, se, out))


def run_conv_block(layer, inputs, out):
    return run_block(layer, inputs, 3, 0, 0, out)


def run_bottleneck(layer, inputs, mid, out):
    return run_block(layer, inputs, 3, mid, 0, out)


def run(layer, inputs):
    return layer(inputs)


CASES = {
    "conv": Case(
        lambda: layers.ElasticConv2D(12, 3, 2, use_bias=True),
        (2, 9, 8, 6),
        lambda layer, inputs, out: layer(inputs, out_channels=out),
        ((6, 12), (6, 5), (4, 12), (2, 1)),
    ),
    "depthwise": Case(
        lambda: layers.ElasticDepthwiseConv2D((3, 5, 7), 2),
        (2, 9, 8, 6),
        lambda layer, inputs, kernel: layer(inputs, kernel_size=kernel),
        ((6, 3), (6, 7), (6, 5), (4, 3), (1, 7)),
    ),
    "batch_norm": Case(layers.ElasticBatchNormalization, (2, 5, 4, 6), run, ((6,), (4,), (1,))),
    "squeeze_excite": Case(
        lambda: layers.ElasticSqueezeExcite(8),
        (2, 5, 4, 6),
        lambda layer, inputs, se: layer(inputs, se_channels=se),
        ((6, 8), (4, 8), (6, 3), (2, 1)),
    ),
    "dense": Case(lambda: layers.ElasticDense(5), (3, 7), run, ((7,), (4,), (1,))),
    "conv_block": Case(
        lambda: layers.ConvBlock(blueprint.Conv("stem", 9, 3, 8, 3, 2, "hard_swish")),
        (2, 9, 9, 3),
        run_conv_block,
        ((3, 8), (3, 5), (2, 8), (1, 1)),
    ),
    "conv_block_with_a_shortcut": Case(
        lambda: layers.ConvBlock(blueprint.Conv("stem", 9, 6, 6, 3, 1, "relu", shortcut=True)),
        (2, 9, 9, 6),
        run_conv_block,
        ((6, 6), (4, 4), (1, 1)),
    ),
    "conv_block_without_batch_norm": Case(
        lambda: layers.ConvBlock(blueprint.Conv("mix", 1, 6, 8, 1, 1, "relu", batch_norm=False)),
        (2, 1, 1, 6),
        run,
        ((6,),),
    ),
    "inverted_residual": Case(
        lambda: layers.InvertedResidualBlock(RESIDUAL, **KERNELS),
        (2, 9, 9, 8),
        run_block,
        ((8, 3, 24, 8, 8), (8, 7, 24, 8, 8), (8, 5, 16, 4, 8), (8, 3, 8, 1, 8)),
    ),
    "inverted_residual_strided": Case(
        lambda: layers.InvertedResidualBlock(STRIDED, **KERNELS, bn_momentum=0.8, bn_epsilon=1e-3),
        (2, 9, 9, 8),
        run_block,
        ((8, 3, 24, 0, 12), (8, 7, 24, 0, 12), (8, 5, 16, 0, 12)),
    ),
    "first_block": Case(lambda: layers.InvertedResidualBlock(FIRST), (2, 9, 9, 8), run, ((8,),)),
    "bottleneck": Case(
        lambda: layers.BottleneckBlock(BOTTLENECK, bn_momentum=0.8, bn_epsilon=1e-3),
        (2, 9, 9, 12),
        run_bottleneck,
        ((12, 8, 16), (12, 4, 16), (7, 8, 16), (12, 8, 9), (5, 3, 6)),
    ),
    "bottleneck_with_an_identity": Case(
        lambda: layers.BottleneckBlock(IDENTITY),
        (2, 9, 9, 12),
        run_bottleneck,
        ((12, 8, 12), (12, 4, 12), (7, 8, 7), (5, 3, 5)),
    ),
    "bottleneck_with_a_strided_shortcut": Case(
        lambda: layers.BottleneckBlock(dataclasses.replace(BOTTLENECK, shortcut="conv")),
        (2, 9, 9, 12),
        run_bottleneck,
        ((12, 8, 16), (5, 3, 6)),
    ),
    "max_pool": Case(
        lambda: layers.MaxPoolBlock(blueprint.MaxPool("pool", 9, 6, 3, 2)),
        (2, 9, 9, 6),
        run,
        ((6,), (4,)),
    ),
    "global_pool": Case(
        lambda: layers.GlobalPoolBlock(blueprint.GlobalPool("pool", 9, 6)),
        (2, 9, 9, 6),
        run,
        ((6,), (4,)),
    ),
    "classifier": Case(
        lambda: layers.ClassifierBlock(blueprint.Classifier("classifier", 7, 5, 0.1)),
        (3, 1, 1, 7),
        run,
        ((7,),),
    ),
}


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def layer(case, rng):
    layer = case.make()
    layer.build((None, *case.input_shape[1:]))
    draw(layer, rng)
    return layer


def test_config_makes_the_same_layer(case, layer, rng):
    config = json.loads(json.dumps(layer.get_config()))
    twin = type(layer).from_config(config)
    twin.build((None, *case.input_shape[1:]))
    assert twin.name == layer.name
    assert json.loads(json.dumps(twin.get_config())) == config
    twin.set_weights(layer.get_weights())
    inputs, sizes = images(rng, *case.input_shape), case.sizes[-1][1:]
    inputs = inputs[..., : case.sizes[-1][0]]
    np.testing.assert_array_equal(case.call(twin, inputs, *sizes), case.call(layer, inputs, *sizes))


def test_tensors_and_ints_give_the_same_in_one_trace(case, layer, rng):
    traces = 0

    @tf.function(
        input_signature=[
            tf.TensorSpec([None] * len(case.input_shape), tf.float32),
            *[tf.TensorSpec([], tf.int32)] * (len(case.sizes[0]) - 1),
        ]
    )
    def elastic(inputs, *sizes):
        nonlocal traces
        traces += 1
        return case.call(layer, inputs, *sizes)

    outputs = []
    for channels, *sizes in case.sizes:
        inputs = images(rng, *case.input_shape[:-1], channels)
        expected = case.call(layer, inputs, *sizes).numpy()
        outputs.append(elastic(inputs, *sizes).numpy())
        np.testing.assert_allclose(outputs[-1], expected, rtol=1e-5, atol=1e-5)
        assert np.ptp(expected) > 0.1
    assert traces == 1


def test_gradients_reach_every_trainable_weight_and_the_input(case, layer, rng):
    sizes = case.sizes[0][1:]  # all channels, the smallest kernel: every transform takes part
    with tf.GradientTape() as tape:
        inputs = tf.Variable(images(rng, *case.input_shape))
        outputs = case.call(layer, inputs, *sizes)
        loss = tf.reduce_sum(outputs * images(rng, *outputs.shape))
    watched = [inputs, *layer.trainable_weights]
    for variable, gradient in zip(watched, tape.gradient(loss, watched), strict=True):
        assert gradient is not None, variable
        assert gradient.shape == variable.shape
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 1e-4, variable


def test_saved_in_a_functional_model(case, layer, rng, tmp_path):
    inputs = keras.Input(case.input_shape[1:])
    model = keras.Model(inputs, layer(inputs))
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path, custom_objects={type(layer).__name__: type(layer)})
    batch = images(rng, *case.input_shape)
    np.testing.assert_array_equal(loaded(batch), model(batch))
    assert len(loaded.weights) == len(layer.weights)
    assert bool(layer.weights) == ("pool" not in layer.name)
