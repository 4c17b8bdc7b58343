"""Markdown and CSV: nothing breaks a table, and nothing that is known is lost on the way."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import re

import pytest
from bench_helpers import HOST, STATE, TOOL, make_measurement
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mobile_bench.compare import compare
from mobile_bench.results import Affinity, Delegation, Memory, OpTime, Settings, Verdict
from mobile_bench.summary import summarize
from mobile_bench.table import (
    format_changes,
    format_csv,
    format_profile,
    format_profiles_csv,
    format_table,
)

PHONE = dataclasses.replace(HOST, target="R58", model="Phone 9")


def rows_of(*round_us: float, **changes: object):
    return [make_measurement(round=i, median_us=us, **changes) for i, us in enumerate(round_us)]


def cells(table: str) -> list[list[str]]:
    """The cells of a Markdown table, without its rule."""
    lines = [line[2:-2].split(" | ") for line in table.splitlines()]
    return [[cell.strip() for cell in line] for line in lines[:1] + lines[2:]]


def test_a_table_of_one_device():
    rows = rows_of(10.0, 12.0, 11.0, count=50, p95_us=20.0, init_us=1500.0)
    assert cells(format_table(summarize(rows))) == [
        ["model", "median us [95 %]", "p95 us", "spread", "runs", "init ms", "delegate", "verdict"],
        [
            "a.tflite",
            "11.0 [10.0, 12.0]",
            "20.0",
            "18.2%",
            "150",
            "1.5",
            "xnnpack, 2 partitions, 2 of 7 ops outside",
            "invalid: unstable: rounds differ by 18.2%, more than max_spread=0.1",
        ],
    ]


def test_columns_tell_apart_devices_and_settings():
    rows = [
        make_measurement(),
        make_measurement(device=PHONE),
        make_measurement(device=PHONE, settings=Settings(threads=4, cpus="big")),
    ]
    head, *body = cells(format_table(summarize(rows)))
    assert head[:3] == ["model", "device", "settings"]
    assert [line[1] for line in body] == ["host", "R58 Phone 9", "R58 Phone 9"]
    assert body[2][2] == "threads=4, cpus=big"


def test_the_warmest_battery_is_shown():
    warm, hot = (dataclasses.replace(STATE, battery_celsius=value) for value in (35.5, 36.5))
    rows = [make_measurement(before=warm, after=hot), make_measurement(round=1, after=warm)]
    head, body = cells(format_table(summarize(rows)))
    assert dict(zip(head, body, strict=True))["C"] == "36.5"


def test_the_peak_of_memory_is_shown_where_it_was_watched():
    row = make_measurement(memory=Memory(1.0, 2.0, None))  # benchmark_model tells these unasked
    assert "peak MB" not in format_table(summarize([row]))
    watched = make_measurement(model="b.tflite", memory=Memory(1.0, 2.0, 33.64))
    head, *body = cells(format_table(summarize([row, watched])))
    assert [line[head.index("peak MB")] for line in body] == ["-", "33.6"]


def test_what_is_not_known_is_a_dash():
    row = make_measurement(
        p95_us=None, init_us=None, delegation=Delegation(None), verdict=Verdict(False, ("hot: 1",))
    )
    head, body = cells(format_table(summarize([row])))
    shown = dict(zip(head, body, strict=True))
    assert (shown["p95 us"], shown["spread"], shown["init ms"]) == ("-", "-", "-")
    assert shown["delegate"] == "not told"


def test_delegates_are_told_as_far_as_they_are_known():
    for delegation, told in [
        (Delegation("cpu", 0, 7, 0, {"ADD": 7}, False), "cpu"),
        (Delegation("xnnpack"), "xnnpack"),
        (Delegation("xnnpack", 1, 7, 7, {}, True), "xnnpack, 1 partition"),
        (Delegation("gpu", 3, 10, 8, None, False), "gpu, 3 partitions, 2 of 10 ops outside"),
        (Delegation("gpu", 3, complete=False), "gpu, 3 partitions, ops outside"),
    ]:
        head, body = cells(format_table(summarize([make_measurement(delegation=delegation)])))
        assert dict(zip(head, body, strict=True))["delegate"] == told


def test_notes_stand_behind_the_verdict():
    notes = ("clocks: x", "tool: y, z")
    for verdict, told in [
        (Verdict.of([], notes), "valid (note: clocks: x; tool: y, z)"),
        (Verdict.of(["hot: 1"], notes[:1]), "invalid: hot: 1 (note: clocks: x)"),
    ]:
        summaries = summarize([make_measurement(verdict=verdict)])
        head, body = cells(format_table(summaries))
        assert dict(zip(head, body, strict=True))["verdict"] == told
        (line,) = csv.DictReader(io.StringIO(format_csv(summaries)))
        assert (line["valid"], line["notes"]) == (str(verdict.valid), "; ".join(verdict.notes))


@given(name=st.text(st.characters(), min_size=1), reason=st.text(st.characters(), min_size=1))
def test_no_name_breaks_a_table(name, reason):
    rows = [make_measurement(model=name, verdict=Verdict(False, (f"tool: {reason}",), (reason,)))]
    summaries = summarize(rows)
    tables = [format_table(summaries), format_changes(compare(summaries, summaries))]
    for table in tables:
        lines = table.split("\n")
        assert len(lines) == 3
        assert all(line.isprintable() for line in lines)
        assert len({len(line) for line in lines}) == 1
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_escapes_can_be_read():
    name = "a|b\nc\x1b[31m\udcff.tflite"
    table = format_table(summarize([make_measurement(model=name)]))
    assert r"a\|b\nc\x1b[31m\udcff.tflite" in table


def test_csv_has_all_that_a_summary_knows():
    rows = rows_of(
        *(10.0, 10.5),
        model='a, "b"\nc.tflite',
        device=PHONE,
        affinity=Affinity((0, 1), (0, 1)),
        memory=Memory(1.5, 2.5, None),
        verdict=Verdict(False, ("hot: x", "tool: y, z")),
    )
    rows += rows_of(7.0, model="d.tflite")
    text = format_csv(summarize(rows))
    first, second = csv.DictReader(io.StringIO(text))
    assert first["model"] == r'a, "b"\nc.tflite'
    assert (first["target"], first["device"]) == ("R58", "Phone 9")
    assert [first[name] for name in ("median_us", "low_us", "high_us")] == ["10.25", "10.0", "10.5"]
    assert (first["cores_granted"], first["rounds"], first["runs"]) == ("0 1", "2", "200")
    assert (first["overall_mb"], first["peak_mb"]) == ("2.5", "")
    assert first["valid"] == "False"
    assert first["reasons"] == "hot: x (2 of 2 rounds); tool: y, z (2 of 2 rounds)"
    assert first["threads"] == "1"
    assert (second["model"], second["low_us"], second["valid"]) == ("d.tflite", "", "True")
    assert {field.name for field in dataclasses.fields(Settings)} <= first.keys()


def test_changes_are_a_table():
    before = summarize(rows_of(10.0, 10.0, 10.0, sha256="1" * 64))
    after = summarize(rows_of(20.0, 20.0, 20.0) + rows_of(5.0, model="b.tflite", device=PHONE))
    assert cells(format_changes(compare(before, after))) == [
        ["model", "device", "A us", "B us", "B / A [95 %]", "change", "notes"],
        [
            *("a.tflite", "host", "10.0", "20.0", "2.000 [2.000, 2.000]", "slower"),
            "other file: 10 -> 10 bytes",
        ],
        ["b.tflite", "R58", "-", "5.0", "-", "only in B", ""],
    ]
    head, _ = cells(format_changes(compare(before, after[:1])))
    assert "device" not in head


OPS = (
    OpTime("model/a", "CONV_2D", 10.0, 1, 25.0),
    OpTime("model/b|c", "ADD", 10.0, 3, 75.0),
    OpTime("model/d", "PAD", 0.01, 1, None),
)


def test_the_profile_begins_with_what_takes_longest():
    head, *table = format_profile(make_measurement(profile=OPS)).split("\n\n")
    assert head == "Ops of a.tflite on host:"
    assert cells(table[0]) == [
        ["op", "kind", "mean us", "calls", "share"],
        [r"model/b\|c", "ADD", "10.0", "3", "75.0%"],
        ["model/a", "CONV_2D", "10.0", "1", "25.0%"],
        ["model/d", "PAD", "0.0", "1", "-"],
    ]


def test_profiles_as_csv_are_one_table():
    rows = [make_measurement(profile=OPS), make_measurement(model="b.tflite", profile=OPS[:1])]
    found = list(csv.DictReader(io.StringIO(format_profiles_csv(rows))))
    assert [(op["model"], op["name"]) for op in found] == [
        *(("a.tflite", name) for name in ("model/b|c", "model/a", "model/d")),
        ("b.tflite", "model/a"),
    ]
    assert found[0] == {
        **{"model": "a.tflite", "target": "host", "name": "model/b|c", "kind": "ADD"},
        **{"mean_us": "10.0", "calls": "3", "percent": "75.0"},
    }
    assert found[2]["percent"] == ""


def summary_of(text: str):
    """A summary, and its ops, that have a text wherever a row of somebody else may have one."""
    ops = (OpTime(text, text, 1.0, 1, 100.0),)
    row = make_measurement(
        model=text,
        device=dataclasses.replace(PHONE, target=text, model=text, cpu=text),
        tool=dataclasses.replace(TOOL, version=text),
        delegation=Delegation(text),
        profile=ops,
        verdict=Verdict(False, (f"tool: {text}",)),
    )
    return [*summarize([row]), *summarize([make_measurement()])], row


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1",
    " =1",
    "\n=1",
    "\uff1d1",
    "=cmd|'x'!A0",
    "a;=1+1;b",
    "a; +1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula_in_csv(text):
    summaries, row = summary_of(text)
    for table in (format_csv(summaries), format_profiles_csv([row])):
        for line in csv.DictReader(io.StringIO(table)):
            for cell in line.values():
                assert cell.isprintable()
                for part in cell.split(";"):  # what a cell is where the comma is for decimals
                    assert part.lstrip()[:1] not in ("=", "+", "@", "\uff1d")
                if cell.startswith("-"):
                    float(cell)


def test_numbers_stay_numbers_in_csv():
    row = make_measurement(memory=Memory(-1.5, 2.5, None))
    (line,) = csv.DictReader(io.StringIO(format_csv(summarize([row]))))
    assert float(line["init_mb"]) == -1.5
    assert float(line["median_us"]) == 1.5


MARKUP = [
    "<img src=x onerror=alert(1)>",
    "[click](https://example.com)",
    "![seen](https://example.com/a.png)",
    "https://example.com",
    "www.example.com",
    "a@example.com",
    "&lt;b&gt;",
    "**bold** _it_ ~~no~~ $x$",
    "`<b>`",
    "``<b>",
    "a|<b>|c",
    "a\\",
    "<!-- ",
    "\u202etxt.<b>",
    "\x1b[31mred",
    "[a]: https://example.com",
]


@pytest.mark.parametrize("text", MARKUP)
def test_no_text_is_more_than_text_in_markdown(text):
    """Rendered, a table has the text as it is written out, and no element that is not our own."""
    summaries, row = summary_of(text)
    written = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    changes = format_changes(compare(summaries, summaries[1:]))
    for table in (format_table(summaries), changes, format_profile(row)):
        assert all(line.isprintable() for line in table.splitlines())
        page = MarkdownIt("commonmark").enable("table").render(table)
        tags = set(re.findall(r"</?([a-zA-Z!]\w*)", page))
        assert tags <= {"p", "table", "thead", "tbody", "tr", "th", "td", "code"}
        assert html.escape(written) in page
        for link in re.finditer(r"(?i)https?://|www\.|\w@", re.sub("<code>.*?</code>", "", page)):
            pytest.fail(f"{link[0]} may become a link")
