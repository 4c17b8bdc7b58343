"""docs/SEARCH_SPACE.md: the files that it has the reader write, its scripts and what they print."""

from __future__ import annotations

import pathlib
import re

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "SEARCH_SPACE.md"

_BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
_PYTHON = [text for language, text in _BLOCKS if language == "python"]

# By name, as their first line says it.
FILES = {name: text for text in _PYTHON for name in re.findall(r"\A# (\w+\.py)\n", text)}
SCRIPTS = [text for text in _PYTHON if text not in FILES.values()]
PRINTED = [text for language, text in _BLOCKS if language == "text"]
COMMANDS = [text for language, text in _BLOCKS if language == "sh"]


def write_files(folder: pathlib.Path) -> None:
    """Writes the page's Python files as they stand."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
