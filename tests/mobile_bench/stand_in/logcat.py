"""The phone's log, as `logcat` prints it."""

from __future__ import annotations

import time
from typing import NamedTuple

_LEVELS = "VDIWEFS"  # the last is for filters only: silent


class _Row(NamedTuple):
    when: str
    pid: int
    level: str
    tag: str
    text: str

    def line(self, style: str) -> str:
        when, pid, level, tag, text = self
        return {
            "threadtime": f"{when} {pid:5} {pid:5} {level} {tag:8}: {text}\n",
            "brief": f"{level}/{tag:8}({pid:5}): {text}\n",
            "tag": f"{level}/{tag:8}: {text}\n",
            "raw": f"{text}\n",
        }[style]


class Logcat:
    """The phone's log."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []

    def add(self, pid: int, level: str, tag: str, text: str) -> None:
        """Adds one line; `level` is a letter of VDIWEF."""
        self._rows.append(_Row(time.strftime("%m-%d %H:%M:%S.000"), pid, level, tag, text))

    def clear(self) -> None:
        self._rows.clear()

    def text(self, arguments: list[str]) -> str:
        """Returns the lines that `logcat` with these arguments prints.

        The formats threadtime (the default), brief, tag and raw are known, and the filters
        `TAG:LEVEL`, `*:S` and `-s TAG`.
        """
        style = arguments[arguments.index("-v") + 1] if "-v" in arguments else "threadtime"
        least = _filters(arguments)
        rest = least.pop("*", "S" if "-s" in arguments else "V")
        lines = [
            row.line(style)
            for row in self._rows
            if _LEVELS.index(row.level) >= _LEVELS.index(least.get(row.tag, rest))
        ]
        return "--------- beginning of main\n" + "".join(lines)


def _filters(arguments: list[str]) -> dict[str, str]:
    """Returns the least level of each tag that is named."""
    least = {}
    before = ""
    for word in arguments:
        if not word.startswith("-") and before not in ("-v", "-b", "-t", "-T"):
            tag, _, level = word.partition(":")
            least[tag] = level or "V"
        before = word
    return least
