"""RandAugment's operations against PIL, and the draw among them."""

import numpy as np
import pytest
import tensorflow as tf
from data_helpers import random_image
from PIL import Image, ImageEnhance, ImageOps

from ofa_tf.data import Augmentation, randaugment
from ofa_tf.errors import UsageError

STRENGTHS = [-1.0, -0.55, -0.1, 0.0, 0.1, 0.55, 0.9, 1.0]
GRAY = (128, 128, 128)


def noise(seed, height=31, width=27, low=0, high=256):
    shape = (height, width, 3)
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


IMAGES = {
    "noise": noise(0),
    "smooth": random_image(1, 40, 56),
    "narrow": noise(2, low=90, high=120),
    "flat": np.full((9, 12, 3), (7, 0, 255), np.uint8),
    "channels differ": noise(3) // np.array([1, 3, 64], np.uint8),
    "large": random_image(6, 230, 200),
}


def move(image, *matrix):
    return image.transform(image.size, Image.AFFINE, matrix, Image.NEAREST, fillcolor=GRAY)


REFERENCES = {
    "identity": lambda image, s: image,
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 * (1 - abs(s))),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "rotate": lambda image, s: image.rotate(30 * s, Image.NEAREST, fillcolor=GRAY),
    "shear_x": lambda image, s: move(image, 1, 0.3 * s, 0, 0, 1, 0),
    "shear_y": lambda image, s: move(image, 1, 0, 0, 0.3 * s, 1, 0),
    "translate_x": lambda image, s: move(image, 1, 0, 150 / 331 * s * image.width, 0, 1, 0),
    "translate_y": lambda image, s: move(image, 1, 0, 0, 0, 1, 150 / 331 * s * image.height),
}
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def test_the_fourteen_are_tested():
    assert len(REFERENCES) == 14
    assert set(REFERENCES) == set(randaugment.OPERATIONS)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("name", REFERENCES)
def test_operation_equals_pil(name, kind):
    pixels = IMAGES[kind]
    for strength in STRENGTHS:
        actual = randaugment.OPERATIONS[name](tf.constant(pixels), tf.constant(strength))
        expected = np.asarray(REFERENCES[name](Image.fromarray(pixels), strength))
        assert actual.dtype == tf.uint8
        if name in MOVES:  # a pixel from the border between two may come from either
            assert (actual.numpy() != expected).any(-1).mean() < 0.02, strength
        else:
            # The blending's float32 products may fall to either side of a whole number.
            difference = np.abs(actual.numpy().astype(int) - expected)
            assert difference.max() <= 1, strength
            assert (difference > 0).mean() < 0.002, strength


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_by_right_angles(turns):
    pixels = noise(7, 30, 30)
    actual = randaugment.rotate_degrees(tf.constant(pixels), tf.constant(90.0 * turns))
    np.testing.assert_array_equal(actual, np.rot90(pixels, turns))


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - {"identity"}))
def test_every_operation_does_something(name):
    pixels = tf.constant(noise(8, low=20, high=200))
    for strength in (0.9, -0.9):
        changed = randaugment.OPERATIONS[name](pixels, tf.constant(strength))
        assert (changed.numpy() != pixels.numpy()).mean() > 0.1


def test_every_operation_and_direction_is_drawn():
    draws = randaugment.draw_operations(tf.constant([3, 5], tf.int64), 1000, 2).numpy()
    assert draws.shape == (1000, 2, 2)
    operations = np.floor(draws[..., 0] * 14).astype(int)
    counts = np.bincount(operations.ravel(), minlength=14)
    assert counts.min() > 100  # 143 expected
    assert abs((draws[..., 1] < 0.5).mean() - 0.5) < 0.05
    assert (operations[:, 0] != operations[:, 1]).mean() > 0.85


def test_layers_are_applied_in_turn():
    names = list(randaugment.OPERATIONS)
    first, second = names.index("solarize"), names.index("rotate")
    draws = tf.constant([[(first + 0.5) / 14, 0.9], [(second + 0.5) / 14, 0.1]])
    image = tf.constant(IMAGES["smooth"], tf.float32) + 0.3
    expected = randaugment.rotate(
        randaugment.solarize(tf.constant(IMAGES["smooth"]), tf.constant(0.7)), tf.constant(-0.7)
    )
    actual = tf.function(randaugment.randaugment)(image, draws, 7.0)
    assert actual.dtype == tf.float32
    np.testing.assert_array_equal(actual, tf.cast(expected, tf.float32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("randaugment_layers", -1),
        ("randaugment_layers", 1.5),
        ("randaugment_magnitude", -0.1),
        ("randaugment_magnitude", 10.5),
        ("randaugment_magnitude", float("nan")),
    ],
)
def test_values_out_of_range(field, value):
    with pytest.raises(UsageError, match=field):
        Augmentation(**{field: value})
