"""Post-training quantization to int8, and the images that calibrate it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ofa_tf.errors import UsageError


def quantize_to_int8(
    converter: tf.lite.TFLiteConverter,
    calibration_images: Sequence[np.ndarray] | np.ndarray | None,
    shape: tuple[int, ...],
) -> None:
    """Sets a converter to int8 throughout: input, output, every op; a weight scale per channel.

    Args:
        converter: not yet run.
        calibration_images: float32 (n, *shape), as the model takes them.
        shape: of one input, without the batch.

    Raises:
        UsageError: there are no images, or they have another shape.
    """
    count = 0 if calibration_images is None else len(calibration_images)
    if not count:
        raise UsageError("int8 needs calibration images, some hundreds of training images.")
    images = np.asarray(calibration_images, np.float32)
    if images.shape[1:] != tuple(shape):
        raise UsageError(
            f"The calibration images are {_text(images.shape[1:])}, but the model takes "
            f"{_text(shape)}."
        )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8


def spanning_all_pixels(images: np.ndarray) -> np.ndarray:
    """Calibration images whose pixels certainly reach from 0 to 255.

    One corner pixel of the first image becomes black and another white, so that the quantized
    input is exactly `pixel - 128` (scale 1, zero point -128) and no pixel of an app is clipped.
    """
    images = np.array(images, np.float32)
    if images.ndim == 4 and len(images):  # what else there is, `quantize_to_int8` refuses
        images[0, 0, 0], images[0, -1, -1] = 0, 255
    return images


def _text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
