"""The embedded set: the same bytes everywhere, balanced classes, no two images alike."""

import hashlib

import numpy as np
import pytest

from ofa_tf.data import doodles as drawing
from ofa_tf.data.embedded import OfaDoodles

NUM_TRAIN, NUM_TEST = 300, 100  # of the fixture
CHECKSUM = "ae3bdefdec2ae5ad"


def test_pixels_never_change():
    images = drawing.draw(np.arange(20) % 10, seed=(0, 0))
    assert images.shape == (20, 32, 32, 3)
    assert images.dtype == np.uint8
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == CHECKSUM


def test_seed_and_label_matter():
    labels = np.arange(10)
    images = drawing.draw(labels, seed=(0, 0))
    np.testing.assert_array_equal(images, drawing.draw(labels, seed=(0, 0)))
    assert (images != drawing.draw(labels, seed=(1, 0))).any(axis=(1, 2, 3)).all()
    other_class = drawing.draw((labels + 1) % 10, seed=(0, 0))
    assert (images != other_class).any(axis=(1, 2, 3)).all()


def test_all_images_differ_and_none_is_flat():
    images = drawing.draw(np.zeros(250, int), seed=(5,))
    assert len({image.tobytes() for image in images}) == 250
    assert images.std(axis=(1, 2, 3)).min() > 5


@pytest.mark.parametrize("label", range(10))
def test_a_texture_covers_its_shape(label):
    """Two drawings that differ only in the texture differ only inside the shape."""
    partner = label ^ 1
    same_scene = [drawing.draw(np.full(50, k), seed=(3,)) for k in (label, partner)]
    changed = (same_scene[0] != same_scene[1]).any(axis=-1).mean(axis=(1, 2))
    assert changed.min() > 0.01
    assert changed.max() < 0.6


def test_prepared_set(doodles):
    assert doodles.name == "ofa_doodles"
    assert doodles.class_names == drawing.CLASS_NAMES
    assert doodles.num_classes == 10
    assert doodles.flip
    assert doodles.num_train + doodles.num_validation == NUM_TRAIN
    assert doodles.num_test == NUM_TEST
    ((_, labels),) = doodles.eval_batches("test", 32, NUM_TEST)
    np.testing.assert_array_equal(np.bincount(labels), np.full(10, NUM_TEST // 10))


def test_prepared_pixels_are_the_drawn_ones(doodles):
    ((images, labels),) = doodles.eval_batches("test", 32, NUM_TEST, normalize=False)
    drawn = drawing.draw(np.arange(NUM_TEST) % 10, seed=(1, 0))
    expected = {image.tobytes(): i % 10 for i, image in enumerate(drawn)}
    actual = {
        np.rint(image).astype(np.uint8).tobytes(): int(label)
        for image, label in zip(images.numpy(), labels.numpy(), strict=True)
    }
    assert actual == expected


def test_declared_sizes_are_balanced():
    assert all(size % len(drawing.CLASS_NAMES) == 0 for size in OfaDoodles.SPLIT_SIZES.values())
