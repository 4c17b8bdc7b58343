"""Training batches shared by replicas: together, they are the batches that one replica gets."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_tf.data import Augmentation, ImageData, load_dataset
from ofa_tf.data.sources import DecodedImages
from ofa_tf.errors import UsageError

RESOLUTIONS = [12, 16, 20]


def noisy_data():
    """50 images of noise, decoded, each with its number as label."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 14, 18, 3), dtype=np.uint8)
    source = DecodedImages(pixels, np.arange(50))
    return ImageData("noise", map(str, range(50)), source, source, np.arange(2))


@pytest.fixture(params=["decoded", "encoded"])
def folder_data(request, image_folder):
    cache_bytes = 10**9 if request.param == "decoded" else 0
    return load_dataset(data_dir=str(image_folder), cache_bytes=cache_bytes)


def take(data, batch_size, count, **options):
    return list(data.train_batches(batch_size, RESOLUTIONS, seed=3, **options).take(count))


def assert_parts_make_up(whole, parts, num_replicas):
    """The elements of all replicas, in order, against the batches of one replica."""
    assert len(parts) == len(whole) * num_replicas
    for step, expected in enumerate(whole):
        of_step = parts[step * num_replicas : (step + 1) * num_replicas]
        for together, tensor in zip(zip(*of_step, strict=True), expected, strict=True):
            np.testing.assert_array_equal(np.concatenate(together), tensor)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize(("num_replicas", "first_step"), [(2, 0), (4, 7), (8, 8)])
def test_parts_of_a_folders_batches(folder_data, num_replicas, first_step, layers):
    options = {"first_step": first_step, "augmentation": Augmentation(randaugment_layers=layers)}
    whole = take(folder_data, 8, 4, **options)
    parts = take(folder_data, 8, 4 * num_replicas, num_replicas=num_replicas, **options)
    assert_parts_make_up(whole, parts, num_replicas)
    assert len({images.shape[1] for images, _ in whole}) > 1


@settings(deadline=None, max_examples=6)
@given(
    num_replicas=st.integers(1, 6),
    per_replica=st.integers(1, 5),
    first_step=st.integers(0, 60),
    chosen=st.sets(st.integers(0, 5), min_size=1),
)
def test_some_replicas_get_their_parts(num_replicas, per_replica, first_step, chosen):
    replicas = sorted(chosen & set(range(num_replicas))) or [0]
    data, batch_size = noisy_data(), num_replicas * per_replica
    whole = take(data, batch_size, 3, first_step=first_step)
    parts = take(
        data,
        batch_size,
        3 * len(replicas),
        first_step=first_step,
        num_replicas=num_replicas,
        replicas=replicas,
    )
    rows = np.arange(batch_size).reshape(num_replicas, per_replica)[replicas].ravel()
    shares = [tuple(tensor.numpy()[rows] for tensor in batch) for batch in whole]
    assert_parts_make_up(shares, parts, len(replicas))


def test_images_of_other_replicas_are_not_read(image_folder):
    data = load_dataset(data_dir=str(image_folder), cache_bytes=0, num_validation=0)
    paths = sorted((image_folder / "train").glob("*/*.jpg"))
    # 80 images are ten batches of 8: one epoch. Only the files of replica 1 are left.
    order = np.concatenate([rows for _, rows in data._train_indices(8, 3, 0).take(10)])
    for index in order.reshape(10, 2, 4)[:, 0].ravel():
        paths[index].unlink()
    assert len(take(data, 8, 10, num_replicas=2, replicas=[1])) == 10
    with pytest.raises(tf.errors.NotFoundError):
        take(data, 8, 1, num_replicas=2, replicas=[0])


@pytest.mark.parametrize(
    ("batch_size", "options", "message"),
    [
        (8, {"num_replicas": 3}, "batch size is 8.*3 replicas.*multiple of 3"),
        (8, {"num_replicas": 0}, "0 replicas"),
        (8, {"num_replicas": 2, "replicas": [2]}, r"replicas is \[2\].*0 to 1"),
        (8, {"num_replicas": 2, "replicas": []}, "at least one"),
        (8, {"replicas": range(-1, 1)}, "0 to 0"),
    ],
)
def test_impossible_shares(batch_size, options, message):
    with pytest.raises(UsageError, match=message):
        take(noisy_data(), batch_size, 1, **options)


# Two logical devices must be asked for before TensorFlow starts, so in a process of its own.
_ON_TWO_DEVICES = """
import itertools, sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from ofa_tf.data import load_dataset

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for cache_bytes in (0, 10**9):
    data = load_dataset(data_dir=sys.argv[1], cache_bytes=cache_bytes)

    def batches(num_replicas):
        return data.train_batches(
            8, [12, 16], seed=0, first_step=7, num_replicas=num_replicas
        )

    distributed = strategy.distribute_datasets_from_function(
        lambda context: batches(context.num_replicas_in_sync)
    )
    for of_replicas, expected in zip(itertools.islice(distributed, 4), batches(1)):
        for value, whole in zip(of_replicas, expected):
            parts = strategy.experimental_local_results(value)
            assert len(parts) == 2
            np.testing.assert_array_equal(np.concatenate(parts), whole)
print("equal")
"""


def test_mirrored_replicas_share_a_batch(image_folder):
    finished = subprocess.run(
        [sys.executable, "-c", _ON_TWO_DEVICES, str(image_folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.strip() == "equal", finished.stderr
