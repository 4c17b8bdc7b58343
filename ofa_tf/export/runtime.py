"""A .tflite classifier as the app will run it: through the TFLite runtime, batch by batch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.quiet import native_output_dropped


class TFLiteClassifier:
    """Runs a file with one image input of a fixed batch and one output.

    Args:
        path: the .tflite file.
        num_threads: threads of the runtime.

    Raises:
        FailureError: the file is missing, or the runtime refuses it.
    """

    def __init__(self, path: str | os.PathLike, num_threads: int = 1):
        self.path = os.fspath(path)
        try:
            with native_output_dropped():
                self._interpreter = Interpreter(model_path=self.path, num_threads=num_threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise FailureError(f"{self.path} does not run as TFLite: {error}") from error
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Real-valued outputs (n, classes) for real-valued images (n, height, width, channels).

        Where input and output are integers, they are converted by the file's own scales.

        Raises:
            UsageError: the images are not of the size that the file takes.
        """
        images, (batch_size, *shape) = np.asarray(images), self._input["shape"].tolist()
        if images.shape[1:] != tuple(shape):
            raise UsageError(
                f"{self.path} takes images of shape {tuple(shape)}, not {tuple(images.shape[1:])}."
            )
        count = -(-len(images) // batch_size)
        # What the last batch lacks is taken from the beginning, and its outputs are left out.
        batches = np.resize(_quantized(images, self._input), (count, batch_size, *shape))
        outputs = np.concatenate([self._run(batch) for batch in batches])
        return _dequantized(outputs[: len(images)], self._output)

    def describe(self) -> dict[str, Any]:
        """Name, type and quantization of input and output, ready for JSON."""
        return {"input": _describe(self._input), "output": _describe(self._output)}

    def _run(self, batch: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], batch)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])


def _quantized(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(tensor["dtype"])
    if dtype.kind == "f":
        return values.astype(dtype)
    scale, zero_point = _quantization(tensor)
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantized(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    if values.dtype.kind == "f":
        return values
    scale, zero_point = _quantization(tensor)
    return ((values.astype(np.int32) - zero_point) * scale).astype(np.float32)


def _quantization(tensor: dict[str, Any]) -> tuple[float, int]:
    """Scale and zero point; integers of a file that is not quantized stand for themselves."""
    scale, zero_point = tensor["quantization"]
    return (float(scale), int(zero_point)) if scale else (1.0, 0)


def _describe(tensor: dict[str, Any]) -> dict[str, Any]:
    dtype = np.dtype(tensor["dtype"])
    described = {"tensor": tensor["name"], "dtype": dtype.name}
    if dtype.kind != "f":
        scale, zero_point = _quantization(tensor)
        described |= {"scale": scale, "zero_point": zero_point}
    return described
