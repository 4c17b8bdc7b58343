"""The record, its statistics and its files: strict both ways, tolerant of a killed writer only."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from array import array

import numpy as np
import pytest
from bench_helpers import make_measurement
from hypothesis import given
from hypothesis import strategies as st

from mobile_bench.errors import FailureError, UsageError
from mobile_bench.results import Delegation, Measurement, Settings, Verdict
from mobile_bench.rows import RowWriter, read_rows
from mobile_bench.table import format_table
from mobile_bench.timings import Round, judge, summarize

ROW = make_measurement()
XNNPACK = Delegation("xnnpack", 1, 3, {})


@given(
    model=st.text(st.characters()),  # lone surrogates stand for bytes that are not UTF-8
    inputs=st.lists(st.text()).map(tuple),
    cpus=st.none() | st.lists(st.integers(0, 99)).map(tuple),
    reasons=st.lists(st.text(), min_size=1).map(tuple),
    outside=st.dictionaries(st.text(), st.integers(0)),
    mean=st.floats(0, allow_infinity=False),
)
def test_a_record_survives_its_json_line(model, inputs, cpus, reasons, outside, mean):
    row = make_measurement(
        model=model,
        inputs=inputs,
        cpus=cpus,
        verdict=Verdict(False, reasons),
        delegation=Delegation("none", 0, 7, outside),
        timings=dataclasses.replace(ROW.timings, mean_us=mean, warmup_mean_us=None, spread=None),
    )
    assert Measurement.from_dict(json.loads(json.dumps(row.to_dict(), allow_nan=False))) == row


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["sha256"], ..., "row: missing sha256"),
        (["color"], "red", "row: unknown color"),
        (["timings", "p90_us"], ..., "timings: missing p90_us"),
        (["timings", "count"], 1.5, "timings.count: expected int, got 1.5"),
        (["timings", "count"], True, "timings.count: expected int, got True"),
        (["timings", "mean_us"], "1", "timings.mean_us: expected float, got '1'"),
        (["timings", "round_medians_us"], [1, None], r"timings.round_medians_us\[1\]"),
        (["cpus"], {}, "cpus: expected"),
        (["device"], [], "device: expected an object"),
        (["settings", "threads"], 0, "threads: expected 1 to 64, got 0"),
        (["verdict", "valid"], False, "verdict: reasons"),
        (["delegation", "ops_outside", "ADD"], "x", "delegation.ops_outside.ADD: expected int"),
    ],
)
def test_a_wrong_row_names_the_key(path, value, message):
    row = json.loads(json.dumps(ROW.to_dict()))
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


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW.to_dict()))
    assert read_rows(path) == ([ROW], None)
    with RowWriter(path) as writer:
        writer.write(ROW)
    assert read_rows(path) == ([ROW, ROW], None)


@pytest.mark.parametrize("damage", [b"{", b"", b"[]", b"\xff", b"[" * 100_000, b'{"x": NaN}'])
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


times = st.lists(st.integers(0, 10**9), min_size=1, max_size=50)


@given(rounds=st.lists(times, min_size=1, max_size=4), warmup=times)
def test_statistics_agree_with_numpy(rounds, warmup):
    timings = summarize([Round(5000, array("q", warmup), array("q", one)) for one in rounds])
    runs = np.concatenate(rounds) / 1000
    expected = {
        "mean_us": runs.mean(),
        "std_us": runs.std(),
        "min_us": runs.min(),
        "max_us": runs.max(),
        **{
            f"{name}_us": np.percentile(runs, percent)
            for name, percent in (("median", 50), ("p5", 5), ("p90", 90), ("p95", 95))
        },
    }
    for name, value in expected.items():
        assert getattr(timings, name) == pytest.approx(value, rel=1e-9, abs=1e-6), name
    medians = [np.median(one) / 1000 for one in rounds]
    assert timings.round_medians_us == pytest.approx(medians)
    assert (timings.count, timings.init_us) == (len(runs), 5)
    assert timings.warmup_count == len(warmup) * len(rounds)
    assert timings.warmup_mean_us == pytest.approx(np.mean(warmup) / 1000)
    assert timings.first_us == warmup[0] / 1000
    if len(rounds) == 1 or not timings.median_us:
        assert timings.spread is None
    else:
        assert timings.spread == pytest.approx(np.ptp(medians) / np.median(runs))


def test_without_warm_up_the_first_run_is_the_first():
    timings = summarize([Round(1, array("q"), array("q", [3000, 1000]))])
    assert (timings.first_us, timings.warmup_mean_us, timings.warmup_count) == (3.0, None, 0)


@pytest.mark.parametrize(
    ("changes", "cpus", "delegation", "rounds", "reasons"),
    [
        ({}, (0, 1), XNNPACK, [[10, 10], [10, 10]], []),
        ({}, (0, 1), XNNPACK, [[100, 100], [110, 110]], []),
        ({}, (0, 1), XNNPACK, [[100, 100], [112, 112]], ["unstable: round medians differ by 11."]),
        ({}, (0, 1), XNNPACK, [[10, 10], [10]], ["too few runs: 1 of 2 in a round, ended by"]),
        ({}, None, Delegation("none", 0, 1, {"ADD": 1}), [[9, 9]], ["fallback: xnnpack was"]),
        ({"cpus": (0,)}, (0, 1), XNNPACK, [[9, 9]], ["affinity: cpus (0,) were asked for, (0, 1)"]),
        ({"cpus": (0,)}, (0,), XNNPACK, [[9], [5]], ["too few runs", "unstable"]),
    ],
)
def test_the_verdict_has_every_reason(changes, cpus, delegation, rounds, reasons):
    settings = Settings(num_runs=2, **changes)
    raw = [Round(1, array("q"), array("q", one)) for one in rounds]
    verdict = judge(settings, cpus, delegation, raw, summarize(raw))
    assert verdict.valid == (not reasons)
    assert len(verdict.reasons) == len(reasons)
    for reason, start in zip(verdict.reasons, reasons, strict=True):
        assert reason.startswith(start)


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 0},
        {"num_runs": 0},
        {"num_runs": 100_001},
        {"warmup_runs": -1},
        {"rounds": 0},
        {"min_secs": float("nan")},
        {"min_secs": 2.0, "max_secs": 1.0},
        {"max_secs": float("inf")},
        {"max_spread": -0.1},
        {"delegate": "gpu"},
        {"cpus": (1, 0)},
    ],
)
def test_settings_out_of_range_are_named(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        Settings(**changes)


def test_the_table_cannot_be_broken_by_a_name():
    name = "a|b\nc\x1b[31m\udcff.tflite"
    invalid = Verdict(False, ("unstable: x", "too few runs: y"))
    lines = format_table([make_measurement(model=name), make_measurement(verdict=invalid)])
    lines = lines.splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert r"a\|b\nc\x1b[31m\udcff.tflite" in lines[2]
    assert "xnnpack, 2 partitions, 2 of 7 ops outside" in lines[2]
    assert "invalid: unstable: x; too few runs: y" in lines[3]
