"""The formats that a subnet is exported in, and the forms of the TFLite ones."""

from __future__ import annotations

from collections.abc import Sequence

from ofa_tf.errors import UsageError

# The file, or for saved_model the folder, that each format makes.
FORMATS = {
    "keras": "model.keras",
    "saved_model": "saved_model",
    "tflite_float32": "model_float32.tflite",
    "tflite_float16": "model_float16.tflite",
    "tflite_dynamic": "model_dynamic.tflite",
    "tflite_int8": "model_int8.tflite",
    "tflite_int16x8": "model_int16x8.tflite",
    "tflite_qat": "model_qat.tflite",
}

# "plain" has an operation for each layer; "cpu" is the same function as XNNPACK runs it fastest.
FORMS = ("cpu", "plain")


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats in the order of FORMATS, each once.

    Raises:
        UsageError: there is none, or an unknown one; lists the known ones.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(
            f"formats are some of {', '.join(FORMATS)}; unknown: {', '.join(unknown) or 'none'}, "
            f"given: {len(formats)}."
        )
    return tuple(name for name in FORMATS if name in formats)
