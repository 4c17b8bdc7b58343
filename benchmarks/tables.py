"""Rewrites the tables of a Markdown file from the kept results.

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

from records import HEADS, cells
from results import Result, read_result

from ofa_tf.files import write_bytes

_HERE = pathlib.Path(__file__).resolve().parent
_SECTION = re.compile(
    r"(<!-- results: (?P<parts>[\w ]+) -->\n).*?(<!-- end of results -->)", re.DOTALL
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=pathlib.Path, nargs="*", default=[_HERE / "README.md"])
    parser.add_argument("--results", type=pathlib.Path, default=_HERE / "results")
    args = parser.parse_args()
    for path in args.files:
        write_bytes(path, rewritten(path.read_text(), args.results).encode())


def rewritten(text: str, folder: pathlib.Path) -> str:
    """The text with the tables of the results in a folder."""

    def section(match: re.Match) -> str:
        found = [read_result(folder, part) for part in match["parts"].split()]
        tables = [as_markdown(result) for result in found if result]
        return match[1] + "\n" + "\n".join(tables) + "\n" + match[3] if tables else match[0]

    return _SECTION.sub(section, text)


def as_markdown(result: Result) -> str:
    """A table for each setting of a result, and a line of how it was measured."""
    lines: list[str] = []
    setting = None
    for record in result.records:
        if record.setting != setting:
            setting = record.setting
            lines += ["", *_rows([(setting, *HEADS[1:]), ["---"] * len(HEADS)])]
        lines += _rows([cells(record)])
    return "\n".join([*lines[1:], "", _origin(result), ""])


def _rows(rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]


def _origin(result: Result) -> str:
    of = result.context
    versions = ", ".join(
        f"{name} {of[name]}"
        for name in ("python", "tensorflow", "keras", "torch", "ofa", "ai-edge-litert", "numpy")
        if of[name]
    )
    commit = f"; commit {of['commit']}" if of["commit"] else ""
    command = f"python benchmarks/{of['arguments']}"
    return (
        f"`{command}`: {result.caption()}; {of['cores']} cores of {of['cpu']}; {versions}{commit}."
    )


if __name__ == "__main__":
    main()
