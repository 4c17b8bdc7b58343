"""The converter by itself: silence, precisions, and what it refuses."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export import convert
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.quiet import native_output_dropped


@pytest.fixture(scope="module")
def model() -> keras.Model:
    image = keras.Input((8, 8, 3), batch_size=1, name="image")
    outputs = keras.layers.Conv2D(4, 3, activation="relu")(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(outputs), name="small one")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 1e-5), ("float16", 1e-2), ("dynamic", 0.05), ("int8", 0.05), ("int16x8", 0.02)],
)
def test_a_part_of_a_network_converts_in_silence(
    model, images, precision, tolerance, tmp_path, capfd
):
    capfd.readouterr()
    content = convert(model, precision, images)
    path = tmp_path / "part.tflite"
    path.write_bytes(content)
    outputs = TFLiteClassifier(path)(images)
    assert capfd.readouterr() == ("", "")
    expected = np.concatenate([model(image[None]) for image in images])
    assert np.abs(outputs - expected).max() < tolerance * np.abs(expected).max()


WEIGHTS = {"float16": np.float16, "dynamic": np.float32, "int8": np.int8, "int16x8": np.int8}


@pytest.mark.parametrize("precision", WEIGHTS)
def test_every_precision_is_what_it_says(model, images, precision):
    details = tensor_details(convert(model, precision, images))
    kernels = [t for t in details if t["shape"].tolist() == [4, 3, 3, 3]]
    assert WEIGHTS[precision] in {t["dtype"] for t in kernels}
    if precision in ("int8", "int16x8"):  # a scale per channel
        assert {len(t["quantization_parameters"]["scales"]) for t in kernels} == {4}
    activations = {t["dtype"] for t in details if t["shape"].tolist() == [1, 6, 6, 4]}
    quantized = {"int8": np.int8, "int16x8": np.int16}
    assert activations == {quantized.get(precision, np.float32)}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_bytes_go_in(model, images, precision, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    path = tmp_path / "bytes.tflite"
    path.write_bytes(convert(model, precision, pixels, batch_size=2, input_dtype="uint8"))
    described = TFLiteClassifier(path).describe()
    assert described["input"]["dtype"] == "uint8"
    assert described["output"]["dtype"] == ("uint8" if precision == "int8" else "float32")
    expected = model.get_layer(index=1)(pixels.astype(np.float32)).numpy().mean((1, 2))
    found = TFLiteClassifier(path)(pixels)  # three batches of two
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def tensor_details(content: bytes) -> list[dict]:
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return interpreter.get_tensor_details()


def test_output_returns_after_the_silence(capfd):
    def fail_noisily():
        with native_output_dropped():
            os.write(1, b"dropped")
            os.write(2, b"dropped")
            raise KeyError

    with pytest.raises(KeyError):
        fail_noisily()
    os.write(1, b"kept")
    os.write(2, b"kept too")
    assert capfd.readouterr() == ("kept", "kept too")


def test_refused_input(model, images):
    with pytest.raises(UsageError, match="float32, float16, dynamic, int8, int16x8, not 'int4'"):
        convert(model, "int4")
    for nothing in (None, images[:0]):
        with pytest.raises(UsageError, match="need calibration images"):
            convert(model, "int8", nothing)
    with pytest.raises(UsageError, match="no int16x8 network that takes uint8"):
        convert(model, "int16x8", images, input_dtype="uint8")
    with pytest.raises(UsageError, match="8 x 7 x 3, but the model takes 8 x 8 x 3"):
        convert(model, "int8", images[:, :, 1:])


def test_what_tflite_has_no_op_for_is_one_failure(images):
    image = keras.Input((8, 8, 3), batch_size=1)
    model = keras.Model(image, keras.ops.erfinv(image), name="odd")
    with pytest.raises(FailureError, match="could not convert odd to float32") as caught:
        convert(model, "float32")
    assert "\n" not in str(caught.value)
