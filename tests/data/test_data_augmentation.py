"""Transforms against a few lines of NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from ofa_tf.data import augmentation as transforms
from ofa_tf.data.augmentation import MEAN, STD, Augmentation, Box
from ofa_tf.errors import UsageError

BATCH = 64


def images(count, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def draws(step=0, count=BATCH):
    return transforms.draw_uniforms(tf.constant([7, step], tf.int64), count)


def reference_resize(image, resolution):
    """Antialiased bilinear resizing: triangle weights per axis."""

    def matrix(size):
        scale = size / resolution
        centers = (np.arange(resolution) + 0.5) * scale - 0.5
        distance = np.abs(np.arange(size)[np.newaxis] - centers[:, np.newaxis]) / max(scale, 1)
        weights = np.maximum(1 - distance, 0)
        return weights / weights.sum(1, keepdims=True)

    height, width, _ = image.shape
    return np.einsum("yh,xw,hwc->yxc", matrix(height), matrix(width), image.astype(np.float64))


@pytest.mark.parametrize("resolution", [5, 16, 23, 40])
def test_batch_crop_equals_a_resized_and_mirrored_crop(resolution):
    pixels = images(4, 20, 26)
    tops, lefts, heights, widths = [0, 3, 7, 0], [0, 5, 1, 25], [20, 9, 13, 20], [26, 21, 3, 1]
    flips = [False, True, True, False]
    box = Box(*(tf.constant(side) for side in (tops, lefts, heights, widths)))
    actual = transforms.crop_and_resize_batch(
        tf.constant(pixels), box, tf.constant(flips), tf.constant(resolution)
    )
    for i, (y, x, h, w, flip) in enumerate(zip(tops, lefts, heights, widths, flips, strict=True)):
        expected = reference_resize(pixels[i, y : y + h, x : x + w], resolution)
        expected = expected[:, ::-1] if flip else expected
        np.testing.assert_allclose(actual[i], expected, atol=2e-3)


@pytest.mark.parametrize("resolution", [7, 24, 50])
def test_resize_is_antialiased_bilinear(resolution):
    image = images(1, 24, 31)[0]
    actual = transforms.resize(tf.constant(image), resolution, resolution)
    np.testing.assert_allclose(actual, reference_resize(image, resolution), atol=2e-3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 80), (1, 9), (500, 375)])
def test_crop_boxes_lie_inside_and_have_the_asked_area_and_aspect(height, width):
    box = transforms.random_crop_box(draws(count=500), height, width, 0.25)
    top, left, crop_height, crop_width = (side.numpy() for side in box)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (crop_height >= 1).all()
    assert (crop_width >= 1).all()
    assert (top + crop_height <= height).all()
    assert (left + crop_width <= width).all()
    if height > 8:
        aspect = crop_width / crop_height
        tolerance = 1 + 2 / crop_height.min()
        assert aspect.max() <= 4 / 3 * tolerance
        assert aspect.min() >= 3 / 4 / tolerance
    if height == width:
        area = crop_height * crop_width / (height * width)
        assert 0.2 < area.min() < 0.3
        assert area.max() > 0.9
        assert len(np.unique(top)) > 5


def test_one_image_gets_the_same_box_alone_as_in_its_batch():
    numbers = draws()
    batch = transforms.random_crop_box(numbers, 40, 30, 0.1)
    for i in (0, 17, 63):
        alone = transforms.random_crop_box(transforms.Draws(*(n[i] for n in numbers)), 40, 30, 0.1)
        assert [int(side) for side in alone] == [int(side[i]) for side in batch]


def test_crop_scale_of_one_keeps_the_whole_square_image():
    box = transforms.random_crop_box(draws(), 32, 32, 1.0)
    whole = [0, 0, 32, 32]
    assert all([int(side[i]) for side in box] == whole for i in range(BATCH))


def test_jitter_against_numpy():
    numbers, pixels = draws(), images(BATCH, 6, 6).astype(np.float32)
    actual = transforms.jitter_colors(
        tf.constant(pixels), numbers, Augmentation(brightness=0.4, saturation=0.5)
    )
    for i in range(BATCH):
        brightness = 1 + 0.4 * (2 * float(numbers.brightness[i]) - 1)
        saturation = 1 + 0.5 * (2 * float(numbers.saturation[i]) - 1)
        expected = np.clip(pixels[i] * brightness, 0, 255)
        gray = expected @ np.array([[0.299], [0.587], [0.114]])
        expected = np.clip(gray + saturation * (expected - gray), 0, 255)
        np.testing.assert_allclose(actual[i], expected, atol=1e-2)


def test_no_jitter_leaves_the_pixels():
    pixels = tf.constant(images(BATCH, 6, 6), tf.float32)
    still = transforms.jitter_colors(pixels, draws(), Augmentation(brightness=0, saturation=0))
    np.testing.assert_array_equal(still, pixels)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 60), (61, 43)])
@pytest.mark.parametrize("eval_crop", [1.0, 0.875])
def test_evaluation_takes_the_middle_of_the_resized_image(height, width, eval_crop):
    image, resolution = images(1, height, width)[0], 28
    actual = transforms.resize_and_center_crop(tf.constant(image), resolution, eval_crop)
    shorter = 28 if eval_crop == 1 else 32
    scale = shorter / min(height, width)
    new_height, new_width = round(height * scale), round(width * scale)
    resized = transforms.resize(tf.constant(image), new_height, new_width).numpy()
    top, left = (new_height - resolution) // 2, (new_width - resolution) // 2
    expected = resized[top : top + resolution, left : left + resolution]
    np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_evaluation_at_the_native_size_is_the_image():
    batch = images(3, 32, 32)
    np.testing.assert_allclose(
        transforms.resize_and_center_crop(tf.constant(batch), 32, 1.0), batch, atol=1e-4
    )


def test_normalize():
    pixels = images(2, 4, 4).astype(np.float32)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(transforms.normalize(tf.constant(pixels)), expected, atol=1e-4)
    np.testing.assert_allclose(np.array(MEAN) / 255, [0.485, 0.456, 0.406])
    np.testing.assert_allclose(np.array(STD) / 255, [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("field", "value"),
    [("crop_scale_min", 0), ("crop_scale_min", 1.5), ("brightness", -0.1), ("saturation", 2)],
)
def test_augmentation_out_of_range(field, value):
    with pytest.raises(UsageError, match=field):
        Augmentation(**{field: value})
