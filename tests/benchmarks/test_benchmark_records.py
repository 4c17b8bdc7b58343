"""Records: ratios, goals and cells as worked out by hand; CSV and back; the machine's columns."""

from __future__ import annotations

import re
import subprocess
import sys

import machine
import pytest
from records import Record, as_lines, cells, from_row, number, read_csv, report, to_row
from results import Result, read_result

OURS, THEIRS = (3.0, 8.0, 9.0), (2.0, 4.0, 6.0)  # ratios 1.5, 2 and 1.5
CONTEXT = {"date": "2026-01-02T03:04:05+00:00", "seconds": "90", "busy": "no", "quick": "no"}


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
    report(iter(kept), tmp_path / "records.csv")
    assert "1.50 (1.50 to 2.00)  3 seeds" in capsys.readouterr().out
    back = [from_row(row) for row in read_csv(tmp_path / "records.csv")]
    assert back[0] == kept[0]
    assert back[1].ours == (0.123457,)  # six digits


def test_row_without_a_column():
    row = to_row(record())
    del row["against"]
    with pytest.raises(ValueError, match="no column against"):
        from_row(row)


def test_result_and_back(tmp_path):
    result = Result("part", (record(goal=">= 2"), record((1.0,), ())), CONTEXT)
    path = result.write(tmp_path)
    assert read_result(tmp_path, "part") == result
    first, second = read_csv(path)
    derived = ("part", "ours_median", "ratio_median", "ratio_min", "ratio_max", "count", "met")
    assert [first[name] for name in derived] == [
        *("part", "8", "1.5000", "1.5000", "2.0000", "3", "no")
    ]
    assert [second[name] for name in derived] == ["part", "1", "", "", "", "1", ""]


@pytest.mark.parametrize("content", [None, "", "part,setting\n", "part,setting\nx,y\n", "\xff\n"])
def test_unreadable_result_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "part.csv").write_bytes(content.encode("latin-1"))
    assert read_result(tmp_path, "part") is None


def test_caption_says_what_is_no_measurement():
    assert Result("part", (record(),), CONTEXT).caption() == f"{CONTEXT['date']}, 1.5 min"
    context = CONTEXT | {"quick": "yes", "busy": "yes", "others_cores": "0.50"}
    caption = Result("part", (record(),), context).caption()
    assert "quick settings: not a measurement" in caption
    assert "busy: others took 0.50 cores" in caption


def test_machine_and_versions():
    found = machine.machine()
    assert int(found["cores"]) >= 1
    assert float(found["memory_gb"]) > 0.1
    assert machine.versions()["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", machine.versions()["numpy"])


def test_code_hash_is_of_the_scripts_too(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("1")
    before = machine.code_hash([script])
    assert machine.code_hash([script]) == before
    script.write_text("2")
    assert machine.code_hash([script]) != before


class Clock:
    """Stands in for the system's counters: seconds since the start, of all cores and of ours."""

    def __init__(self, monkeypatch, **counters: float):
        self.counters = counters
        for name in ("_cpu_seconds", "_own_seconds"):
            monkeypatch.setattr(machine, name, lambda name=name: self.counters[name])
        monkeypatch.setattr(machine.time, "monotonic", lambda: self.counters["time"])


@pytest.mark.parametrize(("others", "busy"), [(0.5, "no"), (2.0, "yes")])
def test_watch_tells_what_others_took(monkeypatch, others, busy):
    clock = Clock(monkeypatch, time=100.0, _cpu_seconds=1000.0, _own_seconds=7.0)
    watch = machine.Watch()
    clock.counters.update(time=110.0, _cpu_seconds=1015.0 + others, _own_seconds=22.0)
    found = watch.stop()
    assert (found["seconds"], found["others_cores"]) == ("10", f"{others / 10:.2f}")
    assert found["busy"] == busy


def test_own_seconds_count_children_that_ended():
    before = machine._own_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert machine._own_seconds() > before
    assert machine._cpu_seconds() > 0
