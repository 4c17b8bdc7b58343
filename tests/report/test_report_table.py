"""The table of results: what is in which column, in which unit, and that it lines up."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report_helpers import results

from ofa_tf.report import front_table, markdown_table, text_table

ROW = {
    "name": "fast",
    "budget_ms": 2.0,
    "predicted_latency_ms": 1.954,
    "measured_latency_ms": {"float32": 2.016, "int8": 1.5},
    "predicted_accuracy": 0.7654,
    "accuracy": {"keras": 0.7666, "tflite_float32": 0.7665, "tflite_int8": 0.75},
    "macs": 12_345_678,
    "params": 98_765,
    "resolution": 28,
    "file_bytes": {"tflite_float32": 412_600, "tflite_int8": 141_400},
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_names_every_column_with_its_unit():
    head, rule, row = markdown_table([ROW]).splitlines()
    assert dict(zip(cells(head), cells(row), strict=True)) == {
        "subnet": "fast",
        "input (px)": "28",
        "latency budget (ms)": "2.00",
        "latency predicted (ms)": "1.95",
        "latency float32 (ms)": "2.02",
        "latency int8 (ms)": "1.50",
        "accuracy predicted (%)": "76.5",
        "accuracy Keras (%)": "76.7",
        "accuracy float32 (%)": "76.6",
        "accuracy int8 (%)": "75.0",
        "MACs (M)": "12.3",
        "params (k)": "98.8",
        "file float32 (kB)": "413",
        "file int8 (kB)": "141",
    }
    assert cells(rule) == [":--", *["--:"] * 13]


def test_text_has_the_same_numbers_as_markdown():
    rows, _ = results("ofa_mbv3_tiny", 4)
    text = [line.split() for line in text_table(rows).splitlines()[3:]]
    assert text == [cells(line) for line in markdown_table(rows).splitlines()[2:]]


def test_text_columns_line_up_under_their_heads():
    rows, _ = results("ofa_mbv3_cifar", 4)
    rows[2]["name"] = "a_much_longer_name"
    groups, heads, rule, *lines = text_table(rows).splitlines()
    assert {len(line) for line in (heads, rule, *lines)} == {len(rule)}
    ends = [[match.end() for match in re.finditer(r"\S+", line)][1:] for line in lines]
    assert all(row == ends[0] for row in ends)
    head_ends = {match.end() for match in re.finditer(r"\S+( \(\S+\))?", heads)}
    assert set(ends[0]) <= head_ends
    for name, first, last in (("latency (ms)", "budget", "int8"), ("file (kB)", "float32", "int8")):
        start = groups.index(name)
        span = heads[heads.rindex(first, 0, start + len(name)) :]
        assert span.startswith(first)
        assert last in span


def test_group_wider_than_its_column_still_lines_up():
    only_int8 = {"name": "a", "measured_latency_ms": {"int8": 2.0}}
    groups, heads, rule, row = text_table([only_int8]).splitlines()
    assert groups.endswith("latency (ms)")
    assert len(groups) == len(heads) == len(rule) == len(row)


def test_what_no_row_has_is_no_column_and_what_one_lacks_is_a_dash():
    keras_only = {**ROW, "name": "slow", "accuracy": {"keras": 0.8}, "file_bytes": None}
    table = markdown_table([keras_only])
    assert "accuracy Keras (%)" in table
    assert "accuracy int8 (%)" not in table
    assert "file" not in table
    both = markdown_table([ROW, keras_only]).splitlines()
    row = dict(zip(cells(both[0]), cells(both[3]), strict=True))
    assert (row["accuracy Keras (%)"], row["accuracy int8 (%)"]) == ("80.0", "-")


def test_latencies_below_a_millisecond_get_a_third_decimal():
    table = markdown_table([{**ROW, "predicted_latency_ms": 0.0456}])
    assert "| 2.000 | 0.046 | 2.016 | 1.500 |" in table


def test_name_cannot_break_the_markdown():
    head, _, row = markdown_table([{**ROW, "name": "a|b"}]).splitlines()
    assert r"| a\|b |" in row
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", head))


EVIL = "a\x1b[31m\u202eb\n[x](y) <b>|"


def test_a_name_of_others_is_text_in_a_terminal_and_in_markdown():
    text = text_table([ROW | {"name": EVIL}]).splitlines()
    assert len(text) == len(text_table([ROW]).splitlines())
    assert r"a\x1b[31m\u202eb\n[x](y) <b>|" in text[-1]
    row = markdown_table([ROW | {"name": EVIL}]).splitlines()[-1]
    assert row.startswith(r"| a\\x1b\[31m\\u202eb\\n\[x\](y) \<b\>\| | 28 |")


ARCH = {"ks": [3], "e": [3], "d": [2, 3], "r": 28}


def front(count: int) -> list[dict]:
    return [
        {"arch": ARCH, "predicted_accuracy": 0.5 + i / 1000, "macs_m": 1.25 * (i + 1)}
        for i in range(count)
    ]


def test_table_of_a_short_front():
    head, rule, first, second = front_table(front(2), "macs_m").splitlines()
    assert head.split() == ["MACs", "(M)", "accuracy", "(%)", "input", "(px)", "depths"]
    assert rule == "-" * len(head)
    assert first.split() == ["1.25", "50.00", "28", "2", "3"]
    assert second.split() == ["2.5", "50.10", "28", "2", "3"]


def test_table_of_a_long_front_keeps_both_ends():
    lines = front_table(front(333), "macs_m").splitlines()[2:]
    assert len(lines) == 20
    assert lines[0].split()[0] == "1.25"
    assert float(lines[-1].split()[0]) == pytest.approx(333 * 1.25, rel=1e-3)
    costs = [float(line.split()[0]) for line in lines]
    assert np.diff(costs).min() > 0.8 * np.diff(costs).max()
