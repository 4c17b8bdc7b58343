"""Reads every image of a folder once: which are none, how large they are, which way they lie.

The outcome is remembered under a key made of the files' places in the folder, their sizes and
modification times.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from ofa_tf.data.decoding import decode_rgb
from ofa_tf.data.headers import Header, read_header
from ofa_tf.data.listing import ImageFile
from ofa_tf.errors import FailureError
from ofa_tf.files import read_json, write_json

_BATCH = 512
_LARGE_PIXELS = 30_000_000  # such images are decoded one at a time, to bound the memory


class Checked(NamedTuple):
    """Outcome of a check.

    Attributes:
        bad: why files are no images that can be read, by path.
        turned: the EXIF orientation of the files that have one but 1, by path.
        size: the others' common size as they are seen, (height, width); None where they differ.
    """

    bad: dict[str, str]
    turned: dict[str, int]
    size: tuple[int, int] | None


def check_images(root: Path, files: Sequence[ImageFile], cache_dir: str | None) -> Checked:
    """Decodes each file once, unless that was done before.

    Args:
        root: the folder.
        files: the files in it.
        cache_dir: where outcomes are remembered; None: nowhere. It need not be writable.
    """
    prefix = os.path.join(root, "")
    remembered = cache_dir and Path(cache_dir) / f"image_check_{_key(prefix, files)}.json"
    checked = remembered and _recall(remembered, prefix)
    if not checked:
        checked = _decode_all(files)
        if remembered:
            # Without the file, the next run checks again: slower, but nothing is lost.
            with contextlib.suppress(FailureError):
                write_json(remembered, _to_remember(checked, prefix))
    return checked


def _decode_all(files: Sequence[ImageFile]) -> Checked:
    headers: dict[str, Header] = {}
    bad: dict[str, str] = {}
    with tqdm(total=len(files), desc="checking images", unit="", disable=None) as progress:
        for file in files:
            try:
                with open(file.path, "rb") as content:
                    headers[file.path] = read_header(content)
            except (OSError, ValueError) as error:
                bad[file.path] = getattr(error, "strerror", None) or str(error)
                progress.update()
        for path in _undecodable(headers, progress):
            bad[path] = "it is damaged"
            del headers[path]
    sizes = {header[:2] for header in headers.values()}
    turned = {path: h.orientation for path, h in headers.items() if h.orientation != 1}
    return Checked(bad, turned, sizes.pop() if len(sizes) == 1 else None)


def _undecodable(headers: dict[str, Header], progress: tqdm) -> list[str]:
    """The files that do not decode to as many pixels as their headers say."""
    paths = list(headers)
    pixels = np.asarray([header.height * header.width for header in headers.values()])
    good = np.zeros(len(paths), bool)
    for numbers, parallel in (
        (np.flatnonzero(pixels < _LARGE_PIXELS), tf.data.AUTOTUNE),
        (np.flatnonzero(pixels >= _LARGE_PIXELS), None),
    ):
        for decoded in _decoded(numbers, [paths[number] for number in numbers], parallel):
            for number, count in decoded:
                good[number] = count == pixels[number]
            progress.update(len(decoded))
    return [path for path, is_good in zip(paths, good, strict=True) if not is_good]


def _decoded(
    numbers: np.ndarray, paths: Sequence[str], parallel: int | None
) -> Iterator[list[tuple[int, int]]]:
    """Batches of (number, pixels) of the files that can be decoded."""
    if not paths:
        return
    encoded = tf.data.Dataset.from_tensor_slices((numbers, list(map(os.fsencode, paths))))

    def decode(number: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.shape(decode_rgb(tf.io.read_file(path)), tf.int64)
        return number, shape[0] * shape[1]

    decoded = encoded.map(decode, num_parallel_calls=parallel, deterministic=False)
    for batch in decoded.ignore_errors().batch(_BATCH).as_numpy_iterator():
        yield list(zip(*(column.tolist() for column in batch), strict=True))


def _key(prefix: str, files: Sequence[ImageFile]) -> str:
    digest = hashlib.sha256(b"2")  # the version of what is remembered
    for file in files:
        place = (file.path.removeprefix(prefix), *file[1:])
        digest.update(ascii(place).encode())
    return digest.hexdigest()[:16]


def _to_remember(checked: Checked, prefix: str) -> dict:
    bad, turned = (
        {path.removeprefix(prefix): value for path, value in values.items()}
        for values in (checked.bad, checked.turned)
    )
    return {"size": checked.size, "bad": bad, "turned": turned}


def _recall(file: Path, prefix: str) -> Checked | None:
    """The remembered outcome; None if there is none that can be read."""
    try:
        content = read_json(file, kind=dict)
        bad = {prefix + path: str(why) for path, why in content["bad"].items()}
        turned = {prefix + path: int(value) for path, value in content["turned"].items()}
        size = content["size"]
        return Checked(bad, turned, size and (int(size[0]), int(size[1])))
    except (FailureError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
