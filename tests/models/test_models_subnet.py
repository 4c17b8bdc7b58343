"""The plain Keras network of a Blueprint: its layers, its counts, its options."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from model_helpers import (
    NUM_CLASSES,
    TINY_SPACES,
    deviation,
    every_family,
    make_archs,
    make_images,
    spread,
)

from ofa_tf.errors import UsageError
from ofa_tf.models import Supernet, build_subnet, copy_weights
from ofa_tf.spaces import get_space, list_spaces

MEAN, STD = (123.0, 116.0, 103.0), (58.0, 57.0, 60.0)


def counted_macs(model: keras.Model) -> int:
    """Multiply-accumulates from the shapes of the built layers: kernel entries times pixels."""
    macs = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            macs += int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, keras.layers.Dense):
            macs += int(np.prod(layer.kernel.shape))
    return macs


def check_counts(plan):
    model = build_subnet(plan)
    assert model.input_shape == (None, plan.resolution, plan.resolution, 3)
    assert model.output_shape == (None, plan.num_classes)
    assert counted_macs(model) == plan.macs
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == plan.params
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (plan.bn_momentum, plan.bn_epsilon)


@pytest.mark.parametrize("name", list_spaces())
def test_macs_and_params_are_those_of_the_keras_network(name):
    space = get_space(name)
    arch = space.sample(np.random.default_rng(1))
    check_counts(space.blueprint(arch, NUM_CLASSES))


@pytest.mark.parametrize("family", TINY_SPACES)
@pytest.mark.parametrize("index", range(4))
def test_macs_and_params_of_tiny_subnets(family, index):
    space = TINY_SPACES[family]
    check_counts(space.blueprint(make_archs(space, 4)[index], NUM_CLASSES))


@pytest.mark.parametrize("name", list_spaces())
def test_supernet_parameters(name):
    """Those of the largest subnet, and a 25x25 and a 9x9 transform per block of three kernels."""
    space = get_space(name)
    supernet = Supernet(space, num_classes=1000)
    params = sum(int(np.prod(v.shape)) for v in supernet.trainable_variables)
    transforms = (25 * 25 + 9 * 9) * space.num_positions if len(space.kernel_sizes) == 3 else 0
    assert params == space.blueprint(space.max()).params + transforms
    if name == "ofa_mbv3_w1.0":
        assert params == 7_678_880  # as published


@every_family
def test_subnet_is_plain_keras(supernet, tmp_path):
    model = supernet.subnet(supernet.space.max(), normalization=(MEAN, STD))
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert all(getattr(keras.layers, type(x).__name__, None) is type(x) for x in model.layers)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = 255 * np.abs(make_images(32, 3, seed=0))
    np.testing.assert_array_equal(loaded(images), model(images))


@every_family
def test_every_layer_of_the_plain_network_is_named_after_the_elastic_one(supernet):
    """So that weights find their places: `block_layer`, and all that have weights."""
    model = supernet.subnet(supernet.space.max())
    named = {
        f"{block.name}_{name}": layer
        for block in supernet.blocks
        for name, layer in block.named_layers.items()
    }
    plain = {layer.name: layer for layer in model.layers if layer.weights}
    assert sorted(named) == sorted(plain)
    trainable = {id(w) for layer in named.values() for w in layer.trainable_weights}
    assert trainable == {id(v) for v in supernet.trainable_variables}


def test_materializing_copies(supernet):
    """What happens to the cut-out model later does not happen to the supernet."""
    arch, images = supernet.space.min(), make_images(24, 3, seed=0)
    expected = supernet(images, arch).numpy()
    model = supernet.subnet(arch)
    for variable in model.variables:
        variable.assign(variable + 1)
    np.testing.assert_array_equal(supernet(images, arch), expected)
    assert deviation(model(images), expected) > 0.01


def test_normalization_equals_normalizing_before(supernet):
    arch = supernet.space.min()
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 24, 24, 3)).astype(np.float32)
    expected = supernet((pixels - np.float32(MEAN)) / np.float32(STD), arch)
    model = supernet.subnet(arch, normalization=(MEAN, STD))
    assert deviation(model(pixels), expected) < 1e-4
    assert deviation(supernet.subnet(arch)(pixels), expected) > 0.01


def test_raw_images_are_the_same_as_float_pixels(supernet):
    arch, options = supernet.space.min(), {"normalization": (MEAN, STD)}
    pixels = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
    expected = supernet.subnet(arch, **options)(pixels.astype(np.float32)).numpy()
    assert spread(expected) > 0.01
    model = supernet.subnet(arch, **options, input_dtype="uint8")
    assert model.inputs[0].dtype == "uint8"
    np.testing.assert_array_equal(model(pixels), expected)


def test_raw_images_without_normalization_are_refused(supernet):
    with pytest.raises(UsageError, match="uint8 images needs their normalization"):
        supernet.subnet(supernet.space.min(), input_dtype="uint8")


def test_a_softmax_head_gives_the_probabilities(supernet):
    arch, images = supernet.space.min(), make_images(24, 4, seed=0)
    logits = supernet.subnet(arch)(images).numpy()
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = odds / odds.sum(axis=1, keepdims=True)
    probabilities = supernet.subnet(arch, head="softmax")(images)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", TINY_SPACES)
def test_a_backbone_gives_the_feature_maps_inside(family):
    """The outputs of the networks that end with the last block of each stride."""
    space = TINY_SPACES[family]
    plan = space.blueprint(space.max(), NUM_CLASSES)
    whole = build_subnet(plan)
    rng = np.random.default_rng(0)
    for variable in whole.trainable_variables:
        variable.assign(variable + 0.1 * rng.normal(size=variable.shape))
    backbone = build_subnet(plan, head="features")
    copy_weights(whole, backbone)
    images = make_images(plan.resolution, 2, seed=0)
    found = backbone(images)
    assert list(found) == [f"stride_{stride}" for stride in plan.feature_blocks]
    for stride, block in plan.feature_blocks.items():
        until = plan.blocks[: plan.blocks.index(block) + 1]
        part = build_subnet(dataclasses.replace(plan, blocks=until))
        copy_weights(whole, part)
        maps = found[f"stride_{stride}"]
        side = plan.resolution // stride
        assert maps.shape == (2, side, side, block.out_channels)
        assert np.ptp(maps) > 0.1
        np.testing.assert_allclose(maps, part(images), rtol=1e-5, atol=1e-6)
    # The classifier is not built, nor is what comes before it after the last map.
    assert not any(layer.name.startswith("classifier") for layer in backbone.layers)


def test_an_unknown_head_is_refused(supernet):
    with pytest.raises(UsageError, match="logits, softmax, features, not 'probabilities'"):
        supernet.subnet(supernet.space.min(), head="probabilities")


def test_a_space_with_swish(supernet):
    """Supernet and plain network compute the same; another function than with hard-swish."""
    space = get_space("ofa_mbv3_tiny-swish")
    other, images = Supernet(space, NUM_CLASSES), make_images(24, 4, seed=0)
    for theirs, ours in zip(other.variables, supernet.variables, strict=True):
        theirs.assign(ours.numpy())
    for arch in make_archs(space, 4):
        arch = dataclasses.replace(arch, resolution=24)
        expected = other.subnet(arch)(images).numpy()
        assert spread(expected) > 5e-3
        assert deviation(other(images, arch), expected) < 1e-4
        assert deviation(supernet(images, arch), expected) > 5e-3


def test_name_and_a_fixed_batch(supernet):
    arch, images = supernet.space.min(), make_images(24, 1, seed=0)
    model = supernet.subnet(arch, batch_size=1, name="small")
    assert model.name == "small"
    assert model.input_shape == (1, 24, 24, 3)
    assert model.output_shape == (1, NUM_CLASSES)
    assert deviation(model(images), supernet(images, arch)) < 1e-4


@pytest.mark.parametrize("family", TINY_SPACES)
def test_one_block_is_a_model_of_its_own(family):
    """As the latency table measures them."""
    space = TINY_SPACES[family]
    plan = space.blueprint(space.max(), NUM_CLASSES)
    for block in plan.blocks:
        model = build_subnet(dataclasses.replace(plan, blocks=(block,)), batch_size=1)
        assert model.input_shape == (1, block.in_size, block.in_size, block.in_channels)
        out = (block.out_size, block.out_size, block.out_channels)
        assert model.output_shape == ((1, *out[2:]) if block is plan.blocks[-1] else (1, *out))
        assert counted_macs(model) == block.macs
