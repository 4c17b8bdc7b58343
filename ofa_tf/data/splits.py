"""Which images are held out of the training images: for validation, and for a test.

A file's place follows from its name, so that adding or removing files moves no other; but in a
class so small that no name is among the tenth (under about 50 images), the least one is held out.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from ofa_tf.data.listing import ImageFile
from ofa_tf.errors import UsageError

# How files are held out. A job goes on with what it was begun with.
OLD_SPLITS = 1  # by their places among all files
NEWEST_SPLITS = 2  # by their names

_SHARE = 0.1
_MOST = 10_000  # images held out for validation unless more are asked for


def held_out(files: Sequence[ImageFile], role: str, seed: int, most: int | None) -> np.ndarray:
    """The places of the files of which the role is a tenth, ascending.

    Of each class with two or more images at least one is held out, and one stays.

    Args:
        files: of all classes.
        role: what they are held out for.
        seed: equal ones hold out the same files.
        most: the tenth is halved until no more than these are expected; None for any number.
    """
    share = _SHARE
    while most is not None and share * len(files) > most:
        share /= 2
    ranks = _ranks(files, role, seed)
    chosen = []
    for members in _by_class([file.class_name for file in files]):
        order = members[np.argsort(ranks[members], kind="stable")]
        count = np.count_nonzero(ranks[members] < share * 2.0**64)
        chosen.append(order[: min(max(count, 1), len(members) - 1)])
    return np.sort(np.concatenate(chosen))


def held_out_for_validation(files: Sequence[ImageFile], seed: int, count: int | None) -> np.ndarray:
    """The places of `count` files, or by default of a tenth of each class, ascending."""
    if count is None:
        return held_out(files, "validation", seed, _MOST)
    ranks = _ranks(files, "validation", seed)
    return stratified([file.class_name for file in files], ranks, count)


def stratified(labels: Sequence, ranks: np.ndarray, count: int) -> np.ndarray:
    """The places of `count` images, of each class about the same share, ascending.

    Args:
        labels: the class of each image.
        ranks: those of the least ranks are taken.
        count: at most as many as there are labels.
    """
    classes = _by_class(labels)
    quotas = _quotas(np.asarray([len(members) for members in classes]), count)
    chosen = [
        members[np.argsort(ranks[members], kind="stable")[:quota]]
        for members, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def check_num_validation(num_validation: int | None, name: str, num_train: int) -> None:
    """Raises UsageError where no training image would be left."""
    if num_validation is not None and not 0 <= num_validation < num_train:
        raise UsageError(
            f"num_validation is {num_validation}, but {name} has {num_train} training images; "
            f"give a number from 0 to {num_train - 1}."
        )


def default_count(num_images: int) -> int:
    """How many of so many images without names are held out for validation."""
    return min(int(num_images * _SHARE), _MOST)


def stable_permutation(count: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """A permutation of range(count) that no NumPy version changes (raw PCG64 output, sorted)."""
    keys = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
    return np.argsort(keys, kind="stable")


def _ranks(files: Sequence[ImageFile], role: str, seed: int) -> np.ndarray:
    """A number below 2**64 for each file, from nothing but its name and class."""
    digests = b"".join(
        hashlib.blake2b(
            f"{seed}/{role}/{file.class_name}/{file.name}".encode(errors="surrogateescape"),
            digest_size=8,
        ).digest()
        for file in files
    )
    return np.frombuffer(digests, "<u8")


def _by_class(labels: Sequence) -> list[np.ndarray]:
    """The places of each class's images."""
    _, numbers = np.unique(np.asarray(labels), return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.cumsum(np.bincount(numbers))[:-1])


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """Shares of `count` in proportion to the sizes: at least one and not all, where it can be."""
    ideal = sizes * (count / sizes.sum())
    low, high = np.minimum(1, sizes - 1), sizes - 1
    low = low if low.sum() <= count else np.zeros_like(sizes)
    high = high if high.sum() >= count else sizes
    quotas = np.clip(np.floor(ideal).astype(int), low, high)
    while (missing := count - quotas.sum()) != 0:
        step = np.sign(missing)
        movable = quotas < high if step > 0 else quotas > low
        quotas[np.argmax(np.where(movable, step * (ideal - quotas), -np.inf))] += step
    return quotas
