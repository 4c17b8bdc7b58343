"""All that the pages name is there: commands, flags, presets, links, files; nothing is run."""

from __future__ import annotations

import re
import shlex

import command_lines
import pytest
from cli_helpers import COMMANDS
from pages import ALL_PAGES, PAGES, ROOT, anchors, blocks, commands, inline_code, links, tables
from pages import name_of as page_id

from ofa_tf.search import read_scenarios

LANGUAGES = ("sh", "python", "yaml", "text")  # of blocks that need no comment
OFA_COMMANDS = tuple(f"ofa-{command}" for command in COMMANDS)
IN_TEXT = (*OFA_COMMANDS, "mobile-bench", "make", "pip", "pytest", "python")
OF_OTHER_TOOLS = {"--use_xnnpack"}
FILE = re.compile(
    r"(?:benchmarks|docs|flags|mobile_bench|ofa_tf|tests)/[\w./*-]*\w|Makefile|\.ci/run"
)

every_page = pytest.mark.parametrize("page", ALL_PAGES, ids=page_id)


def test_blocks_that_are_not_run_say_why_or_by_what():
    told = {}
    for block in (block for page in PAGES for block in blocks(page)):
        if block.run_by:
            assert (ROOT / block.run_by).is_file(), f"{block.place}: {block.run_by}"
        elif block.not_run:
            told[block.place] = block.not_run
        else:
            assert_runs(block)
    print("\n".join(f"{place} is not run: {reason}" for place, reason in told.items()))
    assert {reason for place, reason in told.items() if place.startswith("PHONES")} == {
        "needs a phone"
    }


def assert_runs(block):
    """A test runs such a block: test_docs_run.py, or here `test_scenarios`."""
    assert block.language in LANGUAGES, f"{block.place}: a test runs no {block.language}"
    if block.language == "sh":
        names = {command_lines.strip(words)[0] for words in commands(block.text)}
        assert names <= {*OFA_COMMANDS, "mobile-bench"}, f"{block.place}: a test runs no {names}"


@every_page
def test_command_lines(page, asked):
    for block in blocks(page):
        if block.language == "sh":
            for words in commands(block.text):
                command_lines.check(words)


@every_page
def test_command_lines_in_the_text(page, asked):
    for code in inline_code(page):
        words = code.split()
        if words[0] == "mobile-bench" and len(words) == 2:  # as one speaks of the command
            command_lines.check([*words, "--help"])
        elif words[0] in IN_TEXT and len(words) > 1:
            command_lines.check(shlex.split(code, comments=True))
        elif words[0].startswith("ofa-") and len(words) == 1:
            assert words[0] in OFA_COMMANDS


@every_page
def test_flags_in_the_text(page, asked):
    """Each is a flag of the command that its table is about, or else of any."""
    of_tables = {}
    for table in tables(page):
        named = [name for name in OFA_COMMANDS if f"`{name}`" in " ".join(table.head)]
        for cell in (cell for row in table.rows for cell in row):
            of_tables.update(dict.fromkeys(re.findall("`([^`]+)`", cell), named))
    for code in set(inline_code(page)) - OF_OTHER_TOOLS:
        for flag in code.split() if code.startswith("--") else ():
            possible = of_tables.get(code) or commands_of(page)
            assert any(command_lines.has_flag(command, flag) for command in possible), code


def commands_of(page):
    """The commands whose flags a page speaks of, where it does not say of which one."""
    if page.name == "PHONES.md":
        return ["mobile-bench"]
    if page.name == "RESULTS.md":
        return ["benchmarks/study.py"]
    if page.parent.name == "benchmarks":
        return [*OFA_COMMANDS, *(f"benchmarks/{file.name}" for file in page.parent.glob("*.py"))]
    return [*OFA_COMMANDS, "mobile-bench"]


@every_page
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_paths_in_the_text_exist(page):
    for code in inline_code(page):
        if FILE.fullmatch(code):
            assert list(ROOT.glob(code)), code


def test_scenarios(tmp_path):
    """A block of YAML is a scenarios file."""
    file = tmp_path / "scenarios.yaml"
    texts = [block.text for page in PAGES for block in blocks(page) if block.language == "yaml"]
    assert texts
    for text in texts:
        file.write_text(text)
        assert len(read_scenarios(file).scenarios) == 7  # as the page says


def test_every_page_is_in_the_readme():
    there = {link.partition("#")[0] for link in links(ROOT / "README.md")}
    assert {page_id(page) for page in PAGES[1:]} <= there


def test_presets():
    """The table names none that is not there, and all but the single phases of a recipe."""
    (table,) = [table for table in tables(ROOT / "docs/TRAINING.md") if table.head[0] == "preset"]
    named = set(re.findall("`([^`]+)`", " ".join(table.column())))
    folder = ROOT / "flags"
    files = {
        file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.flags")
    }
    assert named <= files
    phases = {file.relative_to(folder).parent.as_posix() for file in folder.rglob("all.flags")}
    assert {name for name in files - named if name.rpartition("/")[0] not in phases} == set()
