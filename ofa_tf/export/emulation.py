"""What a network and its int8 file have in common: how they round, and what is around them.

Here the rounding of a file is emulated in float32; qat.py trains a network in it. The file is
made from the emulation, and compared with it.
"""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

from ofa_tf.errors import FailureError
from ofa_tf.export.evaluation import Batches
from ofa_tf.export.interface import Interface
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.export.tflite import conversion

# The runtime's scale of a sigmoid or a softmax is 1 / 256, whatever comes out.
PROBABILITIES = (0.0, 255 / 256)

# How far the file's outputs may be from the emulation's on the average, in steps of their scale,
# and on which share of images it must choose a class that is best in the emulation too, give or
# take some steps. Layers round values that are almost half-way to different sides, which adds up
# to 0.6 steps in trained networks, and with random weights to 2 in small ones and 6 in deep ones.
MAX_DEVIATION = 8.0
MIN_AGREEMENT = 0.9
TIE_STEPS = 8
VERIFIED_IMAGES = 64


class Border:
    """What is around the network in the file: the images, their normalization, the output.

    Args:
        interface: of the file.
        form: of the file.
    """

    def __init__(self, interface: Interface, form: str):
        self.interface = interface
        mean, std = (np.asarray(values, np.float32) for values in interface.normalization)
        self._scale, self._offset = 1 / std, -mean / std
        self._in_rows = form == "cpu"

    def normalized(self, pixels: tf.Tensor) -> tf.Tensor:
        """Raw pixels with mean and standard deviation taken out, not rounded."""
        return tf.cast(pixels, tf.float32) * self._scale + self._offset

    def given(self, pixels: tf.Tensor) -> tf.Tensor:
        """Images as the network and the file get them, of raw pixels, float32."""
        if self.interface.input == "float32":
            return self.normalized(pixels)
        return tf.cast(pixels, tf.float32)

    def entering(self, images: tf.Tensor) -> tf.Tensor:
        """Images as given -> normalized and rounded."""
        low, high = self._offset.min(), (255 * self._scale + self._offset).max()
        if self.interface.input == "float32":
            return rounded(images, low, high)
        scale, offset = self._scale, self._offset
        _, height, width, channels = images.shape
        images = rounded(images, 0.0, 255.0)
        if self._in_rows:
            images = tf.reshape(images, (-1, height, width * channels))
            scale, offset = np.tile(scale, width), np.tile(offset, width)
        # The converter rounds these constants too, within their own ranges.
        scale = rounded(scale, 0.0, scale.max())
        offset = rounded(offset, min(0.0, offset.min()), max(0.0, offset.max()))
        images = rounded(images * scale, 0.0, 255 * self._scale.max())
        images = rounded(images + offset, low, high)
        return tf.reshape(images, (-1, height, width, channels))

    def leaving(self, logits: tf.Tensor) -> tf.Tensor:
        """Rounded logits -> rounded outputs."""
        if self.interface.output == "logits":
            return logits
        return rounded(tf.nn.softmax(logits), *PROBABILITIES)


class Emulation(tf.Module):
    """From images as given to logits or outputs, every step rounded.

    Args:
        network: a tf_keras model that rounds, from normalized images to logits.
        border: what is around it.
    """

    def __init__(self, network: Any, border: Border):
        super().__init__()
        self.network = network
        self.border = border

    def logits(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.network(self.border.entering(images), training=training)

    @tf.function(reduce_retracing=True)
    def outputs(self, images: tf.Tensor) -> tf.Tensor:
        return self.border.leaving(self.logits(images))


def convert_emulation(emulation: Emulation, resolution: int, batch_size: int) -> bytes:
    """The content of the file of an emulation whose kernels are rounded already.

    The converter takes the activations' ranges from the graph, and finds for the kernels the very
    scales with which they were rounded. It does not take them from the graph: it fails on a
    range for each channel of a kernel.

    Args:
        emulation: what the file shall compute.
        resolution: side of its images in pixels.
        batch_size: of the file.

    Raises:
        FailureError: TensorFlow does not convert it.
    """
    border = emulation.border
    interface = border.interface
    shape = (batch_size, resolution, resolution, len(interface.normalization[0]))

    def run(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {interface.output_name: border.leaving(emulation.logits(image))}

    function = tf.function(run, input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])
    with conversion(f"{emulation.network.name} to TFLite after its training"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [function.get_concrete_function()], emulation
        )
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        integer = tf.uint8 if interface.input == "uint8" else tf.int8
        converter.inference_input_type = converter.inference_output_type = integer
        return converter.convert()


def verify_file(content: bytes, emulation: Emulation, batches: Batches) -> None:
    """Compares the file's outputs with the emulation's, on the first images of `batches`.

    Raises:
        FailureError: they are not the same network.
    """
    pixels, _ = next(iter(batches))
    images = emulation.border.given(pixels[:VERIFIED_IMAGES]).numpy()
    expected = emulation.outputs(images).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "qat.tflite"
        path.write_bytes(content)
        file = TFLiteClassifier(path)
        outputs = file(images)
        step = file.describe()["output"]["scale"]
    deviation = np.abs(outputs - expected).mean() / step
    chosen = np.take_along_axis(expected, outputs.argmax(-1)[:, None], -1)[:, 0]
    agreement = np.mean(chosen >= expected.max(-1) - TIE_STEPS * step)
    if deviation > MAX_DEVIATION or agreement < MIN_AGREEMENT:
        raise FailureError(
            f"The outputs of the file of {emulation.network.name} are {deviation:.1f} steps from "
            f"those of the network that was trained for it (at most {MAX_DEVIATION}), and "
            f"{agreement:.0%} of its classes are the same (at least {MIN_AGREEMENT:.0%}): this "
            "version of TensorFlow converts it to something else. Use the format tflite_int8."
        )


def rounded(values: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Values rounded to 8 bits from low to high, which include 0."""
    return tf.quantization.fake_quant_with_min_max_args(values, float(low), float(high))


def rounded_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """A kernel rounded to int8 with a scale for each output channel, as the converter does."""
    shape = kernel.shape
    # A depthwise kernel is (height, width, channels, 1).
    channels = shape[-2] if len(shape) == 4 and shape[-1] == 1 else shape[-1]
    flat = tf.reshape(kernel, (-1, channels))
    limits = tf.stop_gradient(tf.reduce_max(tf.abs(flat), axis=0))
    limits = tf.maximum(limits, 1e-6)
    flat = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        flat, -limits, limits, narrow_range=True
    )
    return tf.reshape(flat, shape)
