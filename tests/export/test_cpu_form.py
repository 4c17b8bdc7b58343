"""The CPU form: the same function as the plain network, in what XNNPACK takes whole."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from export_helpers import random_subnet

import ofa_tf
from mobile_bench.host.worker import LoadedModel
from ofa_tf.data import MEAN, STD
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export import FORMATS, Interface, check_formats, convert_subnet
from ofa_tf.export.cpu_form import MAX_TAPS, BandedBuilder, ProductBuilder, bands
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.models.subnet import rewrite
from ofa_tf.search import measures
from ofa_tf.spaces import Blueprint, blueprint


def network(name: str) -> tuple[keras.Model, Blueprint, Interface]:
    """A network of the space with kernels of 7, 5 and 3, squeeze-excite and shortcuts."""
    space, rng = ofa_tf.get_space(name), np.random.default_rng(1)
    low = space.restrict(resolutions=space.resolutions[:1])
    arch = low.sample(rng) if "resnet" in name else low.max()
    if "resnet" not in name:
        kernels = [space.kernel_sizes[-1 - i % 2] for i in range(len(arch.kernel_sizes))]
        arch = space.arch(arch.to_dict() | {"ks": kernels})
    plan, interface = space.blueprint(arch, 10), Interface((MEAN, STD))
    return random_subnet(plan, interface), plan, interface


def draw_images(plan: Blueprint, count: int) -> np.ndarray:
    shape = (count, plan.resolution, plan.resolution, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


NETWORKS = ("ofa_mbv3_cifar", "ofa_proxyless_w1.3", "ofa_resnet_tiny")


@pytest.mark.parametrize("builder", [BandedBuilder, ProductBuilder])
@pytest.mark.parametrize(
    "name",
    [NETWORKS[0], pytest.param(NETWORKS[1], marks=pytest.mark.slow), NETWORKS[2]],
)
def test_it_computes_what_the_plain_network_does(name, builder):
    model, plan, interface = network(name)
    images = draw_images(plan, 2)
    written = rewrite(model, plan, builder, **interface.build_options)
    expected, found = (m.predict_on_batch(images) for m in (model, written))
    assert np.abs(expected - expected[0]).max() > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_every_kernel_has_a_kernel_of_xnnpack():
    model, plan, interface = network("ofa_mbv3_cifar")
    assert any(getattr(block, "kernel_size", 0) == 7 for block in plan.blocks)
    written = rewrite(model, plan, BandedBuilder, **interface.build_options)
    depthwise = [x for x in written.layers if isinstance(x, keras.layers.DepthwiseConv2D)]
    assert max(np.prod(layer.kernel_size) for layer in depthwise) <= MAX_TAPS
    assert bands(7) == [(0, 3), (3, 6), (6, 7)]


@pytest.mark.parametrize(
    "name", [NETWORKS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS[1:])]
)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_delegate_takes_it_whole(name, precision, tmp_path):
    model, plan, interface = network(name)
    images = draw_images(plan, 8)
    delegations = {}
    for form in ("cpu", "plain"):
        path = tmp_path / f"{form}.tflite"
        path.write_bytes(convert_subnet(model, plan, interface, precision, images, form=form))
        delegations[form] = LoadedModel(str(path), 1, "xnnpack").delegation()
        outputs, expected = TFLiteClassifier(path)(images), model.predict_on_batch(images)
        # Made-up weights suffer from int8 more than trained ones do.
        tolerance = 1e-4 if precision == "float32" else 0.35
        assert np.sqrt(np.mean((outputs - expected) ** 2)) < tolerance * expected.std()
    assert (delegations["cpu"]["partitions"], delegations["cpu"]["ops_outside"]) == (1, {})
    if precision == "int8" and "mbv3" in name:  # what the plain form is there for, and costs
        assert set(delegations["plain"]["ops_outside"]) == {"HARD_SWISH"}
        assert delegations["plain"]["partitions"] > 1


def test_the_gate_keeps_its_own_range(tmp_path):
    """The converter's calibration took the range of the product for it."""
    model, plan, interface = network("ofa_mbv3_cifar")
    content = convert_subnet(model, plan, interface, "int8", draw_images(plan, 4))
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    scales = {t["index"]: t["quantization"][0] for t in interpreter.get_tensor_details()}
    ops = [op for op in interpreter._get_ops_details() if op["op_name"] == "ADD"]
    # Only a gate adds a number to all; other sums are of two feature maps, or of rows.
    shapes = {t["index"]: t["shape"].tolist() for t in interpreter.get_tensor_details()}
    gates = [scales[op["outputs"][0]] for op in ops if shapes[op["inputs"][1]] == []]
    hard_swishes = sum(
        (2 if isinstance(block, blueprint.InvertedResidual) else 1)
        for block in plan.blocks
        if getattr(block, "activation", "") == "hard_swish"
    )
    assert len(gates) == hard_swishes > 5
    np.testing.assert_allclose(gates, 6 / 255, rtol=1e-4)


def test_int16_needs_the_products(tmp_path):
    model, plan, interface = network("ofa_mbv3_cifar")
    images, path = draw_images(plan, 4), tmp_path / "int16x8.tflite"
    with pytest.raises(FailureError, match=r"int16x8 TFLite: .*HARD_SWISH"):
        convert_subnet(model, plan, interface, "int16x8", images, form="plain")
    path.write_bytes(convert_subnet(model, plan, interface, "int16x8", images))
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    types = {t["index"]: np.dtype(t["dtype"]).name for t in interpreter.get_tensor_details()}
    products = [op for op in interpreter._get_ops_details() if op["op_name"] == "MUL"]
    assert len(products) > 10
    assert {types[index] for op in products for index in op["outputs"]} == {"int16"}
    outputs, expected = TFLiteClassifier(path)(images), model.predict_on_batch(images)
    # Made-up weights suffer from int8 more than trained ones do.
    assert np.sqrt(np.mean((outputs - expected) ** 2)) < 0.2 * expected.std()


def in_products(*blocks) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of a plain network and of its products, for equal images."""
    last, interface = blocks[-1], Interface((MEAN, STD))
    pool = blueprint.GlobalPool("pool", last.out_size, last.out_channels)
    plan = Blueprint(8, (*blocks, pool, blueprint.Classifier("head", last.out_channels, 4, 0.0)))
    model, images = random_subnet(plan, interface), draw_images(plan, 2)
    written = rewrite(model, plan, ProductBuilder, **interface.build_options)
    return written.predict_on_batch(images), model.predict_on_batch(images)


def conv(name: str, channels: int, activation: str, shortcut: bool = False) -> blueprint.Conv:
    return blueprint.Conv(name, 8, channels, 8, 3, 1, activation, shortcut=shortcut)


def test_a_sum_of_two_hard_swishes_is_as_large_as_either():
    found, expected = in_products(
        conv("a", 3, "hard_swish"), conv("b", 8, "hard_swish", shortcut=True)
    )
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "blocks",
    [
        (conv("a", 3, "hard_swish"), conv("b", 8, "relu", shortcut=True)),
        (conv("a", 3, "relu"), conv("b", 8, "hard_swish", shortcut=True)),
        (
            conv("a", 3, "hard_swish"),
            blueprint.Bottleneck("b", 0, 8, 8, 4, 8, 3, 1, "relu", "identity"),
        ),
        (
            conv("a", 3, "relu"),
            blueprint.Bottleneck("b", 0, 8, 8, 4, 8, 3, 1, "hard_swish", "identity"),
        ),
    ],
)
def test_blocks_without_a_product_form_are_refused(blocks):
    with pytest.raises(UsageError, match=r"no way to write b: .* Use the plain form"):
        in_products(*blocks)


def test_file_sizes_are_estimated_with_the_same_largest_kernel():
    assert measures._MAX_TAPS == MAX_TAPS  # search/ may not import export/


def test_unknown_forms_and_interfaces_are_refused():
    model, plan, interface = network("ofa_mbv3_cifar")
    with pytest.raises(UsageError, match="form is one of cpu, plain, not 'gpu'"):
        convert_subnet(model, plan, interface, "float32", form="gpu")
    with pytest.raises(UsageError, match="input is one of pixels, uint8, float32, not 'bytes'"):
        Interface((MEAN, STD), "bytes")
    with pytest.raises(UsageError, match="output is one of logits, softmax, not 'class'"):
        Interface((MEAN, STD), output="class")


def test_formats():
    assert check_formats(["tflite_int8", "keras", "keras"]) == ("keras", "tflite_int8")
    for wrong in ([], ["onnx"]):
        with pytest.raises(UsageError, match=f"formats are some of {', '.join(FORMATS)}; unknown"):
            check_formats(wrong)
