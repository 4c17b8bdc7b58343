"""docs/PHONES.md: its tables name all columns, reasons and defaults, and it leads to a search."""

from __future__ import annotations

import re

from bench_helpers import STATE, make_measurement
from pages import ROOT, Table, blocks, commands, inline_code, tables

from mobile_bench import cli
from mobile_bench.results import DeviceState, Memory, Settings, Verdict
from mobile_bench.summary import summarize
from mobile_bench.table import format_table

PAGE = ROOT / "docs" / "PHONES.md"
COMMANDS = [words for block in blocks(PAGE) for words in commands(block.text)]


def table(head: str) -> Table:
    """The table whose first column is called so, without code marks in that column."""
    (found,) = [one for one in tables(PAGE) if one.head[0] == head]
    return Table(found.head, [[first.strip("`"), *rest] for first, *rest in found.rows])


def test_it_goes_from_connecting_to_a_search():
    assert [words[0] for words in COMMANDS if words[0].startswith("ofa-")] == [
        "ofa-latency",
        "ofa-search",
    ]
    assert ["mobile-bench", "devices"] in COMMANDS
    assert "mobile-bench clean --target=SERIAL" in inline_code(PAGE)
    measured = [" ".join(words) for words in COMMANDS if len(words) > 3]
    assert any(line.startswith("mobile-bench a.tflite b.tflite --target=all") for line in measured)
    assert any("subnets/*/*.tflite --target=R58M12ABCDE " in line for line in measured)


def test_what_is_called_a_default_is_one(asked):
    lines = [flags for flags in table("wish").column(1) if "(the defaults)" in flags]
    flags = [flag for line in lines for flag in re.findall(r"`(--\w+=[^`]+)`", line)]
    assert len(flags) == 8
    assert cli.main(["mobile-bench", "a.tflite", *flags]) == 0
    assert (asked.settings, asked.rounds, asked.cooldown_secs) == (Settings(), 3, 300.0)


def test_all_columns_and_reasons_are_told():
    warm = make_measurement(
        memory=Memory(1.0, 2.0, 3.0), before=DeviceState(STATE.date, battery_celsius=30.0)
    )
    head = format_table(summarize([warm])).splitlines()[0]
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    assert ["model", *table("column").column()] == columns
    for name, text in zip(("reason", "note"), Verdict.__doc__.split("Attributes:"), strict=True):
        assert sorted(table(name).column()) == sorted(re.findall(r'"([a-z ]+):"', text))
