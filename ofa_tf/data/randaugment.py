"""RandAugment (Cubuk et al., arXiv 1909.13719): a few of 14 image operations, drawn per image.

The operations give what PIL's ImageOps, ImageEnhance and nearest-neighbor transforms give. A
magnitude from 0 to 10 runs through AutoAugment's ranges (arXiv 1805.09501), from no change to most.
"""

import math
from collections.abc import Callable

import tensorflow as tf

MAX_MAGNITUDE = 10.0

_MAX_DEGREES = 30.0
_MAX_SHEAR = 0.3
_MAX_SHIFT = 150 / 331  # of the side: 150 pixels of AutoAugment's 331
_MAX_ENHANCEMENT = 0.9  # factors from 0.1 to 1.9
_MAX_LOST_BITS = 4
_FILL = 128.0  # gray, for what is moved in from outside of the image

# ITU-R 601 luma in 16-bit fixed point, and the rounding bit.
_LUMA = (19595, 38470, 7471)
_HALF = 1 << 15


def draw_operations(seed: tf.Tensor, batch_size: int, num_layers: int) -> tf.Tensor:
    """What each image of a batch goes through, a function of `seed` (integers, shape [2]) alone.

    Returns:
        float32 uniform numbers in [0, 1), [batch_size, num_layers, 2]: operation and direction.
    """
    return tf.random.stateless_uniform([batch_size, num_layers, 2], seed, alg="philox")


def randaugment(image: tf.Tensor, draws: tf.Tensor, magnitude: float) -> tf.Tensor:
    """Puts one image through the operations drawn for it, one after the other.

    Args:
        image: float32 [H, W, 3], from 0 to 255; rounded to whole numbers first.
        draws: the image's row of `draw_operations`.
        magnitude: strength of every operation, from 0 to 10.

    Returns:
        float32 [H, W, 3], whole numbers from 0 to 255.
    """
    pixels = tf.saturate_cast(tf.round(image), tf.uint8)
    operations = list(OPERATIONS.values())
    for layer in range(draws.shape[0]):
        chosen = tf.cast(draws[layer, 0] * len(operations), tf.int32)
        direction = tf.where(draws[layer, 1] < 0.5, -1.0, 1.0)
        strength = direction * (magnitude / MAX_MAGNITUDE)
        branches = [_branch(operation, pixels, strength) for operation in operations]
        pixels = tf.ensure_shape(tf.switch_case(chosen, branches), image.shape)
    return tf.cast(pixels, tf.float32)


def _branch(operation: Callable, pixels: tf.Tensor, strength: tf.Tensor) -> Callable:
    return lambda: operation(pixels, strength)


# An operation takes a uint8 image [H, W, 3] and a float32 strength from -1 to 1, whose sign counts
# where the operation has two directions. It gives a uint8 image.


def identity(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    del strength
    return image


def autocontrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the whole range."""
    del strength
    low, high = (
        tf.cast(extreme(image, axis=[0, 1]), tf.float64)[:, tf.newaxis]
        for extreme in (tf.reduce_min, tf.reduce_max)
    )
    values = tf.range(256, dtype=tf.float64)
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = tf.floor(values * scale - low * scale)
    return _look_up(image, tf.where(high > low, stretched, values))


def equalize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Flattens the histogram of each channel."""
    del strength
    bins = tf.cast(image, tf.int32) + 256 * tf.range(3)
    histogram = tf.reshape(tf.math.bincount(bins, minlength=3 * 256), [3, 256])
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    last = tf.cast(tf.reduce_max(image, axis=[0, 1]), tf.int32)[:, tf.newaxis]
    # Pixels per level; the brightest level's own do not count.
    step = tf.gather(below, last, batch_dims=1) // 255
    divisor = tf.maximum(step, 1)
    return _look_up(image, tf.where(step > 0, (step // 2 + below) // divisor, tf.range(256)))


def solarize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Inverts the pixels that are bright enough."""
    threshold = 256.0 * (1.0 - tf.abs(strength))
    return tf.where(tf.cast(image, tf.float32) < threshold, image, 255 - image)


def posterize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Clears the lowest bits."""
    bits = tf.cast(tf.round(_MAX_LOST_BITS * tf.abs(strength)), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, bits), bits)


def color(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Towards gray, or away from it."""
    return _enhance(tf.cast(_gray(image), tf.float32), image, strength)


def contrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Towards the mean brightness, or away from it."""
    mean = tf.reduce_mean(tf.cast(_gray(image), tf.float64))
    return _enhance(tf.cast(tf.floor(mean + 0.5), tf.float32), image, strength)


def brightness(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Towards black, or away from it."""
    return _enhance(tf.constant(0.0), image, strength)


def sharpness(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Towards the smoothed image, or away from it; the outermost pixels stay."""
    pixels = tf.cast(image, tf.int32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * pixels[1:-1, 1:-1]
    smooth = (2 * total + 13) // 26  # a thirteenth, rounded
    inside = tf.pad(tf.ones_like(smooth, tf.bool), [[1, 1], [1, 1], [0, 0]])
    smooth = tf.where(inside, tf.pad(smooth, [[1, 1], [1, 1], [0, 0]]), pixels)
    return _enhance(tf.cast(smooth, tf.float32), image, strength)


def rotate(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """About the middle, counterclockwise for a positive strength."""
    return rotate_degrees(image, strength * _MAX_DEGREES)


def rotate_degrees(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    angle = degrees * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    x, y = (width - 1) / 2, (height - 1) / 2
    return _affine(
        image, [cosine, -sine, x - x * cosine + y * sine, sine, cosine, y - x * sine - y * cosine]
    )


def shear_x(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    slope = strength * _MAX_SHEAR
    return _affine(image, [1.0, slope, slope / 2, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    slope = strength * _MAX_SHEAR
    return _affine(image, [1.0, 0.0, 0.0, slope, 1.0, slope / 2])


def translate_x(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    shift = strength * _MAX_SHIFT * tf.cast(tf.shape(image)[1], tf.float32)
    return _affine(image, [1.0, 0.0, shift, 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    shift = strength * _MAX_SHIFT * tf.cast(tf.shape(image)[0], tf.float32)
    return _affine(image, [1.0, 0.0, 0.0, 0.0, 1.0, shift])


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        identity,
        autocontrast,
        equalize,
        rotate,
        solarize,
        color,
        posterize,
        contrast,
        brightness,
        sharpness,
        shear_x,
        shear_y,
        translate_x,
        translate_y,
    )
}


def _look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Replaces each channel's values by their entries in `table` [3, 256]."""
    entries = tf.reshape(tf.cast(tf.clip_by_value(table, 0, 255), tf.uint8), [-1])
    return tf.gather(entries, tf.cast(image, tf.int32) + 256 * tf.range(3))


def _gray(image: tf.Tensor) -> tf.Tensor:
    """Luma, int32 [H, W, 1]."""
    weighted = tf.reduce_sum(tf.cast(image, tf.int32) * tf.constant(_LUMA), -1, keepdims=True)
    return tf.bitwise.right_shift(weighted + _HALF, 16)


def _enhance(degenerate: tf.Tensor, image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Moves an image away from its degenerate form, or (strength below 0) towards it."""
    factor = 1.0 + _MAX_ENHANCEMENT * strength
    moved = degenerate + factor * (tf.cast(image, tf.float32) - degenerate)
    return tf.cast(tf.clip_by_value(moved, 0.0, 255.0), tf.uint8)


def _affine(image: tf.Tensor, matrix: list) -> tf.Tensor:
    """Takes each pixel (x, y) from where `matrix` (two rows, flat) puts it; the nearest one."""
    coefficients = tf.stack([*map(tf.convert_to_tensor, matrix), 0.0, 0.0])
    (moved,) = tf.unstack(
        tf.raw_ops.ImageProjectiveTransformV3(
            images=image[tf.newaxis],
            transforms=coefficients[tf.newaxis],
            output_shape=tf.shape(image)[:2],
            fill_value=_FILL,
            interpolation="NEAREST",
            fill_mode="CONSTANT",
        ),
        num=1,
    )
    return moved
