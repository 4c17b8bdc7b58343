"""Quantization-aware training: the emulation, the training, and the file that comes of it."""

from __future__ import annotations

import dataclasses
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from export_helpers import random_subnet, separated_images

from mobile_bench.host.worker import LoadedModel
from ofa_tf.data import MEAN, STD
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export.emulation import Border, verify_file
from ofa_tf.export.interface import Interface
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.spaces import Blueprint, blueprint, get_space

SIDE, NUM_CLASSES = 16, 10


def mobile(activation: str, kernel_size: int, se_channels: int, stride: int = 2) -> Blueprint:
    stem = blueprint.Conv("stem", SIDE, 3, 8, 3, stride, activation)
    size = stem.out_size
    return network(
        stem,
        blueprint.InvertedResidual(
            "block", 0, size, 8, 16, 8, kernel_size, 1, activation, se_channels, True, True
        ),
    )


def network(*blocks) -> Blueprint:
    last = blocks[-1]
    pool = blueprint.GlobalPool("pool", last.out_size, last.out_channels)
    classifier = blueprint.Classifier("classifier", last.out_channels, NUM_CLASSES, 0.1)
    return Blueprint(SIDE, (*blocks, pool, classifier))


PLANS = {
    "mbv3": mobile("hard_swish", 7, 8),
    "mbv3 on 3 px": mobile("hard_swish", 7, 8, stride=6),
    "swish": mobile("swish", 3, 8),
    "proxyless": mobile("relu6", 5, 0),
    "resnet": network(
        blueprint.Conv("stem", SIDE, 3, 8, 3, 1, "relu"),
        blueprint.MaxPool("pooled", SIDE, 8, 3, 2),
        blueprint.Bottleneck("block", 0, 8, 8, 8, 16, 3, 2, "relu", "avg_pool_conv"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network and what came of it."""

    model: keras.Model
    interface: Interface
    result: object
    path: str
    pixels: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """The pixels as the file takes them."""
        return Border(self.interface, "cpu").given(self.pixels).numpy()


def train(plan, folder, *, input="pixels", output="logits", form="cpu", epochs=0, **settings):
    from ofa_tf.export.qat import quantization_aware

    interface = Interface((MEAN, STD), input, output)
    model = random_subnet(plan, interface)
    images, labels = separated_images(plan.resolution, 96, seed=1)
    options = {
        "train_batches": [(images[:32], labels[:32]), (images[32:64], labels[32:64])],
        "validation_batches": [(images[64:], labels[64:])],
        "epochs": epochs,
        "steps_per_epoch": 12,
        "form": form,
    }
    result = quantization_aware(model, plan, interface, **(options | settings))
    path = folder / "qat.tflite"
    path.write_bytes(result.tflite)
    return Trained(model, interface, result, str(path), images[64:])


def operations(path: str) -> list[tuple[str, set[str]]]:
    """Name and types of all tensors of each operation of a file."""
    interpreter = Interpreter(
        path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    types = {
        tensor["index"]: np.dtype(tensor["dtype"]).name
        for tensor in interpreter.get_tensor_details()
    }
    return [
        (op["op_name"], {types[i] for i in (*op["inputs"], *op["outputs"]) if i >= 0})
        for op in interpreter._get_ops_details()
    ]


def assert_int8_throughout(trained: Trained) -> None:
    """Integers only, and conversions nowhere but at a uint8 border."""
    ops = operations(trained.path)
    assert set().union(*(types for _, types in ops)) <= {"int8", "uint8", "int32"}
    names = [name for name, _ in ops]
    borders = 2 if trained.interface.input == "uint8" else 0
    assert names.count("QUANTIZE") == borders
    assert "DEQUANTIZE" not in names


def assert_equal_outputs(trained: Trained) -> None:
    file = TFLiteClassifier(trained.path)
    outputs, expected = file(trained.images), trained.result.keras_outputs(trained.images)
    step = file.describe()["output"]["scale"]
    assert np.ptp(expected, axis=0).max() > 20 * step  # images differ
    assert np.abs(outputs - expected).max() <= 4 * step
    assert np.abs(outputs - expected).mean() <= step


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Trained:
    """A network that was not trained further."""
    return train(PLANS["proxyless"], tmp_path_factory.mktemp("calibrated"))


def test_a_file_is_int8_throughout_in_one_partition(calibrated):
    assert_int8_throughout(calibrated)
    assert_equal_outputs(calibrated)
    delegation = LoadedModel(calibrated.path, 1, "xnnpack").delegation()
    assert (delegation["partitions"], delegation["ops_outside"]) == (1, {})
    described = TFLiteClassifier(calibrated.path).describe()
    assert described["input"].items() >= {"dtype": "int8", "scale": 1, "zero_point": -128}.items()
    assert described["output"]["dtype"] == "int8"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options", "outside"),
    [
        ("mbv3", {"input": "uint8"}, {"QUANTIZE": 2}),
        ("swish", {"output": "softmax"}, {"SOFTMAX": 1}),
        ("resnet", {"input": "float32"}, {}),
    ],
)
def test_other_families_and_interfaces_too(family, options, outside, tmp_path):
    trained = train(PLANS[family], tmp_path, **options)
    assert_int8_throughout(trained)
    assert_equal_outputs(trained)
    delegation = LoadedModel(trained.path, 1, "xnnpack").delegation()
    assert delegation["partitions"] == 1
    assert delegation["ops_outside"].items() <= outside.items()
    described = TFLiteClassifier(trained.path).describe()
    integer = "uint8" if options.get("input") == "uint8" else "int8"
    assert (described["input"]["dtype"], described["output"]["dtype"]) == (integer, integer)
    if integer == "uint8":
        assert (described["input"]["scale"], described["input"]["zero_point"]) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mbv3", "mbv3 on 3 px"])
def test_plain_form_keeps_the_operations_of_phones(family, tmp_path):
    trained = train(PLANS[family], tmp_path, form="plain")
    assert_int8_throughout(trained)
    assert_equal_outputs(trained)
    names = [name for name, _ in operations(trained.path)]
    assert names.count("HARD_SWISH") == 3
    assert names.count("DEPTHWISE_CONV_2D") == 1


def test_a_map_is_smaller_than_its_kernel():
    (block,) = (b for b in PLANS["mbv3 on 3 px"].blocks if b.name == "block")
    assert (block.in_size, block.kernel_size, block.needed_kernel_size) == (3, 7, 5)


@pytest.mark.parametrize("form", ["cpu", "plain"])
@pytest.mark.parametrize("family", PLANS)
def test_weights_are_copied(family, form):
    from ofa_tf.export.qat import written_in_tf_keras

    plan, interface = PLANS[family], Interface((MEAN, STD), "float32")
    model = random_subnet(plan, interface)
    images = np.random.default_rng(0).normal(size=(4, SIDE, SIDE, 3)).astype(np.float32)
    outputs, expected = written_in_tf_keras(model, plan, form)(images), model(images)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_training_learns_and_keeps_the_best_epoch(tmp_path):
    plan, steps = PLANS["proxyless"], []
    before = random_subnet(plan, Interface((MEAN, STD))).get_weights()
    trained = train(
        plan, tmp_path, epochs=3, base_lr=0.03, progress=lambda *counts: steps.append(counts)
    )
    history = trained.result.history
    assert steps == [(done, 36) for done in range(1, 37)]
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert history[-1]["loss"] < history[1]["loss"]
    accuracies = [row["validation_accuracy"] for row in history]
    assert max(accuracies) > accuracies[0]
    _, labels = separated_images(SIDE, 96, seed=1)
    chosen = trained.result.keras_outputs(trained.images).argmax(-1)
    assert np.mean(chosen == labels[64:]) == max(accuracies)
    assert_equal_outputs(trained)
    for value, kept in zip(trained.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_what_is_worse_than_before_is_not_kept(calibrated, tmp_path):
    labels = calibrated.result.keras_outputs(calibrated.images).argmax(-1)
    ruined = train(
        PLANS["proxyless"],
        tmp_path,
        epochs=1,
        base_lr=0.9,
        validation_batches=[(calibrated.pixels, labels)],
    )
    accuracies = [row["validation_accuracy"] for row in ruined.result.history]
    assert accuracies[0] == 1 > accuracies[1]
    assert ruined.result.tflite == calibrated.result.tflite


def test_a_file_of_another_network_is_a_failure(calibrated):
    class Other:
        border = Border(calibrated.interface, "cpu")
        network = calibrated.model

        def outputs(self, images):
            return -calibrated.model(images)

    with pytest.raises(FailureError, match=r"steps from .*tflite_int8"):
        verify_file(calibrated.result.tflite, Other(), [(calibrated.pixels, None)])


def test_refused_input(tmp_path):
    with pytest.raises(UsageError, match="form is one of cpu, plain, not 'fast'"):
        train(PLANS["proxyless"], tmp_path, form="fast")
    with pytest.raises(UsageError, match="needs training images"):
        train(PLANS["proxyless"], tmp_path, train_batches=[])


@pytest.mark.parametrize("missing", ["tf_keras", "tensorflow_model_optimization"])
def test_a_missing_library_is_named(missing, monkeypatch):
    monkeypatch.delitem(sys.modules, "ofa_tf.export.qat", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        UsageError, match=f"needs {missing}: pip install tensorflow-model-optimization tf_keras"
    ):
        import ofa_tf.export.qat  # noqa: F401


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "which", "form"),
    [
        ("ofa_mbv3_tiny", "min", "plain"),
        ("ofa_mbv3_cifar", "max", "cpu"),
        ("ofa_resnet_tiny", "max", "cpu"),
    ],
)
def test_whole_networks(space, which, form, tmp_path):
    space = get_space(space)
    plan = space.blueprint(getattr(space, which)(), NUM_CLASSES)
    trained = train(plan, tmp_path, form=form, epochs=1)  # compares file and emulation itself
    assert_int8_throughout(trained)
    if form == "cpu":
        assert LoadedModel(trained.path, 1, "xnnpack").delegation()["ops_outside"] == {}
