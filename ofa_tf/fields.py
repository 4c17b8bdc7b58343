"""Fields: the values of a JSON file, checked as they are asked for, with one message each.

All JSON files of our own are read through here: whoever may have written them, a value that cannot
be used is told with the file, its place in it, and what to do. (net.config, which is the authors',
is read with `ofa_tf.interop.fields`, which refuses unknown keys too.)
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import pathlib
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import parse_json, read_json
from ofa_tf.names import check_name

T = TypeVar("T")
_MOST = 10**15  # of any number of ours, be it bytes or computations


def is_number(value: Any) -> bool:
    """Whether it is a finite number; JSON as Python reads it has NaN, Infinity and 10**400 too."""
    try:
        return (
            isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:
        return False


class Fields:
    """A JSON object of a file. Every method raises an error where the value cannot be used.

    Args:
        values: the object.
        path: the file, for errors.
        remedy: what to do about a damaged file, as a sentence.
        place: of the object in the file.
        error_type: UsageError for files that the user gave, FailureError for those of a job.
    """

    def __init__(
        self,
        values: Any,
        path: pathlib.Path,
        remedy: str,
        place: str = "",
        error_type: type[Exception] = FailureError,
    ):
        self._path, self._remedy, self._place = path, remedy, place
        self._error_type = error_type
        if not isinstance(values, dict):
            raise self.error(f"{place or 'it'} is no object but {_shown(values)}")
        self._values = values

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def error(self, problem: str) -> Exception:
        return self._error_type(f"{self._path} is damaged: {problem}. {self._remedy}")

    def place(self, key: Any) -> str:
        """Where a value is in the file, for `error`."""
        return f"{self._place}.{key}" if self._place else str(key)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those keys that are not there at all, sorted."""
        return sorted(set(keys) - set(self._values))

    def text(self, key: str | int) -> str:
        return self._checked(key, str, "a text")

    def name(self, key: str) -> str:
        """A text that may become a file or a folder, see `check_name`."""
        try:
            return check_name(self.text(key), self.place(key))
        except UsageError as error:
            raise self.error(str(error).rstrip(".")) from error

    def number(self, key: str | int, least: float = -_MOST, most: float = _MOST) -> float:
        value = self._checked(key, (int, float), "a number")
        if not is_number(value):
            raise self.error(f"{self.place(key)} is no number but {_shown(value)}")
        if not least <= value <= most:
            raise self.error(f"{self.place(key)} is {_shown(value)}, not {least:g} to {most:g}")
        return value

    def whole(self, key: str, least: int = 0, most: int = _MOST) -> int:
        value = self.number(key, least, most)
        if not isinstance(value, int):
            raise self.error(f"{self.place(key)} is no whole number but {_shown(value)}")
        return value

    def truth(self, key: str) -> bool:
        return self._checked(key, bool, "a truth value")

    def number_or_none(self, key: str) -> float | None:
        return self.number(key) if key in self else None

    def text_or_none(self, key: str) -> str | None:
        return self.text(key) if key in self else None

    def fields(self, key: str) -> Fields:
        return self._nested(self._checked(key, dict, "an object"), self.place(key))

    def fields_or_empty(self, key: str) -> Fields:
        """A nested object; one without fields where there is none."""
        return self.fields(key) if key in self else self._nested({}, self.place(key))

    def several(self, key: str) -> list[Fields]:
        """The objects of a list."""
        values = self._checked(key, list, "a list")
        return [self._nested(v, f"{self.place(key)}[{i}]") for i, v in enumerate(values)]

    def numbers(self, key: str) -> tuple[float, ...]:
        """The numbers of a list, or of an object in the order of its keys."""
        values: Any = self._checked(key, (list, dict), "a list of numbers")
        named = dict(enumerate(values)) if isinstance(values, list) else values
        numbers = self._nested(named, self.place(key))
        return tuple(numbers.number(name) for name in named)

    def named_numbers(self, key: str) -> dict[str, float]:
        """The numbers of an object, by their names; none where there is no such object."""
        numbers = self.fields_or_empty(key)
        return {name: numbers.number(name) for name, _ in numbers.items()}

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._checked(key, list, "a list of texts")
        texts = self._nested(dict(enumerate(values)), self.place(key))
        return tuple(texts.text(index) for index in range(len(values)))

    def record(self, kind: type[T], /, **read: Any) -> T:
        """A dataclass of texts, truth values and numbers, whole ones from 0 on.

        Args:
            kind: the dataclass.
            **read: the keys that were read otherwise, with their values where the class has them.
        """
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        unknown = self._values.keys() - fields.keys() - read.keys()
        if unknown:
            raise self.error(f"{self.place(min(unknown))} is no field of a {kind.__name__}")
        found = {}
        for name, field in fields.items():
            if name in read:
                found[name] = read[name]
            elif name in self._values or field.default is dataclasses.MISSING:
                found[name] = self._of_type(name, hints[name])
        return kind(**found)

    def _of_type(self, key: str, hint: Any) -> Any:
        if isinstance(hint, types.UnionType):  # with None
            return self._of_type(key, typing.get_args(hint)[0]) if key in self else None
        return {str: self.text, bool: self.truth, int: self.whole, float: self.number}[hint](key)

    def items(self) -> list[tuple[str, Any]]:
        """Names and values, of any kind."""
        return list(self._values.items())

    def _nested(self, values: Any, place: str) -> Fields:
        return Fields(values, self._path, self._remedy, place, self._error_type)

    def _checked(self, key: Any, kind: type[T] | tuple[type[T], ...], expected: str) -> T:
        value = self._values.get(key)
        # To Python, true and false are numbers.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            noun = expected.partition(" ")[2]
            told = "missing" if value is None else f"no {noun} but {_shown(value)}"
            raise self.error(f"{self.place(key)} is {told}")
        return value


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except (RecursionError, ValueError):  # nested deeply, or a whole number of many digits
        return f"a {type(value).__name__}"


def read_fields(
    path: pathlib.Path, remedy: str, error_type: type[Exception] = FailureError
) -> Fields:
    """The object in a JSON file. Raises an error of that type, with the remedy."""
    try:
        return Fields(read_json(path, remedy, dict), path, remedy, "", error_type)
    except FailureError as error:
        raise error_type(str(error)) from error


def read_lines(path: pathlib.Path, remedy: str) -> list[Fields]:
    """The objects in a file of JSON lines; none where there is no file.

    An unfinished last line, which a process is writing or left when it was killed, is left out.
    Raises FailureError, with the remedy.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise FailureError(f"{path} could not be read: {error.strerror}.") from error
    rows = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            value = parse_json(line)
        except ValueError as error:
            raise FailureError(
                f"{path} is damaged: line {number} is no JSON: {error}. {remedy}"
            ) from error
        rows.append(Fields(value, path, remedy, f"line {number}"))
    return rows
