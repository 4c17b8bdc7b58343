"""Statistics of the inferences of a run. Plain Python: the parent needs no NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mobile_bench.results import Timings


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns the percentile of ascending values, linear between neighbors as NumPy's is."""
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarize_runs(
    init_ns: int | None, warmup_ns: Sequence[int], runs_ns: Sequence[int]
) -> Timings:
    """Returns the timings of a run from the time of each of its inferences.

    Args:
        init_ns: Time to make the interpreter; None where it was kept from an earlier run, whose
            first inference is not this run's first either.
        warmup_ns: Time of each warm-up inference.
        runs_ns: Time of each timed inference; at least one.
    """
    runs = sorted(ns / 1000 for ns in runs_ns)
    mean = math.fsum(runs) / len(runs)
    first = (*warmup_ns[:1], *runs_ns[:1])[0]
    return Timings(
        count=len(runs),
        mean_us=mean,
        median_us=percentile(runs, 50),
        min_us=runs[0],
        max_us=runs[-1],
        std_us=math.sqrt(math.fsum((run - mean) ** 2 for run in runs) / len(runs)),
        p5_us=percentile(runs, 5),
        p90_us=percentile(runs, 90),
        p95_us=percentile(runs, 95),
        init_us=None if init_ns is None else init_ns / 1000,
        first_us=None if init_ns is None else first / 1000,
        warmup_count=len(warmup_ns),
        warmup_mean_us=sum(warmup_ns) / len(warmup_ns) / 1000 if warmup_ns else None,
    )
