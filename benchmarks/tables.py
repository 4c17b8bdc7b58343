"""Rewrites the tables of Markdown files from the kept results.

    python benchmarks/tables.py
    python benchmarks/tables.py README.md

A table stands between the lines `<!-- results: PART PART ... -->` and `<!-- end of results -->`.
A section stays as it is where none of its parts has a result.
"""

from __future__ import annotations

import argparse
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import records

from ofa_tf.files import read_json, write_bytes

_HERE = pathlib.Path(__file__).resolve().parent
_SECTION = re.compile(
    r"(<!-- results: (?P<parts>[\w ]+) -->\n).*?(<!-- end of results -->)", re.DOTALL
)
_PACKAGES = ("python", "tensorflow", "keras", "torch", "ofa", "ai-edge-litert", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=pathlib.Path, nargs="*", default=[_HERE / "README.md"])
    parser.add_argument("--results", type=pathlib.Path, default=_HERE / "results")
    args = parser.parse_args()
    for path in args.files:
        write_bytes(path, rewritten(path.read_text(), args.results).encode())


def rewritten(text: str, folder: pathlib.Path) -> str:
    """The text with the tables of the results in a folder."""

    def section(match: re.Match) -> str:
        paths = [folder / f"{part}.json" for part in match["parts"].split()]
        tables = [as_markdown(read_json(path)) for path in paths if path.exists()]
        return match[1] + "\n" + "\n".join(tables) + "\n" + match[3] if tables else match[0]

    return _SECTION.sub(section, text)


def as_markdown(result: dict[str, Any]) -> str:
    """A table for each setting of a result of run_all.py, and a line of how it was measured."""
    lines: list[str] = []
    setting = None
    for record in map(records.from_json, result["records"]):
        if record.setting != setting:
            setting = record.setting
            heads = (setting, *records.HEADS[1:])
            lines += ["", *_rows([heads, ["---"] * len(heads)])]
        lines += _rows([records.cells(record)])
    return "\n".join([*lines[1:], "", _origin(result), ""])


def _rows(rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]


def _origin(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {result[name]}" for name in _PACKAGES if result[name])
    commit = f"; commit {result['commit']}" if result["commit"] else ""
    where = f"{result['cores']} cores of {result['cpu']}"
    command = f"python benchmarks/{result['arguments']}"
    return f"`{command}`: {caption(result)}; {where}; {versions}{commit}."


def caption(result: dict[str, Any]) -> str:
    """When and how long it was measured."""
    quick = ", quick settings: not a measurement" * result["quick"]
    return f"{result['date']}, {result['seconds'] / 60:.1f} min{quick}"


if __name__ == "__main__":
    main()
