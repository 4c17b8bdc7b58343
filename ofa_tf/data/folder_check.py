"""Reads every image of a folder once, to find the files that are no images.

The outcome is remembered under a key made of the files' paths, sizes and modification times.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds
from tqdm import tqdm

from ofa_tf.data.sources import decode_rgb
from ofa_tf.errors import FailureError
from ofa_tf.files import write_json

_BATCH = 512


class ImageFile(NamedTuple):
    """An image file: where it is, its class folder, and what tells that it changed."""

    path: str
    class_name: str
    num_bytes: int
    modified_ns: int


class Checked(NamedTuple):
    """Outcome of a check: the files that cannot be decoded, and the others' common size."""

    bad: frozenset[str]
    size: tuple[int, int] | None  # (height, width); None where images differ in size


def check_images(splits: dict[Path, Sequence[ImageFile]], cache_dir: str | None) -> Checked:
    """Decodes each file once, unless that was done before.

    Args:
        splits: the files of each folder of class folders.
        cache_dir: where outcomes are remembered; None: nowhere. It need not be writable.
    """
    files = [file for listed in splits.values() for file in listed]
    remembered = cache_dir and Path(cache_dir) / f"image_check_{_key(files)}.json"
    checked = remembered and _recall(remembered)
    if not checked:
        checked = _decode_all(splits)
        if remembered:
            # Without the file, the next run checks again: slower, but nothing is lost.
            with contextlib.suppress(FailureError):
                write_json(remembered, {"size": checked.size, "bad": sorted(checked.bad)})
    return checked


def _decode_all(splits: dict[Path, Sequence[ImageFile]]) -> Checked:
    paths = {file.path for listed in splits.values() for file in listed}
    sizes: dict[str, tuple[int, int]] = {}
    # ImageFolder wants split/class/image; symbolic links make each of our folders a split.
    with (
        tempfile.TemporaryDirectory() as root,
        tqdm(total=len(paths), desc="checking images", unit="", disable=None) as progress,
    ):
        folders = {f"split{i}": folder for i, folder in enumerate(splits)}
        for name, folder in folders.items():
            os.symlink(folder.resolve(), os.path.join(root, name))
        builder = tfds.ImageFolder(root)
        for name, folder in folders.items():
            for path, size in _decodable(builder, name, os.path.join(root, name), folder):
                sizes[path] = size
                progress.update()
    good_sizes = {sizes[path] for path in paths & sizes.keys()}
    size = good_sizes.pop() if len(good_sizes) == 1 else None
    return Checked(frozenset(paths - sizes.keys()), size)


def _decodable(builder: tfds.ImageFolder, split: str, link: str, folder: Path):
    """Path and (height, width) of each image that can be read and decoded."""
    encoded = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
    )
    decoded = encoded.map(
        lambda example: (example["image/filename"], tf.shape(decode_rgb(example["image"]))[:2]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    for names, sizes in decoded.ignore_errors().batch(_BATCH).as_numpy_iterator():
        for name, size in zip(names, sizes.tolist(), strict=True):
            yield os.path.join(folder, os.path.relpath(os.fsdecode(name), link)), tuple(size)


def _key(files: Sequence[ImageFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(repr(file).encode())
    return digest.hexdigest()[:16]


def _recall(file: Path) -> Checked | None:
    """The remembered outcome; None if there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        size = content["size"]
        return Checked(frozenset(content["bad"]), size and (int(size[0]), int(size[1])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
