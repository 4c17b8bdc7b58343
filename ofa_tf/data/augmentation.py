"""Image transforms on pixels from 0 to 255: crops, resizing, flips, color jitter, normalization.

Training transforms are functions of random numbers that are drawn beforehand from (seed, step), so
that a batch does not depend on what was computed before it.
"""

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from ofa_tf.data.decoding import Box, Part
from ofa_tf.data.randaugment import MAX_MAGNITUDE
from ofa_tf.errors import UsageError

# ImageNet's channel means and standard deviations (RGB), for pixels from 0 to 255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

# The least share of an image's shorter side that evaluation may see.
MIN_EVAL_CROP = 0.01

_CROP_ATTEMPTS = 10
_LOG_MAX_ASPECT = math.log(4 / 3)
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What a training image goes through.

    Attributes:
        crop_scale_min: least share of the image's area that a random crop keeps, in (0, 1].
            1 turns random crops off.
        flip: mirror half of the images, where the data set's classes allow it.
        brightness: pixels are multiplied by a factor from 1 - brightness to 1 + brightness.
        saturation: colors are moved away from or towards gray by a factor from 1 - saturation to
            1 + saturation.
        randaugment_layers: operations of RandAugment that each image goes through; 0 is off.
        randaugment_magnitude: their strength, from 0 to 10.

    Raises:
        UsageError: for a value outside its range.
    """

    crop_scale_min: float = 0.08
    flip: bool = True
    brightness: float = 32 / 255
    saturation: float = 0.5
    randaugment_layers: int = 0
    randaugment_magnitude: float = 9.0

    def __post_init__(self):
        if not 0 < self.crop_scale_min <= 1:
            raise UsageError(f"crop_scale_min is {self.crop_scale_min}; it must be in (0, 1].")
        for name in ("brightness", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be from 0 to 1.")
        if not isinstance(self.randaugment_layers, int) or self.randaugment_layers < 0:
            raise UsageError(
                f"randaugment_layers is {self.randaugment_layers}; it must be a whole number, 0 "
                "or more."
            )
        if not 0 <= self.randaugment_magnitude <= MAX_MAGNITUDE:
            raise UsageError(
                f"randaugment_magnitude is {self.randaugment_magnitude}; it must be from 0 to 10."
            )


class Draws(NamedTuple):
    """Uniform random numbers in [0, 1) for each image of a batch; the leading axis is the batch."""

    area: tf.Tensor  # [batch, attempts]
    aspect: tf.Tensor  # [batch, attempts]
    top: tf.Tensor  # [batch], and so below
    left: tf.Tensor
    flip: tf.Tensor
    brightness: tf.Tensor
    saturation: tf.Tensor


def draw_uniforms(seed: tf.Tensor, batch_size: int) -> Draws:
    """The random numbers of one batch, a function of `seed` (integers, shape [2]) alone."""
    columns = 2 * _CROP_ATTEMPTS + 5
    uniforms = tf.random.stateless_uniform([batch_size, columns], seed, alg="philox")
    area, aspect, rest = tf.split(uniforms, [_CROP_ATTEMPTS, _CROP_ATTEMPTS, 5], axis=1)
    return Draws(area, aspect, *tf.unstack(rest, axis=1))


def random_crop_box(draws: Draws, height: tf.Tensor, width: tf.Tensor, scale_min: float) -> Box:
    """A crop of random area and of an aspect from 3/4 to 4/3, as Inception's.

    The first attempt that fits counts. If none does: the middle of the image, at most 4/3 as long
    on one side as on the other.

    Args:
        draws: of one image, or of a batch.
        height: int32 height of the image or images, scalar.
        width: int32 width, scalar.
        scale_min: least share of the image's area.
    """
    size = tf.cast(height * width, tf.float32)
    area = size * (scale_min + (1.0 - scale_min) * draws.area)
    aspect = tf.exp(_LOG_MAX_ASPECT * (2.0 * draws.aspect - 1.0))
    heights = tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32)
    widths = tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32)
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = tf.argmax(fits, axis=-1, output_type=tf.int32)
    found = tf.reduce_any(fits, axis=-1)
    batch_dims = draws.top.shape.rank

    def choose(attempts: tf.Tensor, fallback: tf.Tensor) -> tf.Tensor:
        chosen = tf.gather(attempts, first, axis=batch_dims, batch_dims=batch_dims)
        return tf.where(found, chosen, fallback)

    crop_height = choose(heights, tf.minimum(height, width * 4 // 3))
    crop_width = choose(widths, tf.minimum(width, height * 4 // 3))

    def place(uniform: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
        placed = tf.cast(uniform * tf.cast(room + 1, tf.float32), tf.int32)
        return tf.where(found, tf.minimum(placed, room), room // 2)

    top = place(draws.top, height - crop_height)
    left = place(draws.left, width - crop_width)
    return Box(top, left, crop_height, crop_width)


def resize(image: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Bilinear, antialiased where it shrinks: [..., H, W, 3] -> float32 [..., height, width, 3]."""
    return tf.image.resize(image, tf.stack([height, width]), antialias=True)


def crop_and_resize_batch(
    images: tf.Tensor, boxes: Box, flip: tf.Tensor, resolution: tf.Tensor
) -> tf.Tensor:
    """Crops, resizes and mirrors images of one size, each by its own box.

    Gives what `resize` gives for each crop. Each axis is one product with a matrix of
    interpolation weights, in which a mirrored image only has its columns the other way round.

    Args:
        images: [batch, H, W, 3], any number type.
        boxes: the crops, int32 [batch] each.
        flip: bool [batch].
        resolution: int32 scalar, pixels of the result.

    Returns:
        float32 [batch, resolution, resolution, 3].
    """
    _, height, width, _ = images.shape
    order = tf.range(resolution)
    mirrored = tf.where(flip[:, tf.newaxis], resolution - 1 - order, order)
    rows = _interpolation_weights(order[tf.newaxis], boxes.top, boxes.height, height, resolution)
    columns = _interpolation_weights(mirrored, boxes.left, boxes.width, width, resolution)
    planes = tf.transpose(tf.cast(images, tf.float32), [0, 3, 1, 2])
    planes = tf.matmul(rows[:, tf.newaxis], planes)
    planes = tf.matmul(planes, columns[:, tf.newaxis], transpose_b=True)
    return tf.transpose(planes, [0, 2, 3, 1])


def _interpolation_weights(
    positions: tf.Tensor, start: tf.Tensor, length: tf.Tensor, size: int, resolution: tf.Tensor
) -> tf.Tensor:
    """Triangle-filter weights of `size` input pixels for each output pixel.

    Args:
        positions: the output pixels, int32 [batch or 1, resolution].
        start: first input pixel of the crop, int32 [batch].
        length: input pixels in the crop, int32 [batch].
        size: input pixels of the image.
        resolution: output pixels.

    Returns:
        float32 [batch, resolution, size]; each row sums to 1 and is 0 outside the crop.
    """
    start, length = start[:, tf.newaxis, tf.newaxis], length[:, tf.newaxis, tf.newaxis]
    pixels = tf.range(size)[tf.newaxis, tf.newaxis]
    scale = tf.cast(length, tf.float32) / tf.cast(resolution, tf.float32)
    centers = (tf.cast(positions[..., tf.newaxis], tf.float32) + 0.5) * scale - 0.5
    distance = tf.abs(tf.cast(pixels - start, tf.float32) - centers) / tf.maximum(scale, 1.0)
    inside = (pixels >= start) & (pixels < start + length)
    weights = tf.where(inside, tf.maximum(1.0 - distance, 0.0), 0.0)
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def jitter_colors(images: tf.Tensor, draws: Draws, augmentation: Augmentation) -> tf.Tensor:
    """Random brightness, then random saturation, each clipped to 0 .. 255.

    Args:
        images: float32 [batch, H, W, 3], with `draws` of the batch; or one image, with its draws.
        draws: the random numbers.
        augmentation: the strengths; a strength of 0 costs nothing.
    """
    if not (augmentation.brightness or augmentation.saturation):
        return images
    brightness = _around_one(draws.brightness, augmentation.brightness)
    saturation = _around_one(draws.saturation, augmentation.saturation)
    # Pixels that would become brighter than 255 are cut before instead of after; what is left is
    # one product of colors with a matrix, many times as fast as operations on the last axis.
    luma = tf.tile(tf.constant(_LUMA)[:, tf.newaxis], [1, 3])
    matrix = brightness * (luma + saturation * (tf.eye(3) - luma))
    shape = tf.shape(images)
    colors = tf.reshape(images, tf.concat([shape[:-3], [-1, 3]], axis=0))
    colors = tf.matmul(tf.minimum(colors, 255.0 / brightness), matrix)
    return tf.reshape(tf.clip_by_value(colors, 0.0, 255.0), shape)


def _around_one(uniform: tf.Tensor, strength: float) -> tf.Tensor:
    factor = 1.0 + strength * (2.0 * uniform - 1.0)
    return factor[..., tf.newaxis, tf.newaxis]


def resize_and_center_crop(images: tf.Tensor, resolution: int, eval_crop: float) -> tf.Tensor:
    """The evaluation transform: the shorter side to resolution / eval_crop, then the middle.

    Args:
        images: [..., H, W, 3], any number type.
        resolution: pixels of the result.
        eval_crop: the share of the shorter side that is kept, in (0, 1].

    Returns:
        float32 [..., resolution, resolution, 3].
    """
    height, width = tf.unstack(tf.shape(images)[-3:-1])
    part = Part(images, Box(tf.constant(0), tf.constant(0), height, width), height, width)
    return resize_center(part, resolution, eval_crop)


def center_box(height: tf.Tensor, width: tf.Tensor, resolution: int, eval_crop: float) -> Box:
    """All that the evaluation transform sees of an image: what `resize_center` needs of it."""
    starts, lengths = [], []
    for side, (scale, offset) in zip(
        (height, width), _center(height, width, resolution, eval_crop), strict=True
    ):
        margin = tf.maximum(1.0 / scale, 1.0) + 1.0  # a pixel is a mean of some around it
        start = tf.maximum(tf.cast(tf.floor(offset / scale - margin), tf.int32), 0)
        end = tf.cast(tf.math.ceil((offset + resolution) / scale + margin), tf.int32)
        starts.append(start)
        lengths.append(tf.minimum(end, side) - start)
    return Box(*starts, *lengths)


def resize_center(part: Part, resolution: int, eval_crop: float) -> tf.Tensor:
    """What `resize_and_center_crop` gives for the image that a part, or a batch of them, is of.

    Args:
        part: at least the pixels that `center_box` tells, [..., h, w, 3].
        resolution: pixels of the result.
        eval_crop: as there.
    """
    scales, shifts = [], []
    for start, (scale, offset) in zip(
        part.box[:2], _center(part.height, part.width, resolution, eval_crop), strict=True
    ):
        scales.append(tf.cast(scale, tf.float32))
        shifts.append(tf.cast(tf.cast(start, tf.float64) * scale - offset, tf.float32))
    shape = tf.shape(part.pixels)
    pixels = tf.reshape(part.pixels, tf.concat([[-1], shape[-3:]], axis=0))
    # As tf.image.resize does it, of the middle only.
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=pixels,
        size=[resolution, resolution],
        scale=tf.stack(scales),
        translation=tf.stack(shifts),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.reshape(pixels, tf.concat([shape[:-3], tf.shape(pixels)[1:]], axis=0))


def _center(
    height: tf.Tensor, width: tf.Tensor, resolution: int, eval_crop: float
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """For each axis: by how much the image is enlarged, and where its middle then begins.

    In float64, which holds what an extreme shape or crop makes of it.
    """
    shorter = math.ceil(resolution / eval_crop - 1e-6)
    sides = [tf.cast(side, tf.float64) for side in (height, width)]
    found = []
    for side in sides:
        resized = tf.maximum(tf.round(side * (shorter / tf.minimum(*sides))), shorter)
        found.append((resized / side, tf.floor((resized - resolution) / 2)))
    return found


def normalize(images: tf.Tensor) -> tf.Tensor:
    """Pixels [..., H, W, 3] from 0 to 255 to zero mean and unit variance, by `MEAN` and `STD`."""
    # Row by row with the constants repeated: three times as fast as with an axis of three.
    shape = tf.shape(images)
    mean, std = (tf.tile(tf.constant(three), shape[-2:-1]) for three in (MEAN, STD))
    rows = tf.reshape(images, tf.concat([shape[:-2], [-1]], axis=0))
    return tf.ensure_shape(tf.reshape((rows - mean) / std, shape), images.shape)
