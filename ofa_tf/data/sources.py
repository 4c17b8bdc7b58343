"""Where a split's images lie: decoded in memory, as files, or as records of a prepared TFDS set.

Every source answers for any image by its index, so that a training run starts at any step without
reading what came before.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mobile_bench.errors import one_line
from ofa_tf.data.census import Census
from ofa_tf.data.decoding import Picture
from ofa_tf.errors import FailureError, first_line


class DecodedImages:
    """Images of one size, decoded in memory.

    Args:
        images: uint8 [count, H, W, 3], or a function that makes them when they are first needed.
        labels: [count].
    """

    def __init__(self, images: np.ndarray | Callable[[], np.ndarray], labels: np.ndarray):
        self._images: tf.Tensor | None = None
        self._make = images if callable(images) else lambda: images
        with tf.device("CPU"):
            self._labels = tf.convert_to_tensor(labels, tf.int32)

    def __len__(self) -> int:
        return self._labels.shape[0]

    def open(self) -> None:
        """Makes the images where that was put off; to be called before `fetch`.

        Raises:
            FailureError: one cannot be read any more.
        """
        if self._images is None:
            with tf.device("CPU"):
                self._images = tf.convert_to_tensor(self._make())
            del self._make  # and what it holds

    def fetch(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """uint8 images and int32 labels; `indices` is a batch."""
        return tf.gather(self._images, indices), tf.gather(self._labels, indices)


class EncodedFiles:
    """One encoded image per file.

    Args:
        paths: the files.
        labels: [count].
        orientations: of EXIF, [count]; all 1 by default.
    """

    def __init__(
        self, paths: Sequence[str], labels: np.ndarray, orientations: np.ndarray | None = None
    ):
        with tf.device("CPU"):
            self._paths = tf.convert_to_tensor(list(map(os.fsencode, paths)), tf.string)
            self._labels = tf.convert_to_tensor(labels, tf.int32)
            self._orientations = None
            if orientations is not None and np.any(np.asarray(orientations) != 1):
                self._orientations = tf.convert_to_tensor(orientations, tf.int32)

    def __len__(self) -> int:
        return self._paths.shape[0]

    def fetch(self, index: tf.Tensor) -> tuple[Picture, tf.Tensor]:
        """The picture and the int32 label; `index` is a scalar."""
        turned = None if self._orientations is None else self._orientations[index]
        return Picture(tf.io.read_file(self._paths[index]), turned), self._labels[index]


class Shard(NamedTuple):
    """A part of a TFRecord file: `count` records after the first `skip`."""

    path: str
    skip: int
    count: int


class EncodedRecords:
    """Encoded images in TFRecord files, found by their place in the file.

    Args:
        shards: the files, in order.
        parse: serialized record -> (encoded image, int32 label).
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    ):
        self._paths = [shard.path for shard in shards]
        self._parse = parse
        spans = [_record_spans(shard) for shard in shards]
        self._files = np.repeat(np.arange(len(spans)), [len(span) for span in spans])
        self._spans = np.concatenate(spans)

    def __len__(self) -> int:
        return len(self._spans)

    def fetch(self, index: tf.Tensor) -> tuple[Picture, tf.Tensor]:
        """The picture, turned as the set has it, and the int32 label; `index` is a scalar."""
        record = tf.numpy_function(self._read, [index], tf.string, stateful=False)
        encoded, label = self._parse(tf.ensure_shape(record, []))
        return Picture(encoded), label

    def _read(self, index: np.ndarray) -> bytes:
        start, length = self._spans[index]
        with open(self._paths[self._files[index]], "rb") as file:
            file.seek(start)
            return file.read(length)


@contextlib.contextmanager
def reading_told() -> Iterator[None]:
    """Around taking batches of images.

    Raises:
        FailureError: an image that was checked cannot be read any more, which TensorFlow says.
    """
    try:
        yield
    except tf.errors.OpError as error:
        raise FailureError(
            f"An image cannot be read any more: {one_line(first_line(error))}. Run the same "
            "command again, which checks all of them."
        ) from error


ImageSource = DecodedImages | EncodedFiles | EncodedRecords


class LoadedImages(NamedTuple):
    """What a folder or a TFDS set yields.

    Attributes:
        validation: a split of its own, or the places in `train` of the images to hold out.
        census: what identifies the images of all splits.
    """

    name: str
    allows_flip: bool
    class_names: Sequence[str]
    train: ImageSource
    test: ImageSource
    validation: ImageSource | np.ndarray
    census: Census


_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4


def _record_spans(shard: Shard) -> np.ndarray:
    """Offset and length of each record's data, int64 [count, 2]."""
    spans: list[tuple[int, int]] = []
    offset = 0
    with open(shard.path, "rb") as file:
        while len(spans) < shard.skip + shard.count:
            file.seek(offset)
            (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
            offset += _LENGTH_BYTES + _CHECKSUM_BYTES
            spans.append((offset, length))
            offset += length + _CHECKSUM_BYTES
    return np.asarray(spans[shard.skip :], np.int64).reshape(-1, 2)
