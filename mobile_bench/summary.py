"""What the rounds of a model say together: a median with its interval, and one verdict.

Plain Python, so that tables are made without NumPy.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mobile_bench.results import (
    Affinity,
    Delegation,
    Device,
    Measurement,
    Memory,
    Settings,
    Tool,
    Verdict,
)
from mobile_bench.timings import percentile
from mobile_bench.verdicts import judge_rounds

_RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """The rounds of one model on one device with one tool and one set of settings.

    Times are in microseconds; None where no round knows.

    Attributes:
        model: Path of the model as it was given.
        sha256: Hash of the file's bytes, in hex.
        size_bytes: Size of the file.
        rounds: The rows that it is of, in the order of their rounds.
        count: Timed inferences of all rounds.
        median_us: Median of `round_us`.
        interval_us: Where the median lies with 95 % confidence, see `interval`; None with one
            round.
        min_us: The fastest inference.
        p90_us: Median over the rounds of their 90th percentiles (benchmark_model prints none).
        p95_us: Median over the rounds of their 95th percentiles.
        init_us: The fastest start: reading the model, applying the delegate, allocating tensors.
        first_us: The fastest first inference.
        round_us: The typical inference of each round.
        spread: Difference of the slowest and the fastest round, as a fraction of the median; None
            with one round.
        delegation: That of the last round.
        affinity: That of the last round.
        memory: That of the last round.
        verdict: Whether all of this can be believed.
        date: When the last round was finished, UTC, ISO 8601.
    """

    model: str
    sha256: str
    size_bytes: int
    device: Device
    tool: Tool
    settings: Settings
    rounds: tuple[Measurement, ...]
    count: int
    median_us: float
    interval_us: tuple[float, float] | None
    min_us: float | None
    p90_us: float | None
    p95_us: float | None
    init_us: float | None
    first_us: float | None
    round_us: tuple[float, ...]
    spread: float | None
    delegation: Delegation
    affinity: Affinity
    memory: Memory | None
    verdict: Verdict
    date: str


def summarize(rows: Iterable[Measurement]) -> list[Summary]:
    """Returns a summary for each model, device, tool and settings, in order of first appearance.

    Only rows of the last session of each count, and the last of two rows of one round: what was
    measured on another day is no round of the same measurement.
    """
    groups: dict[object, list[Measurement]] = {}
    for row in rows:
        key = (row.model, row.sha256, row.device.identity, row.tool, row.settings)
        groups.setdefault(key, []).append(row)
    return [_summary(group) for group in groups.values()]


def _summary(rows: Sequence[Measurement]) -> Summary:
    by_round = {row.round: row for row in rows if row.session == rows[-1].session}
    rounds = tuple(by_round[index] for index in sorted(by_round))
    timings, last = [row.timings for row in rounds], rounds[-1]
    round_us = tuple(one.typical_us for one in timings)
    median = _median(round_us)
    several = len(rounds) > 1
    return Summary(
        model=last.model,
        sha256=last.sha256,
        size_bytes=last.size_bytes,
        device=last.device,
        tool=last.tool,
        settings=last.settings,
        rounds=rounds,
        count=sum(one.count for one in timings),
        median_us=median,
        interval_us=interval(resampled_medians(round_us)) if several else None,
        min_us=_least(one.min_us for one in timings),
        p90_us=_median(one.p90_us for one in timings),
        p95_us=_median(one.p95_us for one in timings),
        init_us=_least(one.init_us for one in timings),
        first_us=_least(one.first_us for one in timings),
        round_us=round_us,
        spread=(max(round_us) - min(round_us)) / median if several and median else None,
        delegation=last.delegation,
        affinity=last.affinity,
        memory=last.memory,
        verdict=judge_rounds(last.settings, rounds),
        date=max(row.date for row in rounds),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return percentile(known, 50) if known else None


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def interval(resampled: Iterable[float]) -> tuple[float, float]:
    """Returns the middle 95 % of resampled values: a percentile bootstrap interval.

    What it is worth depends on the number of rounds. With up to five it reaches from the fastest
    round to the slowest, whatever is resampled, and holds the median of all rounds that could
    have been measured with a probability of only 1 - 2 / 2^n: 75 % with three rounds, 94 % with
    five. It is about 95 % from six on. It tells how much rounds of one session differ, and nothing
    of what another day, another phone or a warmer room would change.

    B. Efron, R. Tibshirani: An Introduction to the Bootstrap (1993), chapter 13.
    """
    ordered = sorted(resampled)
    return percentile(ordered, 2.5), percentile(ordered, 97.5)


def resampled_medians(values: Sequence[float], seed: int = 0) -> list[float]:
    """Returns the medians of 2000 samples of the values, drawn with replacement.

    Args:
        values: At least one.
        seed: Equal seeds draw equal places, so that a file's table is the same each time. Two
            series that are compared need different ones.
    """
    ordered = sorted(values)
    return [(ordered[low] + ordered[high]) / 2 for low, high in _middle_places(len(values), seed)]


@functools.cache
def _middle_places(count: int, seed: int) -> tuple[tuple[int, int], ...]:
    """For each sample of `count` ascending values: the places of its two middle values.

    They are one place where `count` is odd. Samples are drawn once for all series of one length:
    a table has hundreds of them.
    """
    generator = random.Random(seed)
    middles = []
    for _ in range(_RESAMPLES):
        places = sorted(generator.choices(range(count), k=count))
        middles.append((places[(count - 1) // 2], places[count // 2]))
    return tuple(middles)
