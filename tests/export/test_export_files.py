"""What is in the files of a subnet: equal outputs, types, delegation, the card."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from export_helpers import EXPORTED, keras_accuracy, tflite_accuracy

from mobile_bench.host.worker import LoadedModel
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export import FORMATS
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.search import block_measure
from ofa_tf.spaces import Arch, get_space


def test_float32_logits_are_those_of_keras(exported):
    expected = exported.model.predict_on_batch(exported.images)
    assert np.ptp(expected, axis=0).min() > 1  # blind where all images look alike
    logits = TFLiteClassifier(exported.folder / FORMATS["tflite_float32"])(exported.images)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_float32_is_one_delegate_partition_and_nothing_else(exported):
    path = exported.folder / FORMATS["tflite_float32"]
    delegation = LoadedModel(str(path), 1, "xnnpack").delegation()
    assert (delegation["partitions"], delegation["ops_outside"]) == (1, {})


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_file_size_is_what_a_search_assumes(exported, precision):
    arch, num_classes = exported.spec.arch, len(exported.spec.class_names)
    space = get_space(exported.spec.space_name)
    expected = block_measure("file_kb", space, num_classes, precision)(space.encode([arch]))
    found = (exported.folder / FORMATS[f"tflite_{precision}"]).stat().st_size / 1e3
    assert found == pytest.approx(expected[0], rel=0.02)


def test_int8_classifies_as_keras_does(exported):
    expected = exported.model.predict_on_batch(exported.images)
    logits = TFLiteClassifier(exported.folder / FORMATS["tflite_int8"])(exported.images)
    assert np.mean(logits.argmax(1) == expected.argmax(1)) >= 0.97
    assert np.abs(logits - expected).mean() < 0.3 * expected.std()


def test_int8_from_border_to_border(exported):
    path = exported.folder / FORMATS["tflite_int8"]
    interpreter = Interpreter(str(path))
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (image["dtype"], logits["dtype"]) == (np.int8, np.int8)
    assert image["quantization"] == (1.0, -128)  # so an app feeds pixel - 128
    kernels = [
        tensor["quantization_parameters"]["scales"]
        for tensor in interpreter.get_tensor_details()
        if tensor["dtype"] == np.int8 and len(tensor["shape"]) == 4 and tensor["shape"][0] > 1
    ]
    assert kernels
    assert all(len(scales) > 1 for scales in kernels)  # one scale per channel
    side = exported.spec.arch.resolution
    assert image["shape"].tolist() == [1, side, side, 3]


def test_signature_names(exported):
    interpreter = Interpreter(str(exported.folder / FORMATS["tflite_float32"]))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["logits"]}
    }


def test_card(exported):
    card = json.loads((exported.folder / "card.json").read_text())
    assert card == exported.card
    plan, side = exported.spec.plan, exported.spec.arch.resolution
    assert (card["name"], card["space"]) == ("small", "ofa_mbv3_tiny")
    assert (card["macs"], card["params"], card["resolution"]) == (plan.macs, plan.params, side)
    assert Arch.from_dict(card["arch"]) == exported.spec.arch
    assert card["classes"] == list(exported.spec.class_names)
    assert (card["input"]["shape"], card["input"]["value_range"]) == ([1, side, side, 3], [0, 255])
    assert card["input"]["normalization"]["inside_model"] is True
    assert card["output"]["shape"] == [1, 10]
    assert card["versions"]["tensorflow"] == tf.__version__
    assert tuple(card["files"]) == EXPORTED
    for entry in card["files"].values():
        content = (exported.folder / entry["file"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    int8 = card["files"]["tflite_int8"]
    assert (int8["input"]["scale"], int8["input"]["zero_point"]) == (1.0, -128)
    assert int8["output"]["scale"] > 0
    assert int8["num_calibration_images"] == 64


def test_accuracies_of_the_card(exported):
    files = exported.card["files"]
    paths = {name: exported.folder / FORMATS[name] for name in EXPORTED}
    assert files["keras"]["accuracy"] == keras_accuracy(exported.model, exported.batches) > 0.95
    for name in ("tflite_float32", "tflite_int8"):
        accuracy = tflite_accuracy(paths[name], exported.batches, num_threads=2)
        assert files[name]["accuracy"] == accuracy > 0.95
        assert files[name]["num_images"] == len(exported.labels)
    assert files["tflite_float32"]["keras_agreement"] == 1


def test_accuracy_counts(exported):
    wrong = exported.labels.copy()
    wrong[:30] = (wrong[:30] + 1) % 10
    predicted = exported.model.predict_on_batch(exported.images).argmax(1)
    expected = np.mean(predicted == wrong)
    path = exported.folder / FORMATS["tflite_float32"]
    assert expected < 0.8
    assert tflite_accuracy(path, [(exported.images, wrong)]) == pytest.approx(expected)


def test_text_files(exported):
    lines = (exported.folder / "labels.txt").read_text().splitlines()
    assert lines == list(exported.spec.class_names)
    assert Arch.from_json((exported.folder / "arch.json").read_text()) == exported.spec.arch
    assert len(list(exported.folder.iterdir())) == len(EXPORTED) + 5  # nothing temporary


def test_keras_file_needs_no_ofa_tf(smallest, tmp_path):
    images = smallest.images[:4]
    np.save(tmp_path / "images.npy", images)
    script = """
import sys
sys.modules["ofa_tf"] = None  # importing it fails
import keras, numpy as np
folder, model_path = sys.argv[1:]
model = keras.models.load_model(model_path)
np.save(folder + "/logits.npy", model.predict_on_batch(np.load(folder + "/images.npy")))
"""
    model_path = smallest.folder / FORMATS["keras"]
    command = [sys.executable, "-I", "-c", script, str(tmp_path), str(model_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    expected = smallest.model.predict_on_batch(images)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-4)


def test_bad_evaluation_input(exported, tmp_path):
    path = exported.folder / FORMATS["tflite_float32"]
    with pytest.raises(UsageError, match="no images"):
        tflite_accuracy(path, [])
    with pytest.raises(UsageError, match="takes images of shape"):
        tflite_accuracy(path, [(exported.images[:, 1:], exported.labels)])
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(path.read_bytes()[:1000])
    for bad in (damaged, tmp_path / "missing.tflite"):
        with pytest.raises(FailureError, match=bad.name):
            tflite_accuracy(bad, exported.batches)
