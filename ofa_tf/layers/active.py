"""The active part of a weight: cut out of it, or the weight with zeros outside that part.

Nothing else knows what the two elastic forms do:

- "slice" computes with the active channels only; the shapes are dynamic where sizes are tensors.
- "mask" computes with all channels, which are zero where they are not active. So every shape is
  static, as XLA and TPUs want it. Sizes that are Python ints are static anyway, and cut there too.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ofa_tf.layers.depthwise import Size

ELASTIC_FORMS = ("slice", "mask")


def cut(weight: tf.Tensor, sizes: Sequence[Size], elastic: str) -> tf.Tensor:
    """The active part of a weight: its first entries along its last axes.

    Args:
        weight: of static shape.
        sizes: how many entries of each of the last `len(sizes)` axes are active.
        elastic: one of ELASTIC_FORMS.
    """
    lengths = weight.shape[-len(sizes) :]
    ends = []
    for axis, (size, length) in enumerate(zip(sizes, lengths, strict=True), -len(sizes)):
        masked = _is_masked(size, elastic)
        if masked:
            mask = tf.cast(tf.range(length) < size, weight.dtype)
            weight *= tf.reshape(mask, [length, *[1] * (-axis - 1)])
        ends.append(None if masked or _is_all(size, length) else size)
    return _first(weight, ends)


def crop(frame: tf.Tensor, size: Size, elastic: str) -> tf.Tensor:
    """The active center of a depthwise kernel (k, k, channels, 1) that has zeros around it."""
    if _is_masked(size, elastic) or _is_all(size, frame.shape[0]):
        return frame
    margin = (frame.shape[0] - size) // 2
    return tf.strided_slice(frame, [margin] * 2, [margin + size] * 2, [1, 1])


def merge(new: tf.Tensor, old: tf.Tensor, size: Size) -> tf.Tensor:
    """A vector that takes its first `size` entries from `new` and all others from `old`.

    `new` may be as long as `old`, or end where the active part ends.
    """
    length = old.shape[0]
    if _is_all(size, length):
        return new
    if new.shape[0] == length:
        return tf.where(tf.range(length) < size, new, old)
    merged = tf.concat([new, tf.strided_slice(old, [size], [length], [1])], axis=0)
    return tf.ensure_shape(merged, old.shape)


def _first(weight: tf.Tensor, ends: Sequence[Size | None]) -> tf.Tensor:
    """weight[..., :end, :end]; an end of None takes all of an axis.

    Brackets would make three times the graph nodes, and slices are what a graph has most of.
    """
    bounded = [end for end in ends if end is not None]
    if not bounded:
        return weight
    rank = len(weight.shape)
    ends = [*[None] * (rank - len(ends)), *ends]
    whole_axes = sum(1 << axis for axis, end in enumerate(ends) if end is None)
    return tf.strided_slice(
        weight,
        begin=[0] * rank,
        # The end of a whole axis may be anything.
        end=[bounded[0] if end is None else end for end in ends],
        strides=[1] * rank,
        begin_mask=whole_axes,
        end_mask=whole_axes,
    )


def _is_masked(size: Size, elastic: str) -> bool:
    return elastic == "mask" and not isinstance(size, int)


def _is_all(size: Size, length: int) -> bool:
    return isinstance(size, int) and size == length
