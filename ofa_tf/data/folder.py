"""A folder of images in class folders as image sources: found, checked, split and opened."""

import functools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ofa_tf.data.census import Census
from ofa_tf.data.decoding import Picture, decode_picture
from ofa_tf.data.folder_check import Checked, check_images
from ofa_tf.data.listing import TEST, TRAIN, VALIDATION, ImageFile, list_images, some
from ofa_tf.data.sources import (
    DecodedImages,
    EncodedFiles,
    ImageSource,
    LoadedImages,
    reading_told,
)
from ofa_tf.data.splits import (
    OLD_SPLITS,
    check_num_validation,
    default_count,
    held_out,
    held_out_for_validation,
    stable_permutation,
)
from ofa_tf.errors import UsageError

_OLD_TEST_SHARE = 0.1
_MAX_BAD_SHARE = 0.01

_log = logging.getLogger(__name__)


def load(
    data_dir: str,
    cache_dir: str | None,
    cache_bytes: int,
    num_validation: int | None,
    seed: int,
    splits: int,
) -> LoadedImages:
    """Finds, checks and opens the images of a folder; the arguments are `load_dataset`'s."""
    listing = list_images(data_dir, old=splits == OLD_SPLITS)
    if listing.left_out:
        _tell_once(listing.left_out)
    files = [file for listed in listing.splits.values() for file in listed]
    checked = check_images(listing.root, files, cache_dir)
    _report_bad(listing.root, checked, len(files))
    found = {
        role: [file for file in listed if file.path not in checked.bad]
        for role, listed in listing.splits.items()
    }
    class_names = _class_names(listing.root, found)
    if TEST not in found:
        hold_out = _hold_out_as_before if splits == OLD_SPLITS else _hold_out_test
        found[TRAIN], found[TEST] = hold_out(found[TRAIN], class_names, seed)
    place = _validation_places(listing.root, found, num_validation, seed, splits)
    open_files = functools.partial(
        _open,
        class_names=class_names,
        checked=checked,
        decoded=_fits(checked, len(found[TRAIN]), cache_bytes),
    )
    return LoadedImages(
        listing.root.resolve().name,
        True,
        class_names,
        open_files(found[TRAIN]),
        open_files(found[TEST]),
        open_files(found[VALIDATION]) if place is None else place,
        _census(found, place),
    )


@functools.cache
def _tell_once(message: str) -> None:
    """Warns, but not in each step of ofa-quickstart."""
    _log.warning("%s", message)


def _report_bad(root: Path, checked: Checked, total: int) -> None:
    """Warns of files that are no images; more than 1 % are an error."""
    if not checked.bad:
        return
    reasons = {os.path.relpath(path, root): why for path, why in checked.bad.items()}
    message = (
        f"{len(checked.bad)} of {total} files in {root} are no images that can be read: "
        f"{some(f'{path} ({why})' for path, why in reasons.items())}"
    )
    if len(checked.bad) > _MAX_BAD_SHARE * total:
        raise UsageError(f"{message}. At most 1 % are skipped; repair or remove them.")
    _log.warning("%s. They are skipped.", message)


def _class_names(root: Path, splits: Mapping[str, Sequence[ImageFile]]) -> list[str]:
    """The classes of all splits, sorted; they must be the same in each."""
    classes = {role: {file.class_name for file in files} for role, files in splits.items()}
    train = classes.pop(TRAIN)
    for role, others in classes.items():
        if others != train:
            name = "test" if role == TEST else role
            raise UsageError(
                f"Training and {name} images in {root} differ in their classes: only in train: "
                f"{some(train - others)}; only in {name}: {some(others - train)}."
            )
    if len(train) < 2:
        raise UsageError(
            f"{root} has images of one class only ({some(train)}); expected a folder for each of "
            "two or more classes."
        )
    return sorted(train)


def _hold_out_test(
    files: Sequence[ImageFile], class_names: Sequence[str], seed: int
) -> tuple[list[ImageFile], list[ImageFile]]:
    """Splits off about a tenth of each class as test images."""
    _check_two_each(files, class_names)
    places = set(held_out(files, TEST, seed, most=None).tolist())
    train = [file for place, file in enumerate(files) if place not in places]
    return train, [files[place] for place in sorted(places)]


def _hold_out_as_before(
    files: Sequence[ImageFile], class_names: Sequence[str], seed: int
) -> tuple[list[ImageFile], list[ImageFile]]:
    """The test images of jobs that were begun when a file's place decided."""
    _check_two_each(files, class_names)
    train, test = [], []
    for number, name in enumerate(class_names):
        members = [file for file in files if file.class_name == name]
        count = max(1, round(_OLD_TEST_SHARE * len(members)))
        order = stable_permutation(len(members), (seed, number))
        test += [members[i] for i in order[:count]]
        train += [members[i] for i in order[count:]]
    return sorted(train), sorted(test)


def _check_two_each(files: Sequence[ImageFile], class_names: Sequence[str]) -> None:
    counts = dict.fromkeys(class_names, 0)
    for file in files:
        counts[file.class_name] += 1
    single = [name for name, count in counts.items() if count < 2]
    if single:
        raise UsageError(
            f"Class {some(single)} has one image; training and test need at least one each."
        )


def _validation_places(
    root: Path,
    found: Mapping[str, Sequence[ImageFile]],
    num_validation: int | None,
    seed: int,
    splits: int,
) -> np.ndarray | None:
    """The places of the validation images among the training images; None where they have a folder.

    Raises:
        UsageError: images are to be held out but there is a folder, or no training image is left.
    """
    files = found[TRAIN]
    if VALIDATION in found:
        if num_validation:
            raise UsageError(
                f"{root} has a folder of validation images, and num_validation is "
                f"{num_validation}: leave it out, or give 0 to use the folder."
            )
        return None
    check_num_validation(num_validation, root.name, len(files))
    if splits == OLD_SPLITS:
        count = default_count(len(files)) if num_validation is None else num_validation
        return np.sort(stable_permutation(len(files), seed)[:count])
    places = held_out_for_validation(files, seed, num_validation)
    lacking = {file.class_name for file in files} - {files[place].class_name for place in places}
    if lacking and len(places):
        _log.warning(
            "No validation image is of %s: accuracies on them do not tell of all classes.",
            some(lacking),
        )
    return places


def _census(found: Mapping[str, Sequence[ImageFile]], places: np.ndarray | None) -> Census:
    splits: dict[str, Iterable[ImageFile]] = dict(found)
    if places is not None:
        validation = set(places.tolist())
        files = found[TRAIN]
        splits[TRAIN] = [file for place, file in enumerate(files) if place not in validation]
        splits[VALIDATION] = [files[place] for place in places]
    return Census.of_files({role: splits[role] for role in (TRAIN, VALIDATION, TEST)})


def _fits(checked: Checked, num_images: int, cache_bytes: int) -> bool:
    if not checked.size:
        return False
    height, width = checked.size
    return num_images * height * width * 3 <= cache_bytes


def _open(
    files: Sequence[ImageFile], class_names: Sequence[str], checked: Checked, decoded: bool
) -> ImageSource:
    paths = [file.path for file in files]
    labels = np.searchsorted(class_names, [file.class_name for file in files])
    orientations = np.asarray([checked.turned.get(path, 1) for path in paths])
    encoded = EncodedFiles(paths, labels, orientations)
    if not decoded:
        return encoded
    return DecodedImages(functools.partial(_decode, encoded), labels)


def _decode(encoded: EncodedFiles) -> np.ndarray:
    """All pixels, uint8 [count, H, W, 3]."""

    def decode(index: tf.Tensor) -> tf.Tensor:
        picture: Picture = encoded.fetch(index)[0]
        return decode_picture(picture)

    images = tf.data.Dataset.range(len(encoded)).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    with reading_told():
        return np.concatenate(list(images.batch(1024).as_numpy_iterator()))
