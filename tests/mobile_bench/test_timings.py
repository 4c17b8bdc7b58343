"""The statistics of a run, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_bench.timings import summarize_runs

times = st.lists(st.integers(0, 10**9), min_size=1, max_size=50)


@given(runs=times, warmup=times)
def test_statistics_agree_with_numpy(runs, warmup):
    timings = summarize_runs(5000, warmup, runs)
    runs_us = np.array(runs) / 1000
    expected = {
        "mean_us": runs_us.mean(),
        "std_us": runs_us.std(),
        "min_us": runs_us.min(),
        "max_us": runs_us.max(),
        **{
            f"{name}_us": np.percentile(runs_us, percent)
            for name, percent in (("median", 50), ("p5", 5), ("p90", 90), ("p95", 95))
        },
    }
    for name, value in expected.items():
        assert getattr(timings, name) == pytest.approx(value, rel=1e-9, abs=1e-6), name
    assert (timings.count, timings.warmup_count) == (len(runs), len(warmup))
    assert (timings.init_us, timings.first_us) == (5, warmup[0] / 1000)
    assert timings.warmup_mean_us == pytest.approx(np.mean(warmup) / 1000)


def test_without_warm_up_the_first_run_is_the_first():
    timings = summarize_runs(1, [], [3000, 1000])
    assert (timings.first_us, timings.warmup_mean_us, timings.warmup_count) == (3.0, None, 0)


def test_a_kept_interpreter_has_neither_init_nor_first():
    timings = summarize_runs(None, [9000], [3000, 1000])
    assert (timings.init_us, timings.first_us, timings.warmup_mean_us) == (None, None, 9.0)
