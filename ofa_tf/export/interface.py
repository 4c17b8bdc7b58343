"""Interface: what goes into an exported network and what comes out."""

from __future__ import annotations

import dataclasses
from typing import Any

from ofa_tf.errors import UsageError

INPUTS = ("pixels", "uint8", "float32")
OUTPUTS = ("logits", "softmax")


@dataclasses.dataclass(frozen=True)
class Interface:
    """What goes into an exported network and what comes out.

    Args:
        normalization: mean and standard deviation per channel, on pixels from 0 to 255.
        input: "pixels", RGB from 0 to 255 as float32; "uint8", the same as bytes; both are
            normalized inside the network. "float32" images come normalized.
        output: "logits", or "softmax" for probabilities.

    Raises:
        UsageError: an unknown input or output.
    """

    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    input: str = "pixels"
    output: str = "logits"

    def __post_init__(self):
        for field, known in (("input", INPUTS), ("output", OUTPUTS)):
            if getattr(self, field) not in known:
                raise UsageError(
                    f"{field} is one of {', '.join(known)}, not {getattr(self, field)!r}."
                )
        mean, std = (tuple(map(float, values)) for values in self.normalization)
        object.__setattr__(self, "normalization", (mean, std))

    @property
    def dtype(self) -> str:
        """Of the images that the Keras model and the float files take."""
        return "uint8" if self.input == "uint8" else "float32"

    @property
    def output_name(self) -> str:
        """Of the output in signatures."""
        return "logits" if self.output == "logits" else "probabilities"

    @property
    def build_options(self) -> dict[str, Any]:
        """The options of `build_subnet` for the Keras model."""
        return {
            "normalization": None if self.input == "float32" else self.normalization,
            "input_dtype": self.dtype,
            "head": self.output,
        }
