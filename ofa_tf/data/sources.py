"""Where a split's images lie: decoded in memory, as files, or as records of a prepared TFDS set.

Every source answers for any image by its index, so that a training run starts at any step without
reading what came before.
"""

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# What other decoders do (PIL, Android); TensorFlow's default is faster and off by a few levels.
JPEG_DCT = "INTEGER_ACCURATE"


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG, PNG, GIF (first frame) or BMP bytes to uint8 RGB [H, W, 3].

    One channel becomes three, CMYK becomes RGB, 16 bits become 8, and alpha is dropped.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=JPEG_DCT),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


class DecodedImages:
    """Images of one size, decoded in memory.

    Args:
        images: uint8 [count, H, W, 3].
        labels: [count].
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        with tf.device("CPU"):
            self._images = tf.convert_to_tensor(images)
            self._labels = tf.convert_to_tensor(labels, tf.int32)

    def __len__(self) -> int:
        return self._images.shape[0]

    def fetch(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """uint8 images and int32 labels; `indices` is a batch."""
        return tf.gather(self._images, indices), tf.gather(self._labels, indices)


class EncodedFiles:
    """One encoded image per file."""

    def __init__(self, paths: Sequence[str], labels: np.ndarray):
        with tf.device("CPU"):
            self._paths = tf.convert_to_tensor(list(paths))
            self._labels = tf.convert_to_tensor(labels, tf.int32)

    def __len__(self) -> int:
        return self._paths.shape[0]

    def fetch(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The encoded bytes and the int32 label; `index` is a scalar."""
        return tf.io.read_file(self._paths[index]), self._labels[index]


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

    def fetch(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The encoded bytes and the int32 label; `index` is a scalar."""
        record = tf.numpy_function(self._read, [index], tf.string, stateful=False)
        return self._parse(tf.ensure_shape(record, []))

    def _read(self, index: np.ndarray) -> bytes:
        start, length = self._spans[index]
        with open(self._paths[self._files[index]], "rb") as file:
            file.seek(start)
            return file.read(length)


ImageSource = DecodedImages | EncodedFiles | EncodedRecords


class LoadedImages(NamedTuple):
    """What a folder or a TFDS set yields."""

    name: str
    allows_flip: bool
    class_names: Sequence[str]
    train: ImageSource
    test: ImageSource


_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4


def _record_spans(shard: Shard) -> np.ndarray:
    """Offset and length of each record's data, int64 [count, 2]."""
    spans, offset = [], 0
    with open(shard.path, "rb") as file:
        while len(spans) < shard.skip + shard.count:
            file.seek(offset)
            (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
            offset += _LENGTH_BYTES + _CHECKSUM_BYTES
            spans.append((offset, length))
            offset += length + _CHECKSUM_BYTES
    return np.asarray(spans[shard.skip :], np.int64).reshape(-1, 2)
