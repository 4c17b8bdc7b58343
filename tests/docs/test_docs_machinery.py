"""What these tests hold against a page: mistakes of every kind are found."""

from __future__ import annotations

import command_lines
import pages
import pytest

PAGE = """# A *page*, of `code`

## Twice
## Twice

<!-- not run: needs a phone -->
```sh
mobile-bench devices \\
    --adb_path=a    # with a comment
A=1 ofa-eval --workdir='D
IR' &
```

<!-- run by tests/x.py, smaller -->
```python
print()
```

A link to [a page](other.md#there) and a ![picture](a.png), `inline
code`.

    ofa-report --workdir=DIR

| `a` | b |
|---|---|
| c | `d` |
"""


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "PAGE.md"
    file.write_text(PAGE)
    return file


def test_a_page_is_taken_apart(page):
    shell, python, indented = pages.blocks(page)
    assert (shell.language, shell.not_run, shell.run_by) == ("sh", "needs a phone", "")
    assert pages.commands(shell.text) == [
        ["mobile-bench", "devices", "--adb_path=a"],
        ["A=1", "ofa-eval", "--workdir=D\nIR", "&"],
    ]
    assert (python.language, python.not_run, python.run_by) == ("python", "", "tests/x.py")
    assert (indented.language, indented.text) == ("sh", "ofa-report --workdir=DIR\n")
    assert (indented.not_run, indented.run_by) == ("", "")
    assert pages.inline_code(page) == ["code", "inline code", "a", "d"]
    assert pages.links(page) == ["other.md#there", "a.png"]
    assert pages.anchors(page) == {"a-page-of-code", "twice", "twice-1"}
    assert pages.tables(page) == [(["`a`", "b"], [["c", "`d`"]])]


def test_a_quotation_without_an_end():
    with pytest.raises(ValueError, match="no end"):
        pages.commands("ofa-eval --workdir='DIR")


@pytest.mark.parametrize(
    "line",
    [
        "ofa-eval --workdir=DIR --arch=largest",
        "ofa-train --preset=cifar10/largest --data_dir=PATH --workdir=DIR",
        "ofa-predictor --num_archs=300 ...",
        "KEY=1 ofa-report --workdir=DIR &",
        "mobile-bench DIR/subnets/*/*.tflite --threads=2",
        "make quickstart",
        "pytest -m slow tests/docs",
        "python benchmarks/search.py --published=DIR",
        "pip install '.[torch]'",
    ],
)
def test_right_lines(line, asked):
    (words,) = pages.commands(line)
    command_lines.check(words)


@pytest.mark.parametrize(
    "line",
    [
        "ofa-evaluate --workdir=DIR",
        "ofa-eval --workdir=DIR --archs=largest",
        "ofa-eval --workdir=DIR --split=train",
        "ofa-eval largest --workdir=DIR",
        "ofa-train --preset=cifar10/large --workdir=DIR",
        "ofa-search --workdir=DIR --top=0",
        "mobile-bench DIR/subnets/*/*.tflite --thread=2",
        "mobile-bench nowhere/*.tflite",
        "make breakfast",
        "pytest tests/nowhere",
        "python benchmarks/search.py --nothing",
        "pip install '.[nothing]'",
        "cook eggs",
    ],
)
def test_wrong_lines(line, asked):
    (words,) = pages.commands(line)
    with pytest.raises(AssertionError):
        command_lines.check(words)


@pytest.mark.parametrize(
    ("command", "flag", "has"),
    [
        ("ofa-train", "--deterministic", True),
        ("ofa-train", "--nodeterministic", True),
        ("ofa-train", "--precision=float16", True),
        ("ofa-train", "--precision=float8", False),
        ("ofa-train", "--batch_size=many", False),
        ("ofa-train", "--nobatch_size", False),
        ("ofa-search", "--deterministic", False),
        ("mobile-bench", "--cpus=big", True),
        ("mobile-bench", "--cpus=largest", False),
        ("mobile-bench", "--num_archs=3", False),
        ("benchmarks/search.py", "--published", True),
        ("benchmarks/search.py", "--unpublished", False),
    ],
)
def test_flags_of_commands(command, flag, has, asked):
    assert command_lines.has_flag(command, flag) == has
