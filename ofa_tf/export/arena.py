"""How much memory the TFLite runtime keeps for the activations of a file."""

from __future__ import annotations

import os

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from ofa_tf.errors import FailureError
from ofa_tf.quiet import native_output_dropped

# The runtime places each tensor of its arena at a multiple of this, in bytes.
_ALIGNMENT = 64


def arena_bytes(path: str | os.PathLike) -> int:
    """Bytes of the arena in which the runtime, without a delegate, places the activations.

    The runtime does not tell it. It is read from the addresses of the tensors: from the first to
    the last byte of those that are computed from the input, and of the scratch memory of
    operations that lies among or next to them. Weights are not in it, nor what is unpacked from
    them once (of float16).

    Raises:
        FailureError: the file is missing, or the runtime refuses it.
    """
    path = os.fspath(path)
    try:
        with native_output_dropped():
            interpreter = Interpreter(
                path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            )
            interpreter.allocate_tensors()
            inputs = {tensor["index"]: tensor for tensor in interpreter.get_input_details()}
            for index, tensor in inputs.items():
                interpreter.set_tensor(index, np.zeros(tensor["shape"], tensor["dtype"]))
            interpreter.invoke()  # some scratch memory is placed only then
    except (ValueError, RuntimeError, OSError) as error:
        raise FailureError(f"{path} does not run as TFLite: {error}") from error
    computed, used = _tensors(interpreter, set(inputs))
    spans = {index: _span(interpreter, index) for index in _all_tensors(interpreter)}
    first = min(spans[index][0] for index in computed)
    last = max(spans[index][1] for index in computed)
    scratch = [span for index, span in spans.items() if span and index not in used]
    for start, end in sorted(scratch):
        if first <= start <= last + _ALIGNMENT:
            last = max(last, end)
    return last - first


def _tensors(interpreter: Interpreter, inputs: set[int]) -> tuple[set[int], set[int]]:
    """Which tensors are computed from the input, itself included, and all that operations name."""
    computed, used = set(inputs), set(inputs)
    for operation in interpreter._get_ops_details():  # the only place that tells it
        read, written = set(operation["inputs"].tolist()), set(operation["outputs"].tolist())
        used |= read | written
        if read & computed:
            computed |= written
    return computed, used


def _all_tensors(interpreter: Interpreter) -> list[int]:
    return [tensor["index"] for tensor in interpreter.get_tensor_details()]


def _span(interpreter: Interpreter, index: int) -> tuple[int, int] | None:
    """Addresses of a tensor's first byte and of the one after its last; None for one without."""
    try:
        values = interpreter.tensor(index)()
    except ValueError:
        return None
    start = values.__array_interface__["data"][0]
    return start, start + values.nbytes
