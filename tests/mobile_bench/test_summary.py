"""Summaries of rounds: which rows count, and statistics that agree with NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from bench_helpers import HOST, TOOL, make_measurement
from hypothesis import given
from hypothesis import strategies as st

import mobile_bench
from mobile_bench.results import Settings, Verdict
from mobile_bench.summary import interval, resampled_medians, summarize

times = st.floats(0.1, 1e6)


def rounds_of(*round_us: float, **changes: object):
    return [make_measurement(round=i, median_us=us, **changes) for i, us in enumerate(round_us)]


@given(st.lists(times, min_size=1, max_size=9))
def test_statistics_agree_with_numpy(round_us):
    (summary,) = summarize(rounds_of(*round_us, count=10))
    assert summary.round_us == tuple(round_us)
    assert summary.median_us == pytest.approx(np.median(round_us))
    assert summary.count == 10 * len(round_us)
    if len(round_us) == 1:
        assert (summary.spread, summary.interval_us) == (None, None)
    else:
        assert summary.spread == pytest.approx(np.ptp(round_us) / np.median(round_us))
        low, high = summary.interval_us
        assert min(round_us) <= low <= high <= max(round_us)


def test_what_only_some_rounds_know():
    rows = [
        make_measurement(round=0, min_us=3.0, p90_us=9.0, p95_us=None, init_us=5.0, first_us=8.0),
        make_measurement(round=1, min_us=2.0, p90_us=11.0, init_us=None, first_us=7.0),
        make_measurement(round=2, min_us=None, p90_us=None, init_us=None, first_us=None),
    ]
    (summary,) = summarize(rows)
    assert (summary.min_us, summary.p90_us, summary.p95_us) == (2.0, 10.0, 1.5)
    assert (summary.init_us, summary.first_us) == (5.0, 7.0)
    (unknown,) = summarize(rows[2:])
    assert (unknown.min_us, unknown.p90_us, unknown.init_us) == (None, None, None)


def test_a_tool_without_medians_is_summarized_by_its_means():
    (summary,) = summarize([make_measurement(median_us=None, mean_us=7.0)])
    assert summary.median_us == 7.0


def test_each_model_file_device_tool_and_settings_has_its_summary():
    rows = [
        make_measurement(),
        make_measurement(model="b.tflite"),
        make_measurement(sha256="1" * 64),
        make_measurement(device=dataclasses.replace(HOST, target="R58")),
        make_measurement(tool=dataclasses.replace(TOOL, version="9")),
        make_measurement(settings=Settings(threads=2)),
    ]
    again = [dataclasses.replace(row, round=1) for row in reversed(rows)]
    summaries = summarize(rows + again)
    assert [summary.rounds[0] for summary in summaries] == rows
    assert [len(summary.rounds) for summary in summaries] == [2] * 6


def test_only_the_last_session_counts_and_a_repeated_round_once():
    yesterday = rounds_of(1.0, 2.0, 3.0, session="yesterday")
    today = rounds_of(10.0, 30.0, 20.0, session="today")
    out_of_order = [today[2], today[0], today[1]]
    (summary,) = summarize(yesterday + out_of_order + rounds_of(12.0, session="today"))
    assert summary.round_us == (12.0, 30.0, 20.0)


def test_the_verdict_is_that_of_the_rounds():
    hot = Verdict(False, ("hot: 39 C",))
    rows = rounds_of(10.0, 10.0, 10.0)
    assert summarize(rows)[0].verdict.valid
    (summary,) = summarize([*rows[:2], dataclasses.replace(rows[2], verdict=hot)])
    assert [reason[:4] for reason in summary.verdict.reasons] == ["hot:"]
    (summary,) = summarize(rounds_of(10.0, 10.0, 15.0))
    assert summary.verdict.reasons[0].startswith("unstable: ")


@pytest.mark.parametrize("count", [2, 3, 6, 7, 12])
def test_the_interval_agrees_with_a_bootstrap_by_numpy(count):
    values = np.random.default_rng(count).gamma(20, 50, count)
    samples = np.random.default_rng(0).choice(values, (200_000, count))
    low, high = np.percentile(np.median(samples, axis=1), [2.5, 97.5])
    # Resampled medians are a few separate values, so a near-tie may fall to the neighbor.
    step = np.diff(np.sort(values)).max() / 2 if count > 5 else 1e-9
    assert interval(resampled_medians(values)) == pytest.approx((low, high), abs=step)


def test_the_interval_does_not_depend_on_order_or_call():
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0]
    assert resampled_medians(values) == resampled_medians(sorted(values))
    assert resampled_medians(values) != resampled_medians(values, seed=1)


@pytest.mark.parametrize(("count", "worth"), [(3, 0.75), (5, 0.9375), (6, 0.95), (9, 0.95)])
def test_the_interval_is_worth_what_its_docstring_says(count, worth):
    trials = np.random.default_rng(0).lognormal(size=(1000, count))  # their median is 1
    found = [interval(resampled_medians(list(trial))) for trial in trials]
    held = np.mean([low <= 1 <= high for low, high in found])
    assert held == pytest.approx(worth, abs=0.03)


def test_of_up_to_five_rounds_it_is_their_range():
    for count in range(2, 6):
        values = [float(value) for value in range(count)]
        assert interval(resampled_medians(values)) == (0.0, count - 1)


def test_it_is_public():
    assert isinstance(mobile_bench.summarize([make_measurement()])[0], mobile_bench.Summary)
