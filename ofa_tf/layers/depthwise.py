"""Depthwise convolution with symmetric padding, and a filter gradient that is fast on CPUs."""

from __future__ import annotations

import tensorflow as tf

# oneDNN has a fast depthwise filter gradient for kernels of up to three columns only. Wider ones
# fall to its grouped convolution, which takes several times as long.
_FAST_COLUMNS = 3
# The most strips of so many columns that a kernel takes whose size is a tensor: 9 columns.
_MOST_STRIPS = 3

Size = int | tf.Tensor  # an int, or a scalar int32 tensor inside a graph


def depthwise_conv2d(inputs: tf.Tensor, kernel: tf.Tensor, stride: int, size: Size) -> tf.Tensor:
    """Depthwise convolution, padded by size // 2 on each side as PyTorch pads.

    Args:
        inputs: (batch, height, width, channels).
        kernel: (size, size, channels, 1).
        stride: 1 or 2.
        size: side of the kernel, odd and at least 3: an int, or a scalar int32 tensor of at most 9.

    Returns: (batch, ceil(height / stride), ceil(width / stride), channels).
    """

    @tf.custom_gradient
    def convolve(inputs, kernel):
        # A tensor of the graph that this is in: one from around a branch of tf.cond would be lost
        # to the gradient where the tape is outside the graph.
        side = size if isinstance(size, int) else tf.identity(size)
        same_kernel = kernel if stride == 1 else _for_same_padding(kernel, inputs)
        options = {"strides": [1, stride, stride, 1], "padding": "SAME"}
        outputs = tf.raw_ops.DepthwiseConv2dNative(input=inputs, filter=same_kernel, **options)

        def gradient(upstream):
            input_gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs), filter=same_kernel, out_backprop=upstream, **options
            )
            if on_gpu():
                # Of the padded kernel, whose zeros are not trained.
                kernel_gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                    input=inputs,
                    filter_sizes=tf.shape(same_kernel),
                    out_backprop=upstream,
                    **options,
                )[:side, :side]
            else:
                kernel_gradient = _filter_gradient(inputs, upstream, stride, side)
            return input_gradient, kernel_gradient

        return outputs, gradient

    return convolve(inputs, kernel)


def on_gpu() -> bool:
    """Whether what is traced will run on a GPU; what is done for oneDNN's sake is for CPUs."""
    return bool(tf.config.list_logical_devices("GPU"))


def _for_same_padding(kernel, inputs):
    """The kernel with which "SAME" pads by size // 2 at stride 2.

    It pads one less in front where a side of the image is even. A row or column of zeros behind
    the kernel makes up for that, and is much smaller than an image with a frame.
    """
    height, width = tf.shape(inputs)[1], tf.shape(inputs)[2]
    return tf.pad(kernel, [[0, 1 - height % 2], [0, 1 - width % 2], [0, 0], [0, 0]])


def _filter_gradient(inputs, upstream, stride: int, size: Size) -> tf.Tensor:
    """The kernel's gradient, (size, size, channels, 1)."""
    if stride > 1:
        return _in_strips(inputs, upstream, stride, size)
    channels = tf.shape(inputs)[3]

    def at_once(inputs, upstream):
        shape = [size, size, channels, 1]
        return _native_filter_gradient(inputs, shape, upstream, 1, "SAME")

    if isinstance(size, int):
        narrow = size <= _FAST_COLUMNS
        return at_once(inputs, upstream) if narrow else _in_strips(inputs, upstream, stride, size)
    # One of the two gets all images and the other none: cheaper than a branch in the graph.
    batch = tf.shape(inputs)[0]
    narrow = tf.where(size <= _FAST_COLUMNS, batch, 0)
    wide = batch - narrow
    return at_once(inputs[:narrow], upstream[:narrow]) + _in_strips(
        inputs[:wide], upstream[:wide], stride, size
    )


def _in_strips(inputs, upstream, stride: int, size: Size) -> tf.Tensor:
    """The kernel's gradient, in vertical strips of three columns.

    The strips' images are one framed image, read from its first, fourth and seventh column on:
    views, without a copy. What a view takes from the next row meets zeros behind the upstream's
    columns, and an image more at the end keeps the last view inside the tensor.
    """
    batch, height, width, channels = tf.unstack(tf.shape(inputs))
    pad = size // 2
    height, width = height + 2 * pad, width + 2 * pad
    framed = tf.pad(inputs, [[0, 1], [pad, pad], [pad, pad], [0, 0]])
    pixels = tf.reshape(framed, [-1, channels])
    beyond = (width - _FAST_COLUMNS) // stride + 1 - tf.shape(upstream)[2]
    upstream = tf.pad(upstream, [[0, 0], [0, 0], [0, beyond], [0, 0]])

    def strip(first_column):
        # A strip outside the kernel gets no images.
        images = batch if isinstance(size, int) else tf.where(first_column < size, batch, 0)
        view = pixels[first_column : first_column + images * height * width]
        view = tf.reshape(view, tf.stack([images, height, width, channels]))
        shape = [size, _FAST_COLUMNS, channels, 1]
        return _native_filter_gradient(view, shape, upstream[:images], stride, "VALID")

    most = size if isinstance(size, int) else _MOST_STRIPS * _FAST_COLUMNS
    strips = [strip(first_column) for first_column in range(0, most, _FAST_COLUMNS)]
    return tf.concat(strips, axis=1)[:, :size]


def _native_filter_gradient(inputs, shape, upstream, stride: int, padding: str) -> tf.Tensor:
    """TensorFlow's own filter gradient; zeros where there are no images."""
    gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=inputs,
        filter_sizes=tf.stack(shape),
        out_backprop=upstream,
        strides=[1, stride, stride, 1],
        padding=padding,
    )
    # Without images all kernels but oneDNN's leave the memory as they found it.
    any_image = tf.cast(tf.shape(inputs)[0] > 0, gradient.dtype)
    return tf.math.multiply_no_nan(gradient, any_image)
