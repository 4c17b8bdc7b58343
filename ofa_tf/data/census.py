"""What identifies the images of a data set: how many of each class and split, and which."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from ofa_tf.data.listing import ImageFile, some

_WHOLE = ""  # the class of a split whose classes are not told apart


class Count(NamedTuple):
    """Of one class in one split: how many images, and what stands for which they are."""

    number: int
    digest: str


@dataclasses.dataclass(frozen=True)
class Census:
    """The images of a data set.

    Attributes:
        splits: by split, the count of each class.
    """

    splits: dict[str, dict[str, Count]]

    @classmethod
    def of_files(cls, splits: dict[str, Iterable[ImageFile]]) -> Census:
        """Files are told apart by their names and sizes, wherever their folder is."""
        return cls({split: _count_files(files) for split, files in splits.items()})

    @classmethod
    def of_sets(cls, splits: dict[str, tuple[int, str]]) -> Census:
        """Splits of which only the number of images is known, and what stands for them."""
        return cls(
            {
                split: {_WHOLE: Count(number, _digest([identity]))}
                for split, (number, identity) in splits.items()
            }
        )

    @classmethod
    def from_dict(cls, value: Any) -> Census:
        """Of `to_dict`. Raises ValueError where it is none."""
        try:
            splits = {
                split: {name: Count(int(n), str(digest)) for name, (n, digest) in row.items()}
                for split, row in value.items()
            }
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ValueError("expected numbers and digests by split and class") from error
        if not splits:
            raise ValueError("it has no splits")
        return cls(splits)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            split: {name: list(count) for name, count in row.items()}
            for split, row in self.splits.items()
        }

    @property
    def fingerprint(self) -> str:
        """Equal for equal images in equal splits."""
        return _digest([json.dumps(self.to_dict(), sort_keys=True)])

    def changes(self, now: Census) -> str:
        """What is other in another census, class by class, in words; empty where nothing is."""
        told = []
        for split in {**self.splits, **now.splits}:
            before, after = self.splits.get(split, {}), now.splits.get(split, {})
            names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            if names:
                added = sum(_number(after, name) - _number(before, name) for name in names)
                of = "" if names == [_WHOLE] else f" of {some(names)}"
                told.append(f"{split} images{of} ({added:+d})" if added else f"{split} images{of}")
        return "; ".join(told)


def _number(counts: dict[str, Count], name: str) -> int:
    return counts[name].number if name in counts else 0


def _count_files(files: Iterable[ImageFile]) -> dict[str, Count]:
    lines: dict[str, list[str]] = {}
    for file in files:
        lines.setdefault(file.class_name, []).append(f"{file.num_bytes} {file.name}")
    return {name: Count(len(found), _digest(sorted(found))) for name, found in lines.items()}


def _digest(lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
