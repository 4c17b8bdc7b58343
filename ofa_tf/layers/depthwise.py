"""Depthwise convolution with symmetric padding, and a filter gradient that is fast on CPUs."""

from __future__ import annotations

import tensorflow as tf

# oneDNN has a fast depthwise filter gradient for kernels of up to three columns only. Wider ones
# fall to its grouped convolution, which takes several times as long.
_FAST_COLUMNS = 3

Size = int | tf.Tensor  # an int, or a scalar int32 tensor inside a graph


def depthwise_conv2d(inputs: tf.Tensor, kernel: tf.Tensor, stride: int, size: Size) -> tf.Tensor:
    """Depthwise convolution, padded by size // 2 on each side as PyTorch pads.

    TensorFlow's SAME pads one less in front where the stride is 2 and the input's side is even.

    Args:
        inputs: (batch, height, width, channels).
        kernel: (size, size, channels, 1).
        stride: 1 or 2.
        size: side of the kernel, odd: an int, or a scalar int32 tensor.

    Returns: (batch, ceil(height / stride), ceil(width / stride), channels).
    """
    strides = [1, stride, stride, 1]
    padding = "SAME" if stride == 1 else "VALID"

    @tf.custom_gradient
    def convolve(inputs, kernel, *dynamic_size):
        pad = (dynamic_size[0] if dynamic_size else size) // 2
        frame = [[0, 0], [pad, pad], [pad, pad], [0, 0]]
        framed = inputs if stride == 1 else tf.pad(inputs, frame)
        outputs = tf.nn.depthwise_conv2d(framed, kernel, strides, padding)

        def gradient(upstream):
            input_gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(framed),
                filter=kernel,
                out_backprop=upstream,
                strides=strides,
                padding=padding,
            )
            if stride > 1:
                height, width = tf.shape(inputs)[1], tf.shape(inputs)[2]
                input_gradient = input_gradient[:, pad : pad + height, pad : pad + width]
            padded = tf.pad(inputs, frame) if stride == 1 else framed
            kernel_gradient = _filter_gradient(padded, upstream, strides, 2 * pad + 1)
            return input_gradient, kernel_gradient, *[None for _ in dynamic_size]

        return outputs, gradient

    # A tensor goes in as an argument: one that the gradient found by itself would be lost where
    # the layer is in a branch of tf.cond and the tape is outside the graph.
    return convolve(inputs, kernel, *([] if isinstance(size, int) else [size]))


def _filter_gradient(padded: tf.Tensor, upstream: tf.Tensor, strides, size: Size) -> tf.Tensor:
    """The kernel's gradient, in vertical strips of three columns: (size, size, channels, 1)."""
    channels, stride = tf.shape(padded)[3], strides[1]
    num_strips = (size + _FAST_COLUMNS - 1) // _FAST_COLUMNS
    # Every strip reads this many columns; the last strip may need some beyond the padding.
    read = (tf.shape(upstream)[2] - 1) * stride + _FAST_COLUMNS
    beyond = num_strips * _FAST_COLUMNS - size
    padded = tf.pad(padded, [[0, 0], [0, 0], [0, beyond], [0, 0]])

    def strip(index):
        start = index * _FAST_COLUMNS
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=padded[:, :, start : start + read],
            filter_sizes=tf.stack([size, _FAST_COLUMNS, channels, 1]),
            out_backprop=upstream,
            strides=strides,
            padding="VALID",
        )

    if isinstance(size, int):
        strips = tf.concat([strip(index) for index in range(num_strips)], axis=1)
    else:
        array = tf.TensorArray(upstream.dtype, size=num_strips, infer_shape=False)
        _, array = tf.while_loop(
            lambda index, _: index < num_strips,
            lambda index, array: (index + 1, array.write(index, strip(index))),
            (tf.constant(0), array),
        )
        stacked = array.stack()  # (strips, size, 3, channels, 1)
        strips = tf.reshape(
            tf.transpose(stacked, [1, 0, 2, 3, 4]),
            tf.stack([size, num_strips * _FAST_COLUMNS, channels, 1]),
        )
    return strips[:, :size]
