"""Small models made with TensorFlow once per session, and the phones of stand_in/."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_in.fixtures import (  # noqa: F401
    adb,
    make_phone,
    old_phone,
    own_adb,
    phone,
    tool_path,
)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """The paths of float32, int8, dynamic_batch, dynamic_size, integers and slow models."""
    import numpy as np
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)

    def convolutions(activation: str, batch: int | None) -> tf.keras.Model:
        layers = tf.keras.layers
        image = x = tf.keras.Input((16, 16, 3), batch_size=batch)
        for _ in range(2):
            x = layers.Activation(activation)(layers.Conv2D(8, 3, padding="same")(x))
        return tf.keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))

    def quantized(model: tf.keras.Model) -> bytes:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        images = rng.random((4, 1, 16, 16, 3), dtype=np.float32)
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()

    def function(body, *signature: tf.TensorSpec) -> bytes:
        module = tf.Module()
        module.body = tf.function(body, input_signature=signature)
        concrete = module.body.get_concrete_function()
        return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()

    def keras(batch: int | None) -> bytes:
        return tf.lite.TFLiteConverter.from_keras_model(convolutions("relu", batch)).convert()

    contents = {
        "float32": keras(1),
        "int8": quantized(convolutions("hard_swish", 1)),
        "dynamic_batch": keras(None),
        "dynamic_size": function(lambda x: x + 1.0, tf.TensorSpec([1, None, 3], tf.float32)),
        "integers": function(
            lambda index, flag: (index * 2, tf.logical_not(flag)),
            tf.TensorSpec([3], tf.int64),
            tf.TensorSpec([2], tf.bool),
        ),
        "slow": function(
            lambda x: tf.matmul(x, tf.constant(rng.random((1024, 1024), dtype=np.float32))),
            tf.TensorSpec([1024, 1024], tf.float32),
        ),
    }
    paths = {name: folder / f"{name}.tflite" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths


@pytest.fixture
def corrupt(tmp_path) -> Path:
    path = tmp_path / "corrupt.tflite"
    path.write_bytes(b"not a flatbuffer" * 100)
    return path
