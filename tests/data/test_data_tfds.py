"""TFDS sets by name, with small builders registered here."""

import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_helpers import random_image

from ofa_tf.data import load_dataset, tfds_sets
from ofa_tf.errors import FailureError, UsageError


class _SmallBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.2.3")
    SPLITS = {"train": 30, "test": 8}  # noqa: RUF012
    SHAPE = (24, 24, 3)
    code_path = None  # as in the embedded set: no checksums to look for

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "picture": tfds.features.Image(shape=self.SHAPE, encoding_format="png"),
                    "kind": tfds.features.ClassLabel(names=["x", "y", "z"]),
                    "comment": tfds.features.Text(),
                }
            ),
            supervised_keys=("picture", "kind"),
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name, n) for name, n in self.SPLITS.items()}

    def label(self, split, i):
        return i % 3

    def _generate_examples(self, split, count):
        for i in range(count):
            image = random_image(i, 24, 24 if self.SHAPE[0] else 20 + i)
            example = {"picture": image[..., : self.SHAPE[2]], "kind": self.label(split, i)}
            yield i, example | {"comment": "none"}


class OfaTestUniform(_SmallBuilder):
    """Images of one size."""


class OfaTestRagged(_SmallBuilder):
    """Images of many sizes."""

    SHAPE = (None, None, 3)


class OfaTestGray(_SmallBuilder):
    """Images of one channel."""

    SHAPE = (24, 24, 1)


class OfaTestUnlabeled(_SmallBuilder):
    """A test split without labels, as ImageNet's."""

    SPLITS = {"train": 30, "test": 8, "validation": 7}  # noqa: RUF012

    def label(self, split, i):
        return -1 if split == "test" else i % 3


class OfaTestTrainOnly(_SmallBuilder):
    SPLITS = {"train": 30}  # noqa: RUF012


class OfaTestOffline(_SmallBuilder):
    def _split_generators(self, dl_manager):
        raise ConnectionError("no route to host\nand a long story")


class OfaTestRemote(_SmallBuilder):
    url_infos = {"https://images.invalid/all.zip": None}  # noqa: RUF012


class OfaTestUnsupervised(_SmallBuilder):
    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        )


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds_sets"))


def all_images(data, split, size=24):
    batches = list(data.eval_batches(split, size, 16, normalize=False))
    return np.concatenate([images for images, _ in batches]), np.concatenate(
        [labels for _, labels in batches]
    )


@pytest.mark.parametrize("name", ["ofa_test_uniform", "ofa_test_uniform:1.2.3"])
def test_by_name(tfds_dir, name):
    data = load_dataset(name, tfds_dir=tfds_dir, num_validation=4)
    assert data.name == name
    assert data.class_names == ("x", "y", "z")
    assert (data.num_train, data.num_validation, data.num_test) == (26, 4, 8)
    images, labels = all_images(data, "test")
    numbers = {random_image(i).tobytes(): i % 3 for i in range(8)}
    found = {
        np.rint(image).astype(np.uint8).tobytes(): int(label)
        for image, label in zip(images, labels, strict=True)
    }
    assert found == numbers


def test_records_are_found_by_their_place(tfds_dir):
    """Decoded in memory or read record by record: the same images."""
    in_memory, on_disk = (
        load_dataset("ofa_test_uniform", tfds_dir=tfds_dir, cache_bytes=cache_bytes)
        for cache_bytes in (10**9, 0)
    )
    for split in ("train", "validation", "test"):
        for first, second in zip(
            all_images(in_memory, split), all_images(on_disk, split), strict=True
        ):
            np.testing.assert_array_equal(first, second)


def test_images_of_many_sizes(tfds_dir):
    data = load_dataset("ofa_test_ragged", tfds_dir=tfds_dir)
    images, labels = all_images(data, "train")
    assert images.shape == (27, 24, 24, 3)
    assert set(labels) == {0, 1, 2}
    ((images, _),) = data.train_batches(8, [16], seed=0).take(1)
    assert images.shape == (8, 16, 16, 3)


def test_gray_images_become_rgb(tfds_dir):
    images, _ = all_images(load_dataset("ofa_test_gray", tfds_dir=tfds_dir), "test")
    assert images.shape == (8, 24, 24, 3)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])


def test_split_options(tfds_dir):
    for cache_bytes in (10**9, 0):
        data = load_dataset(
            "ofa_test_uniform",
            tfds_dir=tfds_dir,
            train_split="train[:20]",
            test_split="train[20:]",
            num_validation=0,
            cache_bytes=cache_bytes,
        )
        train, test = (
            {image.tobytes() for image in all_images(data, s)[0]} for s in ("train", "test")
        )
        assert (len(train), len(test)) == (20, 10)
        assert not train & test


def test_a_test_split_without_labels_is_passed_over(tfds_dir):
    assert load_dataset("ofa_test_unlabeled", tfds_dir=tfds_dir).num_test == 7


def test_no_test_split(tfds_dir):
    with pytest.raises(UsageError, match=r"no test or validation split.*train"):
        load_dataset("ofa_test_train_only", tfds_dir=tfds_dir)


def test_unknown_split(tfds_dir):
    with pytest.raises(UsageError, match=r"no split 'dev'; it has"):
        load_dataset("ofa_test_uniform", tfds_dir=tfds_dir, test_split="dev")


def test_unknown_name_lists_the_known(tfds_dir):
    with pytest.raises(UsageError, match=r"'cifar1'.*ofa_doodles.*cifar10"):
        load_dataset("cifar1", tfds_dir=tfds_dir)


@pytest.mark.parametrize("name", ["ofa_test_uniform:9.9.9", "ofa_test_uniform/large", "a b", ""])
def test_name_that_tfds_cannot_open(tfds_dir, name):
    with pytest.raises(UsageError, match="TFDS cannot open"):
        load_dataset(name, tfds_dir=tfds_dir)


def test_not_for_classification(tfds_dir):
    with pytest.raises(UsageError, match="not for image classification"):
        load_dataset("ofa_test_unsupervised", tfds_dir=tfds_dir)


def test_not_prepared_and_offline(tfds_dir):
    with pytest.raises(FailureError) as caught:
        load_dataset("ofa_test_offline", tfds_dir=tfds_dir)
    message = str(caught.value)
    assert "'ofa_test_offline' is not prepared" in message
    assert "no route to host" in message
    assert "tfds build ofa_test_offline" in message
    assert "\n" not in message


def test_unreachable_host_is_found_out_at_once(tfds_dir, monkeypatch):
    def unreachable(host, port):
        raise socket.gaierror(f"Name or service not known: {host}")

    monkeypatch.setattr(tfds_sets.socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(tfds_sets.urllib.request, "getproxies", dict)
    with pytest.raises(FailureError, match=r"images\.invalid cannot be reached"):
        load_dataset("ofa_test_remote", tfds_dir=tfds_dir)


def test_digits_are_not_mirrored(tfds_dir, monkeypatch):
    monkeypatch.setattr(tfds_sets, "_NOT_MIRRORED", {"ofa_test_uniform"})
    assert not load_dataset("ofa_test_uniform", tfds_dir=tfds_dir).flip
    assert load_dataset("ofa_test_uniform", tfds_dir=tfds_dir, flip=True).flip
    assert load_dataset("ofa_test_gray", tfds_dir=tfds_dir).flip


def test_either_a_name_or_a_folder(tfds_dir):
    for options in ({}, {"dataset": "ofa_doodles", "data_dir": tfds_dir}):
        with pytest.raises(UsageError, match="either dataset"):
            load_dataset(**options)
    with pytest.raises(UsageError, match="TFDS splits"):
        load_dataset(data_dir=tfds_dir, test_split="test")


# -- damaged files and killed runs -------------------------------------------------------------


@pytest.fixture
def prepared(tfds_dir, tmp_path):
    """A copy of a prepared set, to be spoiled: its root and its own folder."""
    load_dataset("ofa_test_uniform", tfds_dir=tfds_dir)
    shutil.copytree(f"{tfds_dir}/ofa_test_uniform", tmp_path / "ofa_test_uniform")
    return tmp_path, tmp_path / "ofa_test_uniform" / "1.2.3"


def damage_record(folder):
    (path,) = folder.glob("*train.tfrecord*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut_off_records(folder):
    (path,) = folder.glob("*test.tfrecord*")
    path.write_bytes(path.read_bytes()[:50])


def empty_records(folder):
    (path,) = folder.glob("*test.tfrecord*")
    path.write_bytes(b"")


def remove_records(folder):
    for path in folder.glob("*.tfrecord*"):
        path.unlink()


def rubbish_lengths(folder):
    (path,) = folder.glob("*test.tfrecord*")
    path.write_bytes(b"\xff" * path.stat().st_size)


def rubbish_info(folder):
    (folder / "dataset_info.json").write_text('{"name": [')


def no_info(folder):
    (folder / "dataset_info.json").write_text("null")


def remove_info(folder):
    (folder / "dataset_info.json").unlink()


@pytest.mark.parametrize(
    ("damage", "cache_bytes"),
    [
        (damage_record, 10**9),  # else told when the image is read
        (cut_off_records, 0),
        (cut_off_records, 10**9),
        (empty_records, 0),
        (remove_records, 10**9),
        (rubbish_lengths, 0),
        (rubbish_info, 0),
        (no_info, 0),
        (remove_info, 0),
    ],
)
def test_damaged_files_of_a_set_are_one_message(prepared, damage, cache_bytes):
    root, folder = prepared
    damage(folder)
    with pytest.raises(FailureError) as caught:
        load_dataset("ofa_test_uniform", tfds_dir=str(root), cache_bytes=cache_bytes)
    message = str(caught.value)
    assert message.startswith(f"The TFDS set 'ofa_test_uniform' under {folder.parent}")
    assert " is damaged: " in message
    assert "Remove this folder to have the set prepared anew." in message
    assert "\n" not in message
    assert "{{" not in message  # TensorFlow's own matters
    assert "[Op:" not in message


@pytest.mark.parametrize("content", [b"", b"null", b"[", b"\xff"])
def test_damaged_features_of_a_set_whose_code_is_not_there(prepared, content):
    root, folder = prepared
    for path in folder.glob("*.tfrecord*"):
        path.rename(folder / path.name.replace("ofa_test_uniform", "another_set"))
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("ofa_test_uniform", "another_set"))
    folder.parent.rename(root / "another_set")
    assert load_dataset("another_set", tfds_dir=str(root)).num_classes
    (root / "another_set" / "1.2.3" / "features.json").write_bytes(content)
    with pytest.raises(FailureError, match=r"'another_set' under .*another_set is damaged: "):
        load_dataset("another_set", tfds_dir=str(root))


def test_a_fault_of_a_set_that_is_not_prepared_is_no_damage(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr(tfds_sets.tfds, "builder", fail)
    with pytest.raises(KeyError, match="a bug"):
        load_dataset("ofa_test_uniform", tfds_dir=str(tmp_path))


PREPARE_AND_DIE = """
import os, sys
sys.path[:0] = [{tests!r}]
import test_data_tfds as sets
from ofa_tf.data import load_dataset

def die(self, split, count):
    yield 0, dict(picture=sets.random_image(0), kind=0, comment="none")
    os.kill(os.getpid(), 9)

sets.OfaTestUniform._generate_examples = die
load_dataset("ofa_test_uniform", tfds_dir=sys.argv[1])
"""


def test_what_a_killed_preparation_left_is_removed(tmp_path):
    code = PREPARE_AND_DIE.format(tests=os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    left = list((tmp_path / "ofa_test_uniform").iterdir())
    assert len(left) == 1, left
    assert load_dataset("ofa_test_uniform", tfds_dir=str(tmp_path)).num_test == 8
    assert [path.name for path in (tmp_path / "ofa_test_uniform").iterdir()] == ["1.2.3"]
    assert {path.name for path in tmp_path.iterdir()} == {"ofa_test_uniform", "downloads"}
