"""What the elastic layers compute, in a few lines of NumPy (float64)."""

from __future__ import annotations

import numpy as np


def convolve(images: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Convolution (k, k, in, out) of NHWC images, padded by k // 2 on each side."""
    k = kernel.shape[0]
    padded = np.pad(images.astype(np.float64), [(0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows[:, ::stride, ::stride], kernel)


def convolve_depthwise(images: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Depthwise convolution with a kernel (k, k, channels)."""
    full = np.zeros((*kernel.shape, kernel.shape[-1]))
    channels = np.arange(kernel.shape[-1])
    full[:, :, channels, channels] = kernel
    return convolve(images, full, stride)


def pool(images: np.ndarray, kernel_size: int, stride: int) -> np.ndarray:
    """The largest of each window, padded by k // 2 on each side with what is never the largest."""
    pad = (kernel_size // 2,) * 2
    padded = np.pad(images, [(0, 0), pad, pad, (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size,) * 2, axis=(1, 2))
    return windows[:, ::stride, ::stride].max(axis=(-2, -1))


def halve(images: np.ndarray) -> np.ndarray:
    """Means of 2x2 windows; at an odd edge of the pixels that there are."""
    height, width = images.shape[1:3]
    rows = [images[:, y : y + 2] for y in range(0, height, 2)]
    return np.stack(
        [
            np.stack([row[:, :, x : x + 2].mean(axis=(1, 2)) for x in range(0, width, 2)], axis=1)
            for row in rows
        ],
        axis=1,
    )


def transformed_kernel(kernel: np.ndarray, transforms: dict[int, np.ndarray], size: int):
    """The published kernel transformation, channel by channel.

    A smaller kernel is the center of the next larger one, flattened, as a row vector times the
    matrix; kernel 3 is made from the transformed kernel 5.
    """
    while kernel.shape[0] > size:
        small = kernel.shape[0] - 2
        center = kernel[1:-1, 1:-1]
        smaller = np.empty((small, small, kernel.shape[-1]))
        for channel in range(kernel.shape[-1]):
            row = center[:, :, channel].reshape(1, small * small)
            smaller[:, :, channel] = (row @ transforms[small]).reshape(small, small)
        kernel = smaller
    return kernel


def normalized(inputs, gamma, beta, mean, variance, epsilon):
    return gamma * (inputs - mean) / np.sqrt(variance + epsilon) + beta


def squeeze_excite(inputs, reduce_kernel, reduce_bias, expand_kernel, expand_bias):
    """Gates of the global mean: dense, ReLU, dense, relu6(x + 3) / 6. Kernels are (in, out)."""
    hidden = np.maximum(inputs.mean(axis=(1, 2)) @ reduce_kernel + reduce_bias, 0)
    gate = np.clip(hidden @ expand_kernel + expand_bias + 3, 0, 6) / 6
    return inputs * gate[:, None, None]


def draw(layer, rng: np.random.Generator) -> None:
    """Gives every weight of a layer values that are nothing special."""
    for weight in layer.weights:
        if weight.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 2, weight.shape)
        else:
            value = rng.normal(0, 0.5, weight.shape)
        weight.assign(value.astype(np.float32))


def images(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0.3, 1, shape).astype(np.float32)
