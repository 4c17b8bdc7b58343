"""Records: ratios, goals and cells as worked out by hand; JSON and back; what the machine is."""

from __future__ import annotations

import re
import sys

import machine
import pytest
from records import Record, as_lines, cells, from_json, in_turn, number, report

from ofa_tf.files import read_json

OURS, THEIRS = (3.0, 8.0, 9.0), (2.0, 4.0, 6.0)  # ratios 1.5, 2 and 1.5


def record(ours=OURS, reference=THEIRS, **fields) -> Record:
    return Record("a, b", "train step", "images/s", ours, reference, **fields)


def test_ratios_are_of_pairs():
    assert record().ratios == (1.5, 2.0, 1.5)
    assert record(reference=()).ratios == ()


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        ("", None),
        (">= 1.5", True),  # of the median, 1.5
        (">= 1.6", False),
        ("<= 1.5", True),
        ("all >= 1.5", True),
        ("all <= 1.9", False),  # one ratio is 2
    ],
)
def test_goal_is_of_the_ratios(goal, met):
    assert record(goal=goal).met is met


def test_goal_without_another_side_is_of_the_values():
    assert record(reference=(), goal="<= 8").met is True
    assert record(reference=(), goal="all <= 8").met is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ours": ()}, "0 values"),
        ({"reference": (1.0,)}, "3 values and 1 of the reference"),
        ({"goal": "at least 2"}, "expected one like"),
    ],
)
def test_what_is_no_record(fields, message):
    with pytest.raises(ValueError, match=message):
        record(**fields)


def test_cells():
    kept = record(against="PyTorch reference", goal=">= 2")
    assert cells(kept) == (
        "train step, images/s",
        "8",
        "4",
        "1.50 (1.50 to 2.00)",
        "3 repeats",
        "PyTorch reference",
        ">= 2: missed",
    )
    assert cells(record((14.0,), ())) == ("train step, images/s", "14", "", "", "", "", "")


@pytest.mark.parametrize(
    ("ours", "text"),
    [
        ((30.0,), "15"),
        ((3.0,), "1.50"),
        ((2.002, 2.004, 2.0), "1.001 (1.000 to 1.002)"),  # of near ones, three digits
        ((2.002, 2.1, 2.0), "1.00 (1.00 to 1.05)"),
    ],
)
def test_ratio_of_a_cell(ours, text):
    assert cells(record(ours, (2.0,) * len(ours)))[3] == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2473163.0, "2,473,163"), (131.24, "131.2"), (0.016543, "0.01654"), (1.0, "1")],
)
def test_number(value, text):
    assert number(value) == text


def test_settings_stand_above_their_records():
    other = Record("c", "x", "s", (1.0,))
    lines = list(as_lines([record(), record(), other]))
    assert [line for line in lines if not line.startswith("    ")] == ["  a, b", "  c"]
    assert len(lines) == 5


def test_report_prints_and_writes(tmp_path, capsys):
    kept = [record(goal="all >= 1", of="seeds"), record((0.1234567,), ())]
    report(iter(kept), tmp_path / "records.json")
    assert "1.50 (1.50 to 2.00)  3 seeds" in capsys.readouterr().out
    assert [from_json(row) for row in read_json(tmp_path / "records.json")] == kept


def test_subjects_take_turns_and_the_first_turn_does_not_count():
    calls = []

    def subject(name):
        def run():
            calls.append(name)
            return float(len(calls))

        return run

    assert in_turn({name: subject(name) for name in "ab"}, 2) == {"a": (3, 5), "b": (4, 6)}
    assert calls == ["a", "b"] * 3


def test_machine_and_versions():
    found = machine.machine()
    assert int(found["cores"]) >= 1
    assert float(found["memory_gb"]) > 0.1
    assert machine.versions()["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", machine.versions()["numpy"])
