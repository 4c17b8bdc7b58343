"""The converter by itself: silence, precisions, and what it refuses."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest

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


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("int8", 0.05)])
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
    with pytest.raises(UsageError, match="float32, int8, not 'float16'"):
        convert(model, "float16")
    for nothing in (None, images[:0]):
        with pytest.raises(UsageError, match="needs calibration images"):
            convert(model, "int8", nothing)
    with pytest.raises(UsageError, match="8 x 7 x 3, but the model takes 8 x 8 x 3"):
        convert(model, "int8", images[:, :, 1:])


def test_what_tflite_has_no_op_for_is_one_failure(images):
    image = keras.Input((8, 8, 3), batch_size=1)
    model = keras.Model(image, keras.ops.erfinv(image), name="odd")
    with pytest.raises(FailureError, match="could not convert odd to float32") as caught:
        convert(model, "float32")
    assert "\n" not in str(caught.value)
