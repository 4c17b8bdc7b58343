"""What sets a converter to each precision, and the images that calibrate it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ofa_tf.errors import UsageError

# "float16": weights; "dynamic": int8 weights, activations quantized as they come; "int8": weights
# and activations; "int16x8": int8 weights, int16 activations.
PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")

# Those whose activations have scales from calibration images.
CALIBRATED = ("int8", "int16x8")


def set_precision(
    converter: tf.lite.TFLiteConverter,
    precision: str,
    calibration_images: np.ndarray | None = None,
    integer: str = "int8",
) -> None:
    """Sets a converter to a precision.

    The ranges of the calibration images decide the scales of all activations; weights have a
    scale per channel. A file of "int8" takes and gives `integer`s, the others floats.

    Args:
        converter: not yet run.
        precision: one of PRECISIONS.
        calibration_images: for CALIBRATED; float32 (n, batch, height, width, channels).
        integer: "int8" or "uint8".
    """
    ops = tf.lite.OpsSet
    if precision == "float32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in CALIBRATED:
        converter.representative_dataset = lambda: ([batch] for batch in calibration_images)
    if precision == "int8":
        converter.target_spec.supported_ops = [ops.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(integer)
    if precision == "int16x8":
        converter.target_spec.supported_ops = [
            ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]


def calibration_batches(
    images: Sequence[np.ndarray] | np.ndarray | None, shape: tuple[int, ...], batch_size: int
) -> np.ndarray:
    """Calibration images as whole batches, float32 (n, batch_size, *shape).

    Args:
        images: (n, *shape), as the model takes them. What a last batch lacks is taken again from
            the beginning.
        shape: of one input, without the batch.
        batch_size: of the file.

    Raises:
        UsageError: there are no images, or they have another shape.
    """
    if images is None or not len(images):
        raise UsageError(
            "Quantized activations need calibration images, some hundreds of training images."
        )
    images = np.asarray(images, np.float32)
    if images.shape[1:] != tuple(shape):
        raise UsageError(
            f"The calibration images are {_text(images.shape[1:])}, but the model takes "
            f"{_text(shape)}."
        )
    count = -(-len(images) // batch_size)
    return np.resize(images, (count, batch_size, *shape))


def spanning_all_pixels(images: np.ndarray) -> np.ndarray:
    """Calibration images whose pixels certainly reach from 0 to 255.

    One corner pixel of the first image becomes black and another white, so that the quantized
    input is exactly `pixel - 128` (scale 1, zero point -128) and no pixel of an app is clipped.
    """
    images = np.array(images, np.float32)
    if images.ndim == 4 and len(images):  # what else there is, `calibration_batches` refuses
        images[0, 0, 0], images[0, -1, -1] = 0, 255
    return images


def _text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
