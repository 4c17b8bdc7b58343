"""Statistics of timed runs, and the verdict on them. Plain Python: the parent needs no NumPy."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from mobile_bench.results import Delegation, Settings, Timings, Verdict


@dataclass(frozen=True)
class Round:
    """The raw times of one model in one round.

    Attributes:
        init_ns: Time to make the interpreter; None where it was kept from an earlier round.
        warmup_ns: Time of each warm-up run, in nanoseconds.
        runs_ns: Time of each timed run, in nanoseconds.
    """

    init_ns: int | None
    warmup_ns: array[int]
    runs_ns: array[int]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns the percentile of ascending values, linear between neighbors as NumPy's is."""
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarize(rounds: Sequence[Round]) -> Timings:
    """Returns the timings of a model over its rounds, at least one, each with at least one run."""
    runs = sorted(ns / 1000 for one in rounds for ns in one.runs_ns)
    warmup = [ns / 1000 for one in rounds for ns in one.warmup_ns]
    mean = math.fsum(runs) / len(runs)
    median = percentile(runs, 50)
    medians = tuple(percentile(sorted(one.runs_ns), 50) / 1000 for one in rounds)
    first = rounds[0].warmup_ns or rounds[0].runs_ns
    return Timings(
        init_us=(rounds[0].init_ns or 0) / 1000,
        first_us=first[0] / 1000,
        warmup_count=len(warmup),
        warmup_mean_us=math.fsum(warmup) / len(warmup) if warmup else None,
        count=len(runs),
        mean_us=mean,
        std_us=math.sqrt(math.fsum((run - mean) ** 2 for run in runs) / len(runs)),
        min_us=runs[0],
        max_us=runs[-1],
        median_us=median,
        p5_us=percentile(runs, 5),
        p90_us=percentile(runs, 90),
        p95_us=percentile(runs, 95),
        round_medians_us=medians,
        spread=(max(medians) - min(medians)) / median if len(medians) > 1 and median else None,
    )


def judge(
    settings: Settings,
    cpus: tuple[int, ...] | None,
    delegation: Delegation,
    rounds: Sequence[Round],
    timings: Timings,
) -> Verdict:
    """Says whether the timings are what was asked for, with every reason why not."""
    reasons = []
    fewest = min(len(one.runs_ns) for one in rounds)
    if fewest < settings.num_runs:
        reasons.append(
            f"too few runs: {fewest} of {settings.num_runs} in a round, "
            f"ended by max_secs={settings.max_secs:g}"
        )
    if timings.spread is not None and timings.spread > settings.max_spread:
        reasons.append(
            f"unstable: round medians differ by {timings.spread:.1%}, "
            f"more than {settings.max_spread:.1%}"
        )
    if settings.delegate != delegation.delegate:
        reasons.append(
            f"fallback: {settings.delegate} was asked for, {delegation.delegate} applied"
        )
    if settings.cpus is not None and settings.cpus != cpus:
        reasons.append(f"affinity: cpus {settings.cpus} were asked for, {cpus} read back")
    return Verdict(valid=not reasons, reasons=tuple(reasons))
