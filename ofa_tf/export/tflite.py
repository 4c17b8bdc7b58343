"""The converter: a Keras model in, the bytes of a .tflite file out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from ofa_tf.errors import FailureError, UsageError, first_line
from ofa_tf.export.cpu_form import BandedBuilder, Int8Builder, ProductBuilder
from ofa_tf.export.formats import FORMS
from ofa_tf.export.interface import Interface
from ofa_tf.export.quantization import (
    CALIBRATED,
    PRECISIONS,
    calibration_batches,
    set_precision,
    spanning_all_pixels,
)
from ofa_tf.models.subnet import SubnetBuilder, rewrite
from ofa_tf.quiet import native_output_dropped
from ofa_tf.spaces import Blueprint

Images = Sequence[np.ndarray] | np.ndarray

# What writes the CPU form of these precisions; BandedBuilder that of the others.
_CPU_BUILDERS = {"int8": Int8Builder, "int16x8": ProductBuilder}


def convert_subnet(
    model: keras.Model,
    plan: Blueprint,
    interface: Interface,
    precision: str,
    calibration_images: Images | None = None,
    *,
    form: str = "cpu",
    batch_size: int = 1,
) -> bytes:
    """Converts a network to TFLite in a form that suits where it will run.

    Args:
        model: what `build_subnet(plan, **interface.build_options)` built.
        plan: its Blueprint; it may be cut short.
        interface: what goes in and comes out. Files of "int8" take and give uint8 where the input
            is "uint8", else int8.
        precision: one of PRECISIONS.
        calibration_images: for int8 and int16x8, (n, height, width, channels): raw pixels, or
            normalized where the interface's images are.
        form: "cpu" (see cpu_form.py), or "plain" with an operation for each layer.
        batch_size: of the file.

    Returns: the content of a .tflite file.

    Raises:
        UsageError: an unknown precision or form; no calibration images, or unfit ones; a network
            that the form does not write.
        FailureError: TensorFlow does not convert the model.
    """
    if form not in FORMS:
        raise UsageError(f"form is one of {', '.join(FORMS)}, not {form!r}.")
    builder = _CPU_BUILDERS.get(precision, BandedBuilder) if form == "cpu" else SubnetBuilder
    # Bytes become floats outside the network: quantized files have a border for that.
    options = {**interface.build_options, "input_dtype": "float32", "name": model.name}
    written = rewrite(model, plan, builder, **options)
    if interface.input != "float32" and calibration_images is not None:
        calibration_images = spanning_all_pixels(calibration_images)
    return convert(
        written,
        precision,
        calibration_images,
        batch_size=batch_size,
        input_dtype=interface.dtype,
        output_name=interface.output_name,
    )


def convert(
    model: keras.Model,
    precision: str,
    calibration_images: Images | None = None,
    *,
    batch_size: int = 1,
    input_dtype: str = "float32",
    output_name: str = "logits",
) -> bytes:
    """Converts a model with one input and one output to TFLite, as it is.

    The file takes a fixed batch, whatever the model takes: with an open batch the runtime's
    delegate could not take the graph whole. Its signature is "serving_default", with the input
    "image".

    Args:
        model: from float32 (batch, height, width, channels), sizes fixed but for the batch.
        precision: one of PRECISIONS. A file of "int8" is int8 throughout, input and output too.
        calibration_images: for int8 and int16x8, inputs as the model takes them, (n, height,
            width, channels); their ranges decide the scales of all activations.
        batch_size: of the file.
        input_dtype: "uint8" for a file that takes bytes; one of "int8" then gives uint8 as well.
        output_name: in the signature.

    Returns: the content of a .tflite file.

    Raises:
        UsageError: an unknown precision; int8 without calibration images, or with unfit ones;
            int16x8 of bytes.
        FailureError: TensorFlow does not convert the model.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}.")
    if (precision, input_dtype) == ("int16x8", "uint8"):
        raise UsageError(
            "TensorFlow converts no int16x8 network that takes uint8 images; choose the input "
            "pixels or float32, or int8."
        )
    batches = None
    if precision in CALIBRATED:
        batches = calibration_batches(calibration_images, model.input_shape[1:], batch_size)
    integer = "uint8" if input_dtype == "uint8" else "int8"
    if precision == "int8":
        input_dtype = "float32"  # the converter itself puts integers at the border
    with conversion(f"{model.name} to {precision} TFLite"):
        module = _frozen(model, batch_size, input_dtype, output_name)
        function = module.run.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        set_precision(converter, precision, batches, integer)
        return converter.convert()


@contextlib.contextmanager
def conversion(what: str) -> Iterator[None]:
    """A conversion without TensorFlow's own output, all of whose errors are a FailureError.

    Args:
        what: is converted to what, for the message.
    """
    try:
        with native_output_dropped():
            yield
    except Exception as error:  # the converter raises whatever its layers raise
        raise FailureError(f"TensorFlow could not convert {what}: {first_line(error)}") from error


def _frozen(model: keras.Model, batch_size: int, input_dtype: str, output_name: str) -> tf.Module:
    """A module whose function `run` holds the model's weights as constants.

    Variables would have to be saved, read back and frozen by the converter: the same file, about
    five times as slow.
    """
    trainable = [variable.numpy() for variable in model.trainable_variables]
    fixed = [variable.numpy() for variable in model.non_trainable_variables]
    shape = (batch_size, *model.input_shape[1:])
    signature = [tf.TensorSpec(shape, input_dtype, name="image")]

    def run(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs, _ = model.stateless_call(
            [tf.constant(value) for value in trainable],
            [tf.constant(value) for value in fixed],
            tf.cast(image, tf.float32),
            training=False,
        )
        return {output_name: outputs}

    module = tf.Module()
    module.run = tf.function(run, input_signature=signature)
    return module
