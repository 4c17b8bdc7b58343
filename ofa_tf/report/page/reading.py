"""Values of JSON files, checked as they are asked for, and where they come from."""

from __future__ import annotations

import datetime
import json
import math
import pathlib
from typing import Any, NamedTuple, TypeVar

from ofa_tf.errors import FailureError
from ofa_tf.files import read_json

T = TypeVar("T")


class Source(NamedTuple):
    """How numbers were obtained.

    Args:
        file: where they are read, within the workdir.
        command: what makes that file.
        facts: name and text of all else that is known: images, date, versions, machine.
    """

    file: str
    command: str
    facts: tuple[tuple[str, str], ...]


class Missing(NamedTuple):
    """What the page says where a part of the job is not there yet."""

    text: str
    command: str


class Fields:
    """A JSON object of a file. Every method raises FailureError where the value cannot be used.

    Args:
        values: the object.
        path: the file, for errors.
        remedy: what to do about a damaged file, as a sentence.
        place: of the object in the file.
    """

    def __init__(self, values: Any, path: pathlib.Path, remedy: str, place: str = ""):
        self._path, self._remedy, self._place = path, remedy, place
        if not isinstance(values, dict):
            raise self.error(f"{place or 'it'} is no object")
        self._values = values

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def error(self, problem: str) -> FailureError:
        return FailureError(f"{self._path} is damaged: {problem}. {self._remedy}")

    def text(self, key: str) -> str:
        return self._checked(key, str, "a text")

    def number(self, key: str) -> float:
        value = self._checked(key, (int, float), "a number")
        if isinstance(value, bool) or not math.isfinite(value):
            raise self.error(f"{self._name(key)} is no number but {value!r}")
        return value

    def number_or_none(self, key: str) -> float | None:
        return self.number(key) if key in self else None

    def text_or_none(self, key: str) -> str | None:
        return self.text(key) if key in self else None

    def fields(self, key: str) -> Fields:
        value = self._checked(key, dict, "an object")
        return Fields(value, self._path, self._remedy, self._name(key))

    def several(self, key: str) -> list[Fields]:
        """The objects of a list."""
        values = self._checked(key, list, "a list")
        name = self._name(key)
        return [
            Fields(value, self._path, self._remedy, f"{name}[{index}]")
            for index, value in enumerate(values)
        ]

    def numbers(self, key: str) -> tuple[float, ...]:
        """The numbers of a list, or of an object in the order of its keys."""
        values = self._checked(key, (list, dict), "a list of numbers")
        named = dict(enumerate(values)) if isinstance(values, list) else values
        numbers = Fields(named, self._path, self._remedy, self._name(key))
        return tuple(numbers.number(name) for name in named)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._checked(key, list, "a list of texts")
        texts = Fields(dict(enumerate(values)), self._path, self._remedy, self._name(key))
        return tuple(texts.text(index) for index in range(len(values)))

    def items(self) -> list[tuple[str, Any]]:
        """Names and values, of any kind."""
        return list(self._values.items())

    def _checked(self, key: Any, kind: type[T] | tuple[type[T], ...], expected: str) -> T:
        value = self._values.get(key)
        if not isinstance(value, kind):
            told = "missing" if value is None else f"no {expected.partition(' ')[2]} but {value!r}"
            raise self.error(f"{self._name(key)} is {told:.200}")
        return value

    def _name(self, key: Any) -> str:
        return f"{self._place}.{key}" if self._place else str(key)


def read_fields(path: pathlib.Path, remedy: str) -> Fields:
    """The object in a JSON file. Raises FailureError, with the remedy."""
    try:
        values = read_json(path)
    except FailureError as error:
        raise FailureError(f"{error} {remedy}") from error
    return Fields(values, path, remedy)


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
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            value = json.loads(line)
        except ValueError as error:
            raise FailureError(
                f"{path} is damaged: line {number} is no JSON: {error}. {remedy}"
            ) from error
        rows.append(Fields(value, path, remedy, f"line {number}"))
    return rows


def changed(path: pathlib.Path) -> str:
    """When a file was last written, in UTC; for files that do not tell a date of their own."""
    time = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)
    return time.strftime("%Y-%m-%d %H:%M UTC")


def said_date(date: str) -> str:
    """A date of ISO 8601 as the page has it; as it is where it is none."""
    try:
        time = datetime.datetime.fromisoformat(date)
    except ValueError:
        return date
    return time.strftime("%Y-%m-%d %H:%M") + (" UTC" if not time.utcoffset() else f" {time:%z}")
