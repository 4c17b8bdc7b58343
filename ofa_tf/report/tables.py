"""Tables of results.json, exported files and fronts: text for a terminal, Markdown for a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ofa_tf.names import printable
from ofa_tf.report.measures import measure_label

_MISSING = "-"
_FRONT_ROWS = 20
_IN_MARKDOWN = re.compile(r"[\\`*\[\]<>|&]")  # what makes links, HTML and columns of a name


class _Column(NamedTuple):
    """One column of numbers: where they are in a row and how they are written."""

    group: str
    head: str
    path: tuple[str, ...]
    scale: float
    decimals: int


_LATENCY, _ACCURACY, _FILE = "latency (ms)", "accuracy (%)", "file (kB)"
_PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8", "qat")


def _of_formats(group: str, field: str, prefix: str, scale: float, decimals: int) -> list[_Column]:
    """A column for each TFLite format."""
    return [_Column(group, p, (field, prefix + p), scale, decimals) for p in _PRECISIONS]


_COLUMNS = (
    _Column("", "input (px)", ("resolution",), 1, 0),
    _Column(_LATENCY, "budget", ("budget_ms",), 1, 2),
    _Column(_LATENCY, "predicted", ("predicted_latency_ms",), 1, 2),
    *_of_formats(_LATENCY, "measured_latency_ms", "", 1, 2),
    _Column(_ACCURACY, "predicted", ("predicted_accuracy",), 100, 1),
    _Column(_ACCURACY, "supernet", ("evaluated_accuracy",), 100, 1),
    _Column(_ACCURACY, "Keras", ("accuracy", "keras"), 100, 1),
    *_of_formats(_ACCURACY, "accuracy", "tflite_", 100, 1),
    _Column("", "MACs (M)", ("macs",), 1e-6, 1),
    _Column("", "params (k)", ("params",), 1e-3, 1),
    *_of_formats(_FILE, "file_bytes", "tflite_", 1e-3, 0),
)

_AGREEMENT, _OPS = "same class as (%)", "operations"
_FILE_COLUMNS = (
    _Column("", "size (kB)", ("bytes",), 1e-3, 0),
    _Column("", "arena (kB)", ("arena_bytes",), 1e-3, 0),
    _Column(_OPS, "all", ("ops",), 1, 0),
    _Column(_OPS, "outside", ("num_outside",), 1, 0),
    _Column(_OPS, "partitions", ("delegate_partitions",), 1, 0),
    _Column(_AGREEMENT, "supernet", ("supernet_agreement",), 100, 1),
    _Column(_AGREEMENT, "Keras", ("keras_agreement",), 100, 1),
    _Column("", "off by (%)", ("relative_deviation",), 100, 3),
    _Column("", "accuracy (%)", ("accuracy",), 100, 2),
)


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as aligned text, without a newline at its end.

    Two lines of heads with units, a rule, then one line per row of results.json. A value that a
    row lacks (a format that was not exported) is "-"; a column that every row lacks is left out.
    """
    return _text_table("subnet", _COLUMNS, rows)


def file_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same for exported files: a line for each, with its name and its entry of card.json.

    "off by" is the largest deviation of an output from the Keras model's, relative to the largest
    output; "outside" are operations that the delegate does not take.
    """
    counted = [
        {**row, "num_outside": sum(row["ops_outside"].values())} if "ops_outside" in row else row
        for row in rows
    ]
    return _text_table("file", _FILE_COLUMNS, counted)


def front_table(rows: Sequence[Mapping[str, Any]], measure: str) -> str:
    """Up to twenty rows of a front file as aligned text, spread evenly, both ends included.

    Args:
        rows: with `arch`, `predicted_accuracy` and the measure, by rising cost.
        measure: such as "macs_m".
    """
    count = min(_FRONT_ROWS, len(rows))
    places = np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))
    head = f"{measure_label(measure):>16}  accuracy (%)  input (px)  depths"
    lines = [head, "-" * len(head)]
    for place in places:
        row = rows[place]
        arch = row["arch"]
        lines.append(
            f"{row[measure]:>16.4g}  {100 * row['predicted_accuracy']:>12.2f}  {arch['r']:>10}  "
            f"{' '.join(map(str, arch['d']))}"
        )
    return "\n".join(lines)


def _text_table(
    first: str, all_columns: Sequence[_Column], rows: Sequence[Mapping[str, Any]]
) -> str:
    columns, cells = _cells(all_columns, rows)
    heads = [first, *(column.head for column in columns)]
    widths = [max(map(len, texts)) for texts in zip(heads, *cells, strict=True)]
    groups = _group_line(["", *(column.group for column in columns)], widths)
    lines = [_aligned(heads, widths), "-" * (sum(widths) + 2 * len(widths) - 2)]
    return "\n".join([groups, *lines, *(_aligned(row, widths) for row in cells)])


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same table in Markdown, without a newline at its end."""
    columns, cells = _cells(_COLUMNS, rows)
    heads = ["subnet", *(f"{c.group.replace(' (', f' {c.head} (') or c.head}" for c in columns)]
    rule = [":--", *("--:" for _ in columns)]
    escaped = ([_IN_MARKDOWN.sub(r"\\\g<0>", cell) for cell in row] for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *escaped))


def table_cells(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """The same table as group and head of each column but the first, and the texts of each row."""
    columns, cells = _cells(_COLUMNS, rows)
    return [(column.group, column.head) for column in columns], cells


def _cells(
    columns: Sequence[_Column], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[_Column], list[list[str]]]:
    """The columns that some row fills, and each row's texts with its name first."""
    columns = [c for c in columns if any(_value(row, c) is not None for row in rows)]
    latencies = [_value(row, c) for row in rows for c in columns if c.group == _LATENCY]
    if any(value is not None and value < 1 for value in latencies):
        columns = [c._replace(decimals=3) if c.group == _LATENCY else c for c in columns]
    return columns, [[_name(row), *(_text(row, c) for c in columns)] for row in rows]


def _name(row: Mapping[str, Any]) -> str:
    return printable(str(row["name"])).replace("\n", r"\n")


def _value(row: Mapping[str, Any], column: _Column) -> float | None:
    value: Any = row
    for key in column.path:
        value = (value or {}).get(key)
    return None if value is None else value * column.scale


def _text(row: Mapping[str, Any], column: _Column) -> str:
    value = _value(row, column)
    return _MISSING if value is None else f"{value:.{column.decimals}f}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line: the name to the left, numbers to the right, two spaces between."""
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([cells[0].ljust(widths[0]), *numbers])


def _group_line(groups: Sequence[str], widths: list[int]) -> str:
    """The upper line of heads: each group's name centered over its columns.

    Widens the last column of a group in `widths` where the name is longer than the columns.
    """
    parts, start = [], 0
    while start < len(groups):
        end = start + 1
        while groups[start] and end < len(groups) and groups[end] == groups[start]:
            end += 1
        span = sum(widths[start:end]) + 2 * (end - start - 1)
        missing = max(0, len(groups[start]) - span)
        widths[end - 1] += missing
        fill = "-" if groups[start] and end - start > 1 else " "
        parts.append(_centered(groups[start], span + missing, fill))
        start = end
    return "  ".join(parts).rstrip()


def _centered(name: str, width: int, fill: str) -> str:
    return (f" {name} " if len(name) + 2 <= width else name).center(width, fill)
