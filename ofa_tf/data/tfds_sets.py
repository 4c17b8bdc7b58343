"""TFDS image-classification sets, by name, as image sources."""

import contextlib
import difflib
import io
import json
import logging
import os
import shutil
import socket
import struct
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ofa_tf.data.census import Census
from ofa_tf.data.decoding import decode_rgb
from ofa_tf.data.embedded import EMBEDDED_DATASET
from ofa_tf.data.sources import DecodedImages, EncodedRecords, ImageSource, LoadedImages, Shard
from ofa_tf.data.splits import check_num_validation, default_count, stable_permutation
from ofa_tf.errors import FailureError, UsageError, first_line
from ofa_tf.files import remove_leftovers, temporary_path

_log = logging.getLogger(__name__)

# Sets in which a mirrored image is another class, or none.
_NOT_MIRRORED = frozenset(
    {
        "binary_alpha_digits",
        "cmaterdb",
        "emnist",
        "kmnist",
        "mnist",
        "mnist_corrupted",
        "omniglot",
        "svhn_cropped",
    }
)
_TEST_SPLITS = ("test", "validation")


def load(
    dataset: str,
    train_split: str | None,
    test_split: str | None,
    tfds_dir: str | None,
    cache_dir: str | None,
    cache_bytes: int,
    num_validation: int | None,
    seed: int,
) -> LoadedImages:
    """Opens a TFDS set, preparing it first if need be; the arguments are `load_dataset`'s."""
    if dataset.split("/")[0].split(":")[0] == EMBEDDED_DATASET:
        tfds_dir = tfds_dir or cache_dir
    builder = _find_builder(dataset, tfds_dir)
    image_key, label_key = _supervised_keys(dataset, builder)
    builder = _prepare(dataset, builder, tfds_dir)
    with _damage_told(dataset, builder):
        train_split = _check_split(dataset, builder, train_split or "train")
        test_split = _choose_test_split(dataset, builder, test_split, label_key)
        train, test = (
            _open_split(builder, split, image_key, label_key, cache_bytes)
            for split in (train_split, test_split)
        )
        class_names = builder.info.features[label_key].names
    # A set has no names of files, but it has versions: its images do not change.
    check_num_validation(num_validation, dataset, len(train))
    count = default_count(len(train)) if num_validation is None else num_validation
    places = np.sort(stable_permutation(len(train), seed)[:count])
    identity = f"{builder.info.full_name} {train_split} {seed}"
    census = Census.of_sets(
        {
            "train": (len(train) - len(places), f"{identity} without {len(places)}"),
            "validation": (len(places), identity),
            "test": (len(test), f"{builder.info.full_name} {test_split}"),
        }
    )
    allows_flip = builder.name not in _NOT_MIRRORED
    return LoadedImages(dataset, allows_flip, class_names, train, test, places, census)


@contextlib.contextmanager
def _damage_told(dataset: str, builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Around reading a prepared set. Raises FailureError where its files are damaged."""
    try:
        yield
    except (tf.errors.OpError, OSError, EOFError, struct.error, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise _damaged(dataset, builder.data_dir, error) from error


def _damaged(dataset: str, folder: os.PathLike | str, error: Exception) -> FailureError:
    return FailureError(
        f"The TFDS set {dataset!r} under {folder} is damaged: {first_line(error).rstrip('.')}. "
        "Remove this folder to have the set prepared anew."
    )


def _prepared_folder(dataset: str, tfds_dir: str | None) -> Path:
    """Of all versions of a set, where the one that is asked for cannot be told."""
    name = dataset.split("/")[0].split(":")[0]
    return Path(tfds_dir or tfds.core.constants.DATA_DIR, name)


def _find_builder(dataset: str, tfds_dir: str | None) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(dataset, data_dir=tfds_dir)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(dataset.split("/")[0], known, n=5)
        hint = f" Close matches in TFDS: {', '.join(close)}." if close else ""
        raise UsageError(
            f"Unknown data set {dataset!r}. The embedded set is {EMBEDDED_DATASET}; any TFDS "
            f"image-classification set can be named too.{hint}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(dataset, _prepared_folder(dataset, tfds_dir), error) from error
    except (ValueError, AssertionError, ImportError) as error:  # a config, version or namespace
        raise UsageError(f"TFDS cannot open {dataset!r}: {first_line(error).rstrip('.')}") from None
    except Exception as error:  # what a file of a prepared set makes of TFDS and its libraries
        folder = _prepared_folder(dataset, tfds_dir)
        if not folder.exists():
            raise
        raise _damaged(dataset, folder, error) from error


def _supervised_keys(dataset: str, builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    keys, features = builder.info.supervised_keys, dict(builder.info.features.items())
    if (
        not keys
        or len(keys) != 2
        or not isinstance(features.get(keys[0]), tfds.features.Image)
        or not isinstance(features.get(keys[1]), tfds.features.ClassLabel)
    ):
        raise UsageError(
            f"The TFDS set {dataset!r} is not for image classification: it must have an image and "
            f"a class label as its supervised keys, and has {keys}."
        )
    return keys


def _prepare(
    dataset: str, builder: tfds.core.DatasetBuilder, tfds_dir: str | None
) -> tfds.core.DatasetBuilder:
    """The builder of the prepared set."""
    if builder.info.splits:
        return builder
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        _check_network(builder)
        _log.info("Preparing %s under %s.", dataset, builder.data_dir)
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS tells the same, at length
            _download_and_prepare(dataset, builder)
    except Exception as error:  # whatever the set's own code or the network throws
        raise FailureError(
            f"The TFDS set {dataset!r} is not prepared under {builder.data_dir} and preparing it "
            f"failed: {first_line(error).rstrip('.')}. Run `tfds build {dataset}` where the "
            "network is reachable and give its folder as tfds_dir, or use the embedded set "
            f"{EMBEDDED_DATASET}."
        ) from None
    prepared = _find_builder(dataset, tfds_dir)
    if not prepared.info.splits:
        raise _damaged(dataset, prepared.data_dir, FileNotFoundError("files are missing"))
    return prepared


def _download_and_prepare(dataset: str, builder: tfds.core.DatasetBuilder) -> None:
    """Prepares a set in a temporary folder, which the next run removes if this one is killed."""
    final = Path(builder.data_dir)
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(final.parent)
    scratch = temporary_path(final)
    try:
        there = tfds.builder(dataset, data_dir=scratch)
        there.download_and_prepare(download_dir=Path(builder.data_dir_root, "downloads"))
        if not final.exists():  # else another run was faster
            os.rename(there.data_dir, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_network(builder: tfds.core.DatasetBuilder) -> None:
    """Raises OSError if a download cannot work; TFDS itself would try again for minutes."""
    downloads = Path(builder.data_dir_root, "downloads", builder.name)
    has_files = any(path.is_file() for path in downloads.rglob("*"))
    # A proxy resolves names itself.
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS or has_files or urllib.request.getproxies():
        return
    for host in {urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ()} - {None}:
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            raise OSError(f"the host {host} cannot be reached") from None


def _check_split(dataset: str, builder: tfds.core.DatasetBuilder, split: str) -> str:
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError):
        count = 0
    if not count:
        known = ", ".join(builder.info.splits)
        raise UsageError(f"The TFDS set {dataset!r} has no split {split!r}; it has {known}.")
    return split


def _choose_test_split(
    dataset: str, builder: tfds.core.DatasetBuilder, split: str | None, label_key: str
) -> str:
    if split:
        return _check_split(dataset, builder, split)
    for candidate in _TEST_SPLITS:
        if candidate in builder.info.splits and _is_labeled(builder, candidate, label_key):
            return candidate
    raise UsageError(
        f"The TFDS set {dataset!r} has no test or validation split with labels; name one as "
        f"test_split. It has {', '.join(builder.info.splits)}; a part is written 'train[90%:]'."
    )


def _is_labeled(builder: tfds.core.DatasetBuilder, split: str, label_key: str) -> bool:
    """False for ImageNet's test split, for one, whose labels are all -1."""
    example = next(iter(_encoded_examples(builder, split).take(1)))
    return int(example[label_key]) >= 0


def _open_split(
    builder: tfds.core.DatasetBuilder, split: str, image_key: str, label_key: str, cache_bytes: int
) -> ImageSource:
    info = builder.info.splits[split]
    height, width, _ = builder.info.features[image_key].shape
    if height and width and info.num_examples * height * width * 3 <= cache_bytes:
        return _decode_split(builder, split, image_key, label_key)
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        raise UsageError(
            f"The TFDS set {builder.name} is prepared as {builder.info.file_format.value} files, "
            "and too large for memory; prepare it as tfrecord."
        )
    features = tfds.features.FeaturesDict(
        {key: builder.info.features[key] for key in (image_key, label_key)}
    )

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = features.deserialize_example(record, decoders=_skip_images(features))
        return example[image_key], tf.cast(example[label_key], tf.int32)

    shards = [Shard(part.filename, part.skip, part.take) for part in info.file_instructions]
    return EncodedRecords(shards, parse)


def _decode_split(
    builder: tfds.core.DatasetBuilder, split: str, image_key: str, label_key: str
) -> DecodedImages:
    examples = _encoded_examples(builder, split).map(
        lambda example: (decode_rgb(example[image_key]), example[label_key]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    batches = list(examples.batch(1024).as_numpy_iterator())
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return DecodedImages(images, labels)


def _encoded_examples(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=_skip_images(builder.info.features),
        read_config=tfds.ReadConfig(try_autocache=False),
    )


def _skip_images(features: tfds.features.FeaturesDict) -> dict[str, tfds.decode.Decoder]:
    return {
        key: tfds.decode.SkipDecoding()
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
