"""A folder of images in class folders as image sources: found, checked, split and opened."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ofa_tf.data.folder_check import Checked, ImageFile, check_images
from ofa_tf.data.pipeline import stable_permutation
from ofa_tf.data.sources import (
    DecodedImages,
    EncodedFiles,
    ImageSource,
    LoadedImages,
    decode_rgb,
)
from ofa_tf.errors import UsageError

_EXTENSIONS = (".jpg", ".jpeg", ".png")  # those of tfds.ImageFolder
_TEST_FOLDERS = ("test", "val", "validation")
_TEST_SHARE = 0.1
_MAX_BAD_SHARE = 0.01
_NUM_NAMED = 5

_log = logging.getLogger(__name__)


def load(data_dir: str, cache_dir: str | None, cache_bytes: int, seed: int) -> LoadedImages:
    """Finds, checks and opens the images of a folder; the arguments are `load_dataset`'s."""
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UsageError(f"The folder of images {data_dir} does not exist.")
    splits = {folder: _list_images(folder) for folder in _find_splits(root)}
    checked = check_images(splits, cache_dir)
    _report_bad(root, checked, sum(map(len, splits.values())))
    good = [[file for file in files if file.path not in checked.bad] for files in splits.values()]
    class_names = _class_names(root, *good)
    train, test = good if len(good) == 2 else _hold_out_test(*good, class_names, seed)
    cached = checked.size and len(train) * checked.size[0] * checked.size[1] * 3 <= cache_bytes
    sources = (_open(files, class_names, decoded=bool(cached)) for files in (train, test))
    return LoadedImages(root.resolve().name, True, class_names, *sources)


def _find_splits(root: Path) -> list[Path]:
    """The folders of the training and of the test images, or one folder that is yet to be split."""
    train = root / "train"
    if not train.is_dir():
        return [root]
    for name in _TEST_FOLDERS:
        if (root / name).is_dir():
            return [train, root / name]
    raise UsageError(
        f"{root} has a folder train/ but no test/, val/ or validation/. Add one, or give {train} "
        "to have a tenth of its images held out for the test."
    )


def _list_images(folder: Path) -> list[ImageFile]:
    """The images in the class folders of `folder`, in the order of their paths."""
    files = []
    for class_folder in filter(os.DirEntry.is_dir, os.scandir(folder)):
        for entry in os.scandir(class_folder):
            if entry.name.lower().endswith(_EXTENSIONS):
                status = entry.stat()
                files.append(
                    ImageFile(entry.path, class_folder.name, status.st_size, status.st_mtime_ns)
                )
    if not files:
        raise UsageError(
            f"{folder} has no images: expected folders named as the classes, with "
            f"{', '.join(_EXTENSIONS)} files in them."
        )
    return sorted(files)


def _report_bad(root: Path, checked: Checked, total: int) -> None:
    """Warns of files that are no images; more than 1 % are an error."""
    if not checked.bad:
        return
    named = sorted(checked.bad)[:_NUM_NAMED]
    more = ", ..." if len(checked.bad) > len(named) else ""
    message = (
        f"{len(checked.bad)} of {total} files in {root} are no images that can be read: "
        f"{', '.join(named)}{more}"
    )
    if len(checked.bad) > _MAX_BAD_SHARE * total:
        raise UsageError(f"{message}. At most 1 % are skipped; repair or remove them.")
    _log.warning("%s. They are skipped.", message)


def _class_names(root: Path, *splits: Sequence[ImageFile]) -> list[str]:
    """The classes of all splits, sorted; they must be the same in each."""
    train, *others = ({file.class_name for file in files} for files in splits)
    for test in others:
        if test != train:
            raise UsageError(
                f"Training and test images in {root} differ in their classes: only in train: "
                f"{_some(train - test)}; only in test: {_some(test - train)}."
            )
    if len(train) < 2:
        raise UsageError(
            f"{root} has images of one class only ({_some(train)}); expected a folder for each of "
            "two or more classes."
        )
    return sorted(train)


def _some(names: set[str]) -> str:
    shown = sorted(names)[:_NUM_NAMED]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "") if names else "none"


def _hold_out_test(
    files: Sequence[ImageFile], class_names: Sequence[str], seed: int
) -> tuple[list[ImageFile], list[ImageFile]]:
    """Splits off a tenth of each class, at least one image and never all, as test images."""
    train, test = [], []
    for number, name in enumerate(class_names):
        members = [file for file in files if file.class_name == name]
        if len(members) < 2:
            raise UsageError(
                f"Class {name} has one image; training and test need at least one each."
            )
        count = max(1, round(_TEST_SHARE * len(members)))
        order = stable_permutation(len(members), (seed, number))
        test += [members[i] for i in order[:count]]
        train += [members[i] for i in order[count:]]
    return sorted(train), sorted(test)


def _open(files: Sequence[ImageFile], class_names: Sequence[str], *, decoded: bool) -> ImageSource:
    paths = [file.path for file in files]
    labels = np.searchsorted(class_names, [file.class_name for file in files])
    if not decoded:
        return EncodedFiles(paths, labels)
    images = tf.data.Dataset.from_tensor_slices(paths).map(
        lambda path: decode_rgb(tf.io.read_file(path)), num_parallel_calls=tf.data.AUTOTUNE
    )
    return DecodedImages(np.concatenate(list(images.batch(1024).as_numpy_iterator())), labels)
