"""The Markdown pages of the project, taken apart: blocks, inline code, links, headings, tables.

A block of code is run by the tests of this folder, unless a comment stands right before it:

    <!-- not run: needs a phone -->
    <!-- run by tests/export/test_apps_document.py -->

An indented block counts as one of the shell.
"""

from __future__ import annotations

import collections
import functools
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
# Those whose blocks are run, and those of which the rest is looked at, too.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [*PAGES, ROOT / "benchmarks" / "README.md", ROOT / "CHANGELOG.md"]

_COMMENT = re.compile(r"<!-- (?:not run: (?P<reason>.+)|run by (?P<test>[\w/.]+\.py)\b.*) -->\s*")


class Block(NamedTuple):
    """A block of code: where it is, what it says, and why it is not run here, if so."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str  # the reason, or ""
    run_by: str  # the test that runs it, or ""

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def name_of(page: Path) -> str:
    """The page's path, as a test's id."""
    return page.relative_to(ROOT).as_posix()


@functools.cache
def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page, in order."""
    found, comment = [], None
    for token in _tokens(page):
        if token.type in ("fence", "code_block"):
            language = token.info.strip() if token.type == "fence" else "sh"
            why = comment or {"reason": "", "test": ""}
            block = Block(page, token.map[0] + 1, language, token.content, *why.values())
            found.append(block)
        matched = _COMMENT.fullmatch(token.content) if token.type == "html_block" else None
        comment = matched and {name: text or "" for name, text in matched.groupdict().items()}
    return found


def _inline(page: Path) -> Iterator[Token]:
    for token in _tokens(page):
        yield from token.children or ()


def inline_code(page: Path) -> list[str]:
    """What stands in `code marks` within the text of a page, tables included."""
    codes = (token.content for token in _inline(page) if token.type == "code_inline")
    return [" ".join(code.split()) for code in codes]


def links(page: Path) -> list[str]:
    """Where links and pictures of a page lead."""
    names = {"link_open": "href", "image": "src"}
    return [str(token.attrs[names[token.type]]) for token in _inline(page) if token.type in names]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    tokens, found, twins = _tokens(page), set(), collections.Counter()
    for opening, content in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in content.children)
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{anchor}-{twins[anchor]}" if twins[anchor] else anchor)
            twins[anchor] += 1
    return found


class Table(NamedTuple):
    """A table: its head and its rows, each cell as the Markdown that is in it."""

    head: list[str]
    rows: list[list[str]]

    def column(self, number: int = 0) -> list[str]:
        return [row[number] for row in self.rows]


def tables(page: Path) -> list[Table]:
    """The tables of a page, in order."""
    found, cells = [], None
    for token in _tokens(page):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            cells = []
            found[-1].append(cells)
        elif token.type == "tr_close":
            cells = None
        elif token.type == "inline" and cells is not None:
            cells.append(token.content)
    return [Table(rows[0], rows[1:]) for rows in found]


def commands(text: str) -> list[list[str]]:
    """The commands of a block of the shell as words, comments left out.

    A command may go on in the next line, behind a backslash or within quotes.
    """
    found, begun = [], ""
    for line in text.replace("\\\n", " ").splitlines():
        begun += line
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:  # no closing quotation
            begun += "\n"
            continue
        begun = ""
        if words:
            found.append(words)
    if begun:
        raise ValueError(f"a quotation has no end: {begun}")
    return found
