"""Finds the image files of a folder: its layout, its classes, and what is left out and why."""

import collections
import contextlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mobile_bench.errors import one_line
from ofa_tf.data.headers import is_image
from ofa_tf.errors import UsageError
from ofa_tf.names import problem_of_class_name

TRAIN, VALIDATION, TEST = "train", "validation", "test"
ROLES = {
    TRAIN: (TRAIN, "training"),
    TEST: (TEST, "testing"),
    VALIDATION: ("val", "valid", VALIDATION),
}
_ENDINGS = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".gif", ".bmp", ".webp")
_OLD_ENDINGS = (".jpg", ".jpeg", ".png")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
# What systems leave in folders, besides what is hidden.
_LITTER = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
_NUM_NAMED = 5


class ImageFile(NamedTuple):
    """An image file: where it is, its class folder, and what tells that it changed."""

    path: str
    class_name: str
    num_bytes: int
    modified_ns: int

    @property
    def name(self) -> str:
        """Its name in the class folder, composed: equal on every system."""
        return unicodedata.normalize("NFC", os.path.basename(self.path))


class Listing(NamedTuple):
    """The image files of a folder.

    Attributes:
        root: the folder.
        splits: files in the order of their paths, by role: train and test, and validation where it
            has a folder; or train alone, of which a test split is yet to be held out.
        left_out: what is in the folder but not in use; None where nothing is.
    """

    root: Path
    splits: dict[str, list[ImageFile]]
    left_out: str | None


def list_images(data_dir: str, *, old: bool = False) -> Listing:
    """Finds the files, without opening those whose names end as images' do.

    Args:
        data_dir: the folder.
        old: find what the versions found that had no splits by name, to go on with their jobs.

    Raises:
        UsageError: there is no such folder, it has no images as they are expected, or its class
            folders cannot be told apart.
    """
    root = _check_root(data_dir)
    folders = _old_layout(root) if old else _layout(root)
    left_out = _LeftOut(root)
    left_out.add_others(root, folders.values())
    splits = {role: _list_split(folder, left_out, old) for role, folder in folders.items()}
    return Listing(root, splits, left_out.told())


def some(names: Iterable[str]) -> str:
    """The first few names, as they can be printed, and whether there are more."""
    names = sorted(names)
    shown = [one_line(name) for name in names[:_NUM_NAMED]]
    return ", ".join([*shown, "..."] if len(names) > len(shown) else shown) or "none"


def _check_root(data_dir: str) -> Path:
    if not data_dir:  # a shell's variable that is not set, which is not to mean this folder
        raise UsageError("data_dir is empty: give the folder of images.")
    root = Path(os.path.abspath(os.path.expanduser(data_dir)))
    shown = one_line(data_dir)
    if os.path.isfile(root) and root.suffix.lower() in _ARCHIVES:
        raise UsageError(f"{shown} is an archive: unpack it, and give the folder that comes out.")
    if os.path.exists(root) and not os.path.isdir(root):
        raise UsageError(f"{shown} is no folder: expected one with images in class folders.")
    if not os.path.isdir(root):
        where = "" if os.path.isabs(os.path.expanduser(data_dir)) else f" in {Path.cwd()}"
        raise UsageError(f"The folder of images {shown} does not exist{where}.")
    return root


def _layout(root: Path) -> dict[str, Path]:
    """The folder of each role; that of class folders as train where there are no splits.

    A folder has a role by its name where class folders are in it: one with images is a class.
    """
    found: dict[str, list[Path]] = {role: [] for role in ROLES}
    for folder in _folders(root):
        for role, names in ROLES.items():
            if folder.name.lower() in names and _folders(folder):
                found[role].append(Path(folder.path))
    for role, folders in found.items():
        if len(folders) > 1:
            raise UsageError(
                f"{root} has {some(folder.name for folder in folders)}, which are all the "
                f"{role} images by their names. Leave one of them."
            )
    layout = {role: folders[0] for role, folders in found.items() if folders}
    if not layout:
        return {TRAIN: root}
    if TRAIN not in layout:
        (named, *_) = layout.values()
        raise UsageError(f"{root} has a folder {named.name}/ but no train/. Add one.")
    if TEST not in layout:
        if VALIDATION not in layout:
            raise _no_test_split(root, layout[TRAIN])
        layout[TEST] = layout.pop(VALIDATION)
    return layout


def _old_layout(root: Path) -> dict[str, Path]:
    train = root / "train"
    if not train.is_dir():
        return {TRAIN: root}
    for name in ("test", "val", "validation"):
        if (root / name).is_dir():
            return {TRAIN: train, TEST: root / name}
    raise _no_test_split(root, train)


def _no_test_split(root: Path, train: Path) -> UsageError:
    return UsageError(
        f"{root} has a folder {train.name}/ but no test/, val/ or validation/ with class folders. "
        f"Add one, or give {train} to have a tenth of its images held out for the test."
    )


def _list_split(folder: Path, left_out: "_LeftOut", old: bool) -> list[ImageFile]:
    """The images in the class folders of a folder, in the order of their paths."""
    files: list[ImageFile] = []
    empty: list[tuple[str, bool]] = []
    spellings: dict[str, str] = {}
    for class_folder in _folders(folder):
        name = class_folder.name if old else unicodedata.normalize("NFC", class_folder.name)
        before, without = len(files), left_out.total
        files += _list_class(class_folder, name, left_out, old)
        if len(files) == before:
            empty.append((class_folder.name, left_out.total > without))
        elif not old:
            _check_class_name(folder, class_folder.name, name, spellings)
    if not files:
        raise _no_images(folder, left_out)
    if empty and not old:
        (name, has_others), *_ = sorted(empty)
        raise UsageError(
            f"The class folder{'s' if len(empty) > 1 else ''} {some(name for name, _ in empty)} of "
            f"{folder} {'have' if len(empty) > 1 else 'has'} no images. Put some in, or remove "
            f"what is no class.{' ' + (left_out.told() or '') if has_others else ''}"
        )
    return sorted(files)


def _check_class_name(folder: Path, found: str, name: str, spellings: dict[str, str]) -> None:
    problem = problem_of_class_name(name)
    if problem is not None:
        raise UsageError(
            f"The class folder {one_line(found)} of {folder} cannot name a class: it {problem}. "
            "Rename it."
        )
    if name in spellings:
        raise UsageError(
            f"{folder} has two folders {name}, which differ only in how Unicode writes the name "
            f"({spellings[name]!a} and {found!a}). Put their images into one."
        )
    spellings[name] = found


def _list_class(
    folder: os.DirEntry, class_name: str, left_out: "_LeftOut", old: bool
) -> Iterator[ImageFile]:
    for entry in _entries(folder.path):
        status = _status(entry)
        problem = _why_left_out(entry, status, _OLD_ENDINGS if old else _ENDINGS, sniff=not old)
        if problem is not None:
            left_out.add(problem, entry.path)
        elif status is not None:
            yield ImageFile(entry.path, class_name, status.st_size, status.st_mtime_ns)


def _why_left_out(
    entry: os.DirEntry, status: os.stat_result | None, endings: Sequence[str], sniff: bool
) -> str | None:
    """Why something in a class folder is no image file; None where it is one."""
    if status is None:
        return "dead or looping links"
    if stat.S_ISDIR(status.st_mode):
        return "folders within class folders"
    if not stat.S_ISREG(status.st_mode):
        return "pipes, sockets and devices"
    if entry.name.lower().endswith(tuple(endings)) or (sniff and _starts_as_image(entry.path)):
        return None
    return f"{one_line(os.path.splitext(entry.name)[1].lower(), 12) or 'other'} files"


def _starts_as_image(path: str) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return is_image(file.read(16))
    return False


class _LeftOut:
    """Counts what is not used of a folder, by its kind."""

    def __init__(self, root: Path):
        self._root = root
        self._counts: collections.Counter[str] = collections.Counter()
        self._named: list[str] = []

    @property
    def total(self) -> int:
        return self._counts.total()

    def add(self, kind: str, path: str) -> None:
        self._counts[kind] += 1
        if len(self._named) <= _NUM_NAMED:
            self._named.append(os.path.relpath(path, self._root))

    def add_others(self, root: Path, used: Iterable[Path]) -> None:
        """Adds what is beside the folders that are used, or beside class folders in them."""
        used = set(used)
        for folder in {root, *used}:
            for entry in _entries(folder):
                is_class = folder in used and _is_folder(entry)
                if not is_class and Path(entry.path) not in used:
                    of = "class folders" if folder in used else "the folders of the splits"
                    self.add(f"files or folders beside {of}", entry.path)

    def told(self) -> str | None:
        if not self._counts:
            return None
        counts = ", ".join(f"{kind}: {count}" for kind, count in self._counts.most_common())
        return f"Left out of {self._root}: {counts} ({some(self._named)})."


def _no_images(folder: Path, left_out: _LeftOut) -> UsageError:
    endings = ", ".join(ending[1:] for ending in _ENDINGS)
    expected = f"expected folders named as the classes, with images in them ({endings})"
    folders = _folders(folder)
    if not folders and any(
        _why_left_out(entry, _status(entry), _ENDINGS, sniff=True) is None
        for entry in _entries(folder)
    ):
        return UsageError(
            f"{folder} has images, but no class folders: {expected}. If all are of one class, give "
            f"the folder above, {folder.parent}; else sort them into a folder for each class."
        )
    for inner in folders:
        if len(_folders(inner)) > 1:  # one alone is more likely a folder in a class folder
            return UsageError(
                f"{folder} has no images: {expected}. Perhaps {one_line(inner.path)} is meant."
            )
    return UsageError(f"{folder} has no images: {expected}. {left_out.told() or ''}".rstrip())


def _folders(folder: os.PathLike | str) -> list[os.DirEntry]:
    return list(filter(_is_folder, _entries(folder)))


def _is_folder(entry: os.DirEntry) -> bool:
    status = None if entry.is_file(follow_symlinks=False) else _status(entry)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _entries(folder: os.PathLike[str] | str) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden, by name.

    Raises:
        UsageError: the folder cannot be read.
    """
    try:
        with os.scandir(os.fspath(folder)) as entries:
            return sorted(
                (
                    entry
                    for entry in entries
                    if entry.name[0] != "." and entry.name.lower() not in _LITTER
                ),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise UsageError(
            f"The folder {one_line(os.fspath(folder))} cannot be read: {error.strerror}."
        ) from error


def _status(entry: os.DirEntry) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None
