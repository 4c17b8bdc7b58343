"""Encoded images to pixels: whole or a part, as they are to be seen."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

# What other decoders do (PIL, Android); TensorFlow's default is faster and off by a few levels.
JPEG_DCT = "INTEGER_ACCURATE"

_WEBP_ALPHA = {b"VP8X": (20, 0x10), b"VP8L": (24, 0x10)}  # the byte and the bit that tell of it


class Picture(NamedTuple):
    """An encoded image.

    Attributes:
        encoded: its bytes, a scalar.
        orientation: how it is to be turned, as EXIF counts, int32 scalar; None for not at all.
    """

    encoded: tf.Tensor
    orientation: tf.Tensor | None = None


class Box(NamedTuple):
    """A crop in pixels; int32, each a scalar or [batch]."""

    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


class Part(NamedTuple):
    """A part of an image: uint8 [h, w, 3], where it was, and the size of the image, scalars."""

    pixels: tf.Tensor
    box: Box
    height: tf.Tensor
    width: tf.Tensor


# Takes the height and the width of an image, int32 scalars.
ChooseBox = Callable[[tf.Tensor, tf.Tensor], Box]


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG, PNG, GIF (first frame), BMP or WebP bytes to uint8 RGB [H, W, 3].

    One channel becomes three, CMYK becomes RGB, 16 bits become 8, and alpha is dropped.
    """
    image = tf.case(
        [
            (
                tf.io.is_jpeg(encoded),
                lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=JPEG_DCT),
            ),
            (_is_webp(encoded), lambda: _decode_webp(encoded)),
        ],
        default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_picture(picture: Picture) -> tf.Tensor:
    """The whole picture as it is to be seen, uint8 [H, W, 3]."""
    pixels = decode_rgb(picture.encoded)
    return pixels if picture.orientation is None else _turn(pixels, picture.orientation)


def decode_part(picture: Picture, choose: ChooseBox) -> Part:
    """A part of a picture as it is to be seen; of a JPEG, only this part is decoded."""
    if picture.orientation is None:
        return _decode_stored(picture.encoded, choose, None)
    return tf.cond(
        picture.orientation == 1,
        lambda: _decode_stored(picture.encoded, choose, None),
        lambda: _decode_stored(picture.encoded, choose, picture.orientation),
    )


def _decode_stored(encoded: tf.Tensor, choose: ChooseBox, orientation: tf.Tensor | None) -> Part:
    def part(shape: tf.Tensor, crop: Callable[[Box], tf.Tensor]) -> Part:
        height, width, _ = tf.unstack(shape, num=3)
        if orientation is None:
            box = choose(height, width)
            return Part(crop(box), box, height, width)
        stored, (height, width) = (height, width), _swapped(orientation > 4, height, width)
        box = choose(height, width)
        pixels = _turn(crop(_stored_box(box, orientation, *stored)), orientation)
        return Part(pixels, box, height, width)

    def jpeg() -> Part:
        return part(
            tf.image.extract_jpeg_shape(encoded),
            lambda box: tf.io.decode_and_crop_jpeg(
                encoded, tf.stack(box), channels=3, dct_method=JPEG_DCT
            ),
        )

    def other() -> Part:
        image = decode_rgb(encoded)
        return part(tf.shape(image), lambda box: tf.image.crop_to_bounding_box(image, *box))

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)


def _is_webp(encoded: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_full_match(tf.strings.substr(encoded, 0, 12), r"RIFF\C{4}WEBP")


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    """The first frame; TensorFlow has to be told whether there is an alpha channel."""
    kind = tf.strings.substr(encoded, 12, 4)
    has_alpha = tf.constant(False)
    for name, (place, bit) in _WEBP_ALPHA.items():
        (byte,) = tf.unstack(tf.io.decode_raw(tf.strings.substr(encoded, place, 1), tf.uint8), 1)
        has_alpha |= (kind == name) & (tf.bitwise.bitwise_and(byte, bit) > 0)
    frames = tf.cond(
        has_alpha,
        lambda: tf.io.decode_webp(encoded, channels=4),
        lambda: tf.io.decode_webp(encoded, channels=3),
    )
    return frames[0, :, :, :3]


# EXIF numbers the ways in which stored pixels may lie. To be seen, those of 5 to 8 are transposed
# first; then those of 2, 3, 6 and 7 are mirrored from left to right, and of 3, 4, 7 and 8 from top
# to bottom.
def _mirrored(orientation: tf.Tensor, axis: int) -> tf.Tensor:
    numbers = ((3, 4, 7, 8), (2, 3, 6, 7))[axis]
    return tf.reduce_any(orientation == tf.constant(numbers))


def _turn(stored: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Stored pixels [h, w, 3] as they are to be seen, [h, w, 3] or [w, h, 3]."""
    seen = tf.cond(orientation > 4, lambda: tf.transpose(stored, [1, 0, 2]), lambda: stored)
    for axis in (0, 1):
        seen = tf.cond(
            _mirrored(orientation, axis),
            lambda seen=seen, axis=axis: tf.reverse(seen, [axis]),
            lambda seen=seen: seen,
        )
    return tf.ensure_shape(seen, [None, None, 3])


def _stored_box(box: Box, orientation: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> Box:
    """Where a crop of the image as it is seen lies in the stored one, of this height and width."""
    transposed = orientation > 4
    seen_height, seen_width = _swapped(transposed, height, width)
    top, left = (
        tf.where(_mirrored(orientation, axis), size - start - length, start)
        for axis, (size, start, length) in enumerate(
            ((seen_height, box.top, box.height), (seen_width, box.left, box.width))
        )
    )
    return Box(*_swapped(transposed, top, left), *_swapped(transposed, box.height, box.width))


def _swapped(swap: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.where(swap, second, first), tf.where(swap, first, second)
