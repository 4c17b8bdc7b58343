"""Splits, orders, resumption and resolutions of ImageData, on decoded and on encoded images."""

import numpy as np
import pytest
import tensorflow as tf
from data_helpers import write_classes

from ofa_tf.data import MEAN, STD, Augmentation, ImageData, load_dataset, resolution_at_step
from ofa_tf.data.sources import DecodedImages
from ofa_tf.data.splits import stable_permutation
from ofa_tf.errors import UsageError

NUM_TRAIN, NUM_TEST = 50, 20
STILL = Augmentation(crop_scale_min=1.0, flip=False, brightness=0, saturation=0)


def numbered_source(count, first=0):
    """Flat images whose pixels are their number, all with the number as label."""
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return DecodedImages(np.tile(numbers[:, None, None, None], (1, 8, 8, 3)), numbers)


def numbered_data(num_validation=5):
    places = stable_permutation(NUM_TRAIN, seed=0)[:num_validation]
    test = numbered_source(NUM_TEST, first=100)
    return ImageData("numbers", map(str, range(120)), numbered_source(NUM_TRAIN), test, places)


@pytest.fixture(params=["decoded", "encoded"])
def folder_data(request, image_folder):
    cache_bytes = 10**9 if request.param == "decoded" else 0
    return load_dataset(data_dir=str(image_folder), cache_bytes=cache_bytes)


def labels_of(dataset):
    return np.concatenate([labels.numpy() for _, labels in dataset])


def take(data, count, **options):
    options = {"batch_size": 8, "resolutions": [12, 16, 20], "seed": 3} | options
    return list(data.train_batches(**options).take(count))


def test_splits_are_disjoint_and_whole():
    data = numbered_data(num_validation=7)
    train, validation, test = (
        labels_of(data.eval_batches(split, 8, 6)) for split in ("train", "validation", "test")
    )
    assert (data.num_train, data.num_validation, data.num_test) == (43, 7, 20)
    assert (len(train), len(validation)) == (43, 7)
    assert sorted([*train, *validation]) == list(range(NUM_TRAIN))
    assert sorted(test) == list(range(100, 120))


def test_validation_images_are_never_trained_on():
    data = numbered_data(num_validation=10)
    validation = set(labels_of(data.eval_batches("validation", 8, 10)))
    seen = set(labels_of(data.train_batches(8, [8], seed=0).take(15)))
    assert len(seen) == 40
    assert not seen & validation


@pytest.mark.parametrize("splits", [1, 2])
def test_validation_depends_on_the_seed_only(image_folder, splits):
    first, again, other = (
        load_dataset(data_dir=str(image_folder), seed=seed, splits=splits, num_validation=9)
        for seed in (1, 1, 2)
    )
    assert first.num_validation == 9
    assert first.census == again.census
    assert first.census.splits["validation"] != other.census.splits["validation"]
    assert first.census.splits["test"] == other.census.splits["test"]


def test_permutation_is_fixed_for_good():
    assert stable_permutation(8, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


@pytest.mark.parametrize("num_validation", [-1, 80, 81])
@pytest.mark.parametrize("splits", [1, 2])
def test_impossible_validation_split(image_folder, num_validation, splits):
    with pytest.raises(UsageError, match=r"num_validation.*80 training.*from 0 to 79"):
        load_dataset(data_dir=str(image_folder), num_validation=num_validation, splits=splits)


def test_an_epoch_is_a_permutation_without_its_last_partial_batch():
    data = numbered_data(num_validation=3)  # 47 images: 5 batches of 9, 2 left over
    assert data.steps_per_epoch(9) == 5
    epochs = labels_of(data.train_batches(9, [8], seed=0).take(10)).reshape(2, 45)
    assert all(len(set(epoch)) == 45 for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()
    left_over = [set(range(NUM_TRAIN)) - set(epoch) for epoch in epochs]
    assert left_over[0] != left_over[1]


def test_pixels_and_labels_stay_together():
    data = numbered_data()
    for images, labels in take(data, 7, resolutions=[8], augmentation=STILL):
        pixels = images.numpy() * STD + MEAN
        expected = np.broadcast_to(labels.numpy()[:, None, None, None], pixels.shape)
        np.testing.assert_allclose(pixels, expected, atol=1e-3)


def test_a_resumed_run_sees_the_same_batches(folder_data):
    assert folder_data.steps_per_epoch(8) == 9
    whole = take(folder_data, 25)
    for first_step in (8, 20):
        resumed = take(folder_data, 3, first_step=first_step)
        expected = whole[first_step : first_step + 3]
        for (images, labels), (images2, labels2) in zip(expected, resumed, strict=True):
            np.testing.assert_array_equal(images, images2)
            np.testing.assert_array_equal(labels, labels2)


def test_a_resumed_run_goes_on_at_an_epochs_start():
    data = numbered_data()
    whole = labels_of(data.train_batches(9, [8], seed=0).take(12)).reshape(12, 9)
    for first_step in range(12):
        resumed = labels_of(data.train_batches(9, [8], seed=0, first_step=first_step).take(1))
        np.testing.assert_array_equal(resumed, whole[first_step])


def test_seeds_and_steps_differ(folder_data):
    first = take(folder_data, 9, resolutions=[16])
    other = take(folder_data, 9, resolutions=[16], seed=4)
    batches = [images.numpy().tobytes() for images, _ in first + other]
    assert len(set(batches)) == 18


def test_skipped_images_are_not_read(image_folder):
    data = load_dataset(data_dir=str(image_folder), cache_bytes=0, num_validation=0)
    kept = labels_of(data.train_batches(8, [8], seed=0, first_step=9).take(1))
    # The tenth batch is the last of its epoch; without any file, it fails at its first image.
    for path in (image_folder / "train").glob("*/*.jpg"):
        path.rename(path.with_suffix(".gone"))
    assert len(kept) == 8
    with pytest.raises(tf.errors.NotFoundError):
        list(data.train_batches(8, [8], seed=0, first_step=9).take(1))


def test_types_shapes_and_range(folder_data):
    for images, labels in take(folder_data, 4):
        assert images.dtype == tf.float32
        assert labels.dtype == tf.int32
        assert images.shape[0] == labels.shape[0] == 8
        assert images.shape[1] == images.shape[2]
        pixels = images.numpy() * STD + MEAN
        assert pixels.min() > -0.1
        assert pixels.max() < 255.1


def test_resolutions_follow_from_seed_and_step():
    data, resolutions = numbered_data(), [8, 12, 16]
    batches = take(data, 40, resolutions=resolutions)
    sizes = [images.shape[1] for images, _ in batches]
    assert set(sizes) == set(resolutions)
    expected = [
        int(resolution_at_step(resolutions, 3, tf.constant(step, tf.int64))) for step in range(40)
    ]
    assert sizes == expected
    other = [images.shape[1] for images, _ in take(data, 40, resolutions=resolutions, seed=4)]
    assert sizes != other


def test_resolutions_may_change_in_the_course_of_training():
    data, changing = numbered_data(), [(0, [8]), (5, [12, 16, 20]), (30, [16])]
    sizes = [images.shape[1] for images, _ in take(data, 40, resolutions=changing)]
    assert sizes[:5] == [8] * 5
    # Drawn by step, as if they had always been these.
    always = [images.shape[1] for images, _ in take(data, 40, resolutions=[12, 16, 20])]
    assert sizes[5:30] == always[5:30]
    assert sizes[30:] == [16] * 10
    later = [images.shape[1] for images, _ in take(data, 8, resolutions=changing, first_step=27)]
    assert later == sizes[27:35]


def test_resolutions_of_older_jobs_are_what_they_were():
    steps = tf.range(12, dtype=tf.int64)
    found = [int(resolution_at_step([24, 28, 32], 3, step)) for step in steps]
    assert found == [24, 24, 28, 28, 24, 32, 24, 24, 28, 24, 28, 28]


def test_decoded_and_encoded_images_get_the_same_augmentation(tmp_path):
    for split in ("train", "test"):
        write_classes(tmp_path / split, {"a": 10, "b": 10}, extension="png")
    decoded, encoded = (
        load_dataset(data_dir=str(tmp_path), cache_bytes=cache_bytes) for cache_bytes in (10**9, 0)
    )
    pairs = zip(take(decoded, 6), take(encoded, 6), strict=True)
    for (images, labels), (images2, labels2) in pairs:
        np.testing.assert_array_equal(labels, labels2)
        np.testing.assert_allclose(images, images2, atol=1e-3)


def test_flips_only_where_both_allow_it():
    ramp = np.tile(np.arange(8, dtype=np.uint8)[None, None, :, None] * 30, (20, 8, 1, 3))
    source = DecodedImages(ramp, np.zeros(20))
    plain = Augmentation(crop_scale_min=1.0, brightness=0, saturation=0)

    def num_mirrored(flip, augmentation):
        none = np.arange(0)
        data = ImageData("ramps", ["a", "b"], source, source, none, flip=flip)
        ((images, _),) = take(data, 1, batch_size=20, resolutions=[8], augmentation=augmentation)
        return int((images[:, 0, 0, 0] > images[:, 0, -1, 0]).numpy().sum())

    assert 4 <= num_mirrored(True, plain) <= 16
    assert num_mirrored(False, plain) == 0
    assert num_mirrored(True, STILL) == 0


def test_batch_larger_than_the_training_set():
    data = numbered_data(num_validation=5)
    for batch_size in (0, 46):
        with pytest.raises(UsageError, match="batch size"):
            data.train_batches(batch_size, [8], seed=0)


def test_evaluation_is_whole_ordered_and_repeatable(folder_data):
    first, again = (list(folder_data.eval_batches("test", 16, 6)) for _ in range(2))
    assert [len(labels) for _, labels in first] == [6, 6, 6, 2]
    for (images, labels), (images2, labels2) in zip(first, again, strict=True):
        assert images.shape[1:] == (16, 16, 3)
        np.testing.assert_array_equal(images, images2)
        np.testing.assert_array_equal(labels, labels2)
    assert np.bincount(np.concatenate([labels for _, labels in first])).tolist() == [10, 10]


def test_a_limited_evaluation_is_a_mixed_sample(folder_data):
    limited = labels_of(folder_data.eval_batches("test", 16, 6, limit=10))
    assert len(limited) == 10
    assert len(set(limited)) == 2
    np.testing.assert_array_equal(limited, labels_of(folder_data.eval_batches("test", 16, 6))[:10])


def test_raw_pixels_are_the_normalized_ones(folder_data):
    raw, normalized = (
        next(iter(folder_data.eval_batches("validation", 24, 4, normalize=flag)))[0]
        for flag in (False, True)
    )
    assert raw.numpy().max() > 100
    np.testing.assert_allclose((raw - MEAN) / STD, normalized, atol=1e-4)


def test_eval_crop_reaches_the_pipeline(folder_data):
    whole, middle = (
        next(iter(folder_data.eval_batches("test", 21, 4, eval_crop=crop, normalize=False)))[0]
        for crop in (1.0, 0.875)
    )
    unscaled = next(iter(folder_data.eval_batches("test", 24, 4, normalize=False)))[0]
    np.testing.assert_allclose(middle, unscaled[:, 1:22, 1:22], atol=1e-3)
    assert np.abs(whole - middle).max() > 1


def test_calibration_is_whole_batches_of_training_images():
    data = numbered_data(num_validation=10)
    training = set(labels_of(data.eval_batches("train", 8, 10)))
    batches = list(data.calibration_batches(8, 7, 30, normalize=False))
    assert [len(labels) for _, labels in batches] == [7, 7, 7, 7]
    chosen = np.concatenate([labels for _, labels in batches])
    assert len(set(chosen)) == 28
    assert set(chosen) <= training
    pixels = np.concatenate([images for images, _ in batches])[:, 0, 0, 0]
    np.testing.assert_allclose(pixels, chosen, atol=1e-4)
    other = labels_of(data.calibration_batches(8, 7, 30, seed=1))
    assert set(other) != set(chosen)


@pytest.mark.parametrize(("batch_size", "num_images"), [(8, 7), (8, 46)])
def test_impossible_calibration(batch_size, num_images):
    with pytest.raises(UsageError, match="Calibration"):
        numbered_data().calibration_batches(8, batch_size, num_images)


def test_bad_evaluation_requests():
    data = numbered_data(num_validation=0)
    with pytest.raises(UsageError, match=r"'dev'.*validation"):
        data.eval_batches("dev", 8, 4)
    with pytest.raises(UsageError, match="no validation images"):
        data.eval_batches("validation", 8, 4)
    with pytest.raises(UsageError, match="eval_crop"):
        data.eval_batches("test", 8, 4, eval_crop=1.2)


def test_randaugment_leaves_order_and_resolutions(folder_data):
    plain = take(folder_data, 3)
    augmentation = Augmentation(randaugment_layers=2)
    augmented, again = (take(folder_data, 3, augmentation=augmentation) for _ in range(2))
    for (images, labels), (images2, labels2), (images3, _) in zip(
        plain, augmented, again, strict=True
    ):
        np.testing.assert_array_equal(labels, labels2)
        assert images.shape == images2.shape
        np.testing.assert_array_equal(images2, images3)
        changed = (np.abs(images - images2) > 0.1).mean(axis=(1, 2, 3)) > 0.02
        assert changed.sum() >= 4  # of 8; a few draw gentle operations only


def test_randaugment_is_the_same_on_decoded_and_encoded_images(tmp_path):
    for split in ("train", "test"):
        write_classes(tmp_path / split, {"a": 10, "b": 10}, extension="png")
    decoded, encoded = (
        load_dataset(data_dir=str(tmp_path), cache_bytes=cache_bytes) for cache_bytes in (10**9, 0)
    )
    # At the native size, no rounding differs between the two ways of resizing.
    whole = Augmentation(crop_scale_min=1.0, randaugment_layers=2)
    options = {"augmentation": whole, "resolutions": [24]}
    pairs = zip(take(decoded, 6, **options), take(encoded, 6, **options), strict=True)
    for (images, labels), (images2, labels2) in pairs:
        np.testing.assert_array_equal(labels, labels2)
        np.testing.assert_allclose(images, images2, atol=1e-3)
