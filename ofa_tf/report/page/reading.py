"""Where the numbers of the page come from, and what is not there yet."""

from __future__ import annotations

import datetime
import pathlib
from typing import NamedTuple


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


def changed(path: pathlib.Path) -> str:
    """When a file was last written, in UTC; for files that do not tell a date of their own."""
    time = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)
    return time.strftime("%Y-%m-%d %H:%M UTC")


def said_date(date: str) -> str:
    """A date of ISO 8601 as the page has it; other text as it is."""
    try:
        time = datetime.datetime.fromisoformat(date)
    except ValueError:
        return date
    return time.strftime("%Y-%m-%d %H:%M") + (" UTC" if not time.utcoffset() else f" {time:%z}")
