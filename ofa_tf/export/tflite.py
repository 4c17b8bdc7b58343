"""The converter: a Keras model in, the bytes of a .tflite file out."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export.quantization import quantize_to_int8
from ofa_tf.quiet import native_output_dropped

PRECISIONS = ("float32", "int8")


def convert(
    model: keras.Model,
    precision: str,
    calibration_images: Sequence[np.ndarray] | np.ndarray | None = None,
) -> bytes:
    """Converts a model with one input and one output to TFLite.

    The file takes a batch of 1, whatever the model takes: with an open batch the runtime's
    delegate could not take the graph whole. Its signature is "serving_default", with the input
    "image" and the output "logits".

    Args:
        model: from float32 (batch, height, width, channels), sizes fixed but for the batch.
        precision: "float32", or "int8" for weights, activations, input and output all in int8.
        calibration_images: for int8, inputs as the model takes them, (n, height, width, channels);
            their ranges decide the scales of all activations.

    Returns: the content of a .tflite file.

    Raises:
        UsageError: an unknown precision; int8 without calibration images, or with unfit ones.
        FailureError: TensorFlow does not convert the model.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}.")
    try:
        with native_output_dropped():
            module = _frozen(model)
            function = module.run.get_concrete_function()
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
            if precision == "int8":
                quantize_to_int8(converter, calibration_images, model.input_shape[1:])
            return converter.convert()
    except UsageError:
        raise
    except Exception as error:  # the converter raises whatever its layers raise
        raise FailureError(
            f"TensorFlow could not convert {model.name} to {precision} TFLite: {_first_line(error)}"
        ) from error


def _frozen(model: keras.Model) -> tf.Module:
    """A module whose function `run` holds the model's weights as constants.

    Variables would have to be saved, read back and frozen by the converter: the same file, about
    five times as slow.
    """
    trainable = [variable.numpy() for variable in model.trainable_variables]
    fixed = [variable.numpy() for variable in model.non_trainable_variables]
    signature = [tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="image")]

    def run(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs, _ = model.stateless_call(
            [tf.constant(value) for value in trainable],
            [tf.constant(value) for value in fixed],
            image,
            training=False,
        )
        return {"logits": outputs}

    module = tf.Module()
    module.run = tf.function(run, input_signature=signature)
    return module


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
