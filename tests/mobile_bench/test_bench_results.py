"""The record and its files: strict both ways, tolerant of a killed writer only."""

from __future__ import annotations

import copy
import dataclasses
import errno
import itertools
import json
import os
import platform
import subprocess
import sys
import threading

import pytest
from bench_helpers import HOST, STATE, make_measurement
from hypothesis import given
from hypothesis import strategies as st

from mobile_bench import table
from mobile_bench.compare import compare
from mobile_bench.errors import FailureError, UsageError
from mobile_bench.results import (
    VERSION,
    Affinity,
    Delegation,
    Measurement,
    Memory,
    OpTime,
    Settings,
    Verdict,
    parse_cpus,
)
from mobile_bench.rows import RowWriter, read_rows
from mobile_bench.summary import summarize

ROW = make_measurement()
# Every optional part filled, and a phone's state before and after.
FULL = make_measurement(
    settings=Settings(cpus="big", max_celsius=None),
    affinity=Affinity((4, 5), None),
    memory=Memory(1.5, 2.5, None),
    profile=(OpTime("conv", "CONV_2D", 1.5, 2, 60.0), OpTime("add", "ADD", 0.5, 1, None)),
    device=dataclasses.replace(HOST, abis=("arm64-v8a", "armeabi-v7a"), core_max_khz=(1, None)),
    before=dataclasses.replace(STATE, battery_percent=80, charging=True, battery_celsius=31.5),
    after=dataclasses.replace(STATE, core_khz=(1, None), governors=("walt", None), screen_on=False),
)
core_numbers = st.none() | st.lists(st.integers(0, 99)).map(tuple)


@given(
    model=st.text(st.characters()),  # lone surrogates stand for bytes that are not UTF-8
    inputs=st.lists(st.text()).map(tuple),
    affinity=st.builds(Affinity, core_numbers, core_numbers),
    reasons=st.lists(st.text(), min_size=1).map(tuple),
    outside=st.none() | st.dictionaries(st.text(), st.integers(0, 2**63 - 1)),
    mean=st.floats(0, allow_infinity=False),
)
def test_a_record_survives_its_json_line(model, inputs, affinity, reasons, outside, mean):
    row = dataclasses.replace(
        FULL,
        model=model,
        inputs=inputs,
        affinity=affinity,
        verdict=Verdict(False, reasons, reasons[::-1]),
        delegation=Delegation(None, ops_outside=outside),
        timings=dataclasses.replace(ROW.timings, mean_us=mean, warmup_mean_us=None),
    )
    assert Measurement.from_dict(json.loads(json.dumps(row.to_dict(), allow_nan=False))) == row


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["sha256"], ..., "row: missing sha256"),
        (["version"], ..., f"row of version 1 of .*, this is version {VERSION}; measure again"),
        (["version"], "new", "row of version 'new'"),
        (["version"], VERSION + 1, f"row of version {VERSION + 1} of .*; measure again"),
        (["version"], True, "row of version True"),
        (["round"], "0", "round: expected int, got '0'"),
        (["after", "core_limit_khz"], [10**400], r"core_limit_khz\[0\]: expected int, got 1000"),
        (["timings", "mean_us"], ..., "timings: missing mean_us"),
        (["verdict", "notes"], "x", "verdict.notes: expected"),
        (["timings", "median_us"], -5.0, "timings.median_us: expected 0 or more, got -5"),
        (["timings", "count"], 1.5, "timings.count: expected int, got 1.5"),
        (["timings", "count"], True, "timings.count: expected int, got True"),
        (["timings", "mean_us"], "1", "timings.mean_us: expected float, got '1'"),
        (["affinity", "asked"], [1, None], r"affinity.asked\[1\]: expected int"),
        (["affinity", "granted"], {}, "affinity.granted: expected"),
        (["profile", 0, "calls"], None, r"profile\[0\].calls: expected float, got None"),
        (["device"], [], "device: expected an object"),
        (["before", "charging"], 1, "before.charging: expected bool, got 1"),
        (["settings", "threads"], 0, "threads: expected 1 to 64, got 0"),
        (["verdict", "valid"], False, "verdict: reasons"),
        (["delegation", "ops_outside", "ADD"], "x", "delegation.ops_outside.ADD: expected int"),
    ],
)
def test_a_wrong_row_names_the_key(path, value, message):
    row = json.loads(json.dumps(FULL.to_dict()))
    *parents, key = path
    place = row
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    with pytest.raises(ValueError, match=message):
        Measurement.from_dict(row)


def test_rows_from_before_notes_are_read():
    row = json.loads(json.dumps(ROW.to_dict()))
    for part in ("verdict", "before", "after"):
        del row[part]["notes"]
    assert Measurement.from_dict(row) == ROW


def test_rows_of_another_minor_version_are_read(tmp_path):
    """One written before a field with a default came, and one of a later version with others."""
    older, newer = (json.loads(json.dumps(FULL.to_dict())) for _ in range(2))
    del older["verdict"]["notes"]
    newer["version"] = VERSION + 0.1
    newer["color"] = "red"
    newer["after"]["humidity"] = {"percent": 40}
    newer["profile"][0]["joules"] = 1.5
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (older, newer, newer)))
    rows = read_rows(path)
    plain = dataclasses.replace(FULL, verdict=dataclasses.replace(FULL.verdict, notes=()))
    assert rows.measurements == [plain, FULL, FULL]
    assert rows.notice == (
        f"{path}: fields that this version does not know are left out: after.humidity, color, "
        "profile.joules"
    )
    with RowWriter(path) as writer:
        writer.write(FULL)
    assert read_rows(path).measurements == [plain, FULL, FULL, FULL]


def test_rows_are_appended_and_read_back(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    rows = [make_measurement(model=f"{i}.tflite") for i in range(3)]
    with RowWriter(path) as writer:
        writer.write(rows[0])
        assert read_rows(path).measurements == rows[:1]  # before the file is closed
    with RowWriter(path) as writer:
        writer.write(rows[1])
        writer.write(rows[2])
    assert read_rows(path) == (rows, None)


def test_a_row_is_fsynced_before_write_returns(tmp_path, monkeypatch):
    synced = []
    real_fsync = os.fsync

    def fsync(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with RowWriter(tmp_path / "rows.jsonl") as writer:
        writer.write(ROW)
        assert synced == [(tmp_path / "rows.jsonl").stat().st_size]


@given(cut=st.integers(1))
def test_an_unfinished_last_line_is_left_out_and_told(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    with RowWriter(path) as writer:
        writer.write(ROW)
        writer.write(ROW)
    whole = path.read_bytes()
    line = len(whole) // 2
    path.write_bytes(whole[: line + 1 + cut % (line - 2)])
    rows = read_rows(path)
    assert rows.measurements == [ROW]
    assert f"{path}, line 2" in rows.notice
    with RowWriter(path) as writer:
        writer.write(ROW)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("begin", [b"", b'{"ver', b'{"version": 2, "session": "x'])
def test_the_zeros_of_a_power_cut_are_cut_off(tmp_path, begin):
    path = tmp_path / "rows.jsonl"
    good = json.dumps(ROW.to_dict()).encode() + b"\n"
    path.write_bytes(good + begin + bytes(5000))
    with RowWriter(path) as writer:
        assert writer.notice == f"{path}, line 2: the unfinished last row is left out"
    assert path.read_bytes() == good


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW.to_dict()))
    assert read_rows(path) == ([ROW], None)
    with RowWriter(path) as writer:
        writer.write(ROW)
    assert read_rows(path) == ([ROW, ROW], None)


@pytest.mark.parametrize(
    "damage",
    [
        *(b"{", b"{}", b"", b"[]", b"\xff", b"[" * 100_000, b'{"x": NaN}'),
        *(b"null", b"5", b'"x"', b"[[]]", b"true", b"1e999", b"[" * 900 + b"]" * 900),
        b'{"version": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"9" * 5000,
    ],
)
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "rows.jsonl"
    good = json.dumps(ROW.to_dict()).encode()
    path.write_bytes(good + b"\n" + damage + b"\n" + good + b"\n")
    with pytest.raises(FailureError, match=r"rows.jsonl, line 2: not a measurement"):
        read_rows(path)


def test_a_number_that_is_none_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW.to_dict()).replace('"mean_us": 1.5', '"mean_us": NaN') + "\n")
    with pytest.raises(FailureError, match="line 1: not a measurement: NaN is no number"):
        read_rows(path)


def test_rows_of_version_1_are_refused_before_anything_is_appended(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"model": "a.tflite", "timings": {}}) + "\n")
    before = path.read_bytes()
    for use in (read_rows, RowWriter):
        with pytest.raises(FailureError, match=r"rows.jsonl, line 1: .* row of version 1 .* again"):
            use(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"a": 1', b"TFL3\0\n\0"])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(FailureError, match=r"notes.txt(, line 1: not a|: holds something else)"):
        RowWriter(path)
    assert path.read_bytes() == content


def test_threads_write_whole_rows(tmp_path):
    path = tmp_path / "rows.jsonl"

    def write(model: str) -> None:
        for index in range(20):
            writer.write(make_measurement(model=model, round=index))

    with RowWriter(path) as writer:
        threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = read_rows(path).measurements
    for name in ("a", "b", "c"):
        assert [row.round for row in rows if row.model == name] == list(range(20))


def test_a_full_disk_leaves_whole_rows(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    with RowWriter(path) as writer:
        writer.write(ROW)
        whole = path.read_bytes()

        def fsync(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(FailureError, match=r"rows.jsonl: cannot be written: No space left"):
            writer.write(ROW)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 0},
        {"num_runs": 0},
        {"num_runs": 100_001},
        {"warmup_runs": -1},
        {"min_secs": float("nan")},
        {"min_secs": 2.0, "max_secs": 1.0},
        {"max_secs": float("inf")},
        {"max_spread": -0.1},
        {"max_celsius": -1.0},
        {"delegate": "none"},
        {"screen": "dim"},
        {"cpus": "fast"},
    ],
)
def test_settings_out_of_range_are_named(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        Settings(**changes)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0", (0,)),
        ("7,0-2,1", (0, 1, 2, 7)),
        ("0xf0", (4, 5, 6, 7)),
        ("0X1", (0,)),
        ("1023", (1023,)),
        ("", None),
        ("0x0", None),
        ("3-1", None),
        ("1024", None),
        ("0-9999", None),
        ("1,", None),
        ("-1", None),
        ("1;reboot", None),
        ("f0", None),
        ("\u0661", None),
    ],
)
def test_cores_are_numbers_ranges_or_a_mask(text, cores):
    if cores is None:
        with pytest.raises(UsageError, match="cpus: expected big"):
            parse_cpus(text)
    else:
        assert parse_cpus(text) == cores


WHOLE = make_measurement(
    memory=Memory(1.0, 2.0, 3.0), profile=(OpTime("a", "b", 1.0, 1.0, 1.0),)
).to_dict()
ODD = [None, True, -1, 1e300, 10**400, "\x1b[31m\ud800", "x" * 10_000, [], [[]], {"a": 1}]


def places(value, place=()):
    """The keys and indices that lead to each value within a JSON value."""
    yield place
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*place, key))


def replaced(value, place, other):
    """The JSON value with another one at a place."""
    if not place:
        return other
    copied = copy.copy(value)
    copied[place[0]] = replaced(value[place[0]], place[1:], other)
    return copied


def test_whatever_a_row_holds_is_used_or_refused_in_one_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    refusals = []
    for place, odd in itertools.product(places(WHOLE), ODD):
        path.write_text(json.dumps(replaced(WHOLE, place, odd)) + "\n")
        try:
            rows = read_rows(path).measurements
        except FailureError as error:
            refusals.append(str(error))
            continue
        summaries = summarize(rows)
        changes = table.format_changes(compare(summaries, summaries))
        for text in (table.format_table(summaries), table.format_csv(summaries), changes):
            text.encode()
    assert len(refusals) > 500
    for line in refusals:
        assert line.isprintable()
        assert line.startswith(f"{path}, line 1: not a measurement: ")
        assert len(line) < len(str(path)) + 400


def test_one_process_at_a_time_appends(tmp_path):
    path = tmp_path / "rows.jsonl"
    with RowWriter(path) as writer:
        writer.write(ROW)
        with pytest.raises(FailureError) as caught:
            RowWriter(path)
        who = f"process {os.getpid()} on {platform.node()}"
        assert str(caught.value) == (
            f"{path}: {who} appends to it; wait for its end, or give another file"
        )
        assert read_rows(path).measurements == [ROW]  # reading stays free
        writer.write(ROW)
    with RowWriter(path) as writer:
        writer.write(ROW)
    assert len(read_rows(path).measurements) == 3


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
    path = tmp_path / "rows.jsonl"
    opened = f"w = mobile_bench.rows.RowWriter({str(path)!r})"
    code = f"import mobile_bench.rows; {opened}; print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.readline()
        with pytest.raises(FailureError, match=rf"process {process.pid} on .* appends to it"):
            RowWriter(path)
        process.kill()
        process.wait()
    with RowWriter(path) as writer:
        writer.write(ROW)


def test_a_file_without_locks_is_written(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with RowWriter(tmp_path / "rows.jsonl") as writer:
        writer.write(ROW)
    assert read_rows(tmp_path / "rows.jsonl").measurements == [ROW]


def test_a_file_that_is_removed_while_it_is_opened_is_told(tmp_path, monkeypatch):
    """By a process that had it and got no row: what is appended then would be lost."""
    path = tmp_path / "rows.jsonl"
    monkeypatch.setattr("fcntl.flock", lambda *_: path.unlink())
    with pytest.raises(FailureError, match=r"rows.jsonl: was removed just now; run the same again"):
        RowWriter(path)


def test_a_file_that_got_no_row_is_not_left(tmp_path):
    with RowWriter(tmp_path / "rows.jsonl"):
        assert (tmp_path / "rows.jsonl").exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.jsonl").touch()
    with RowWriter(tmp_path / "empty.jsonl"):
        pass
    assert (tmp_path / "empty.jsonl").exists()  # it was there before
