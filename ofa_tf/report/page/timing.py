"""What was measured of exported files, on every device and with all settings."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

import mobile_bench
from mobile_bench.results import OpTime
from ofa_tf.errors import FailureError
from ofa_tf.report.page.reading import Source, said_date
from ofa_tf.workdir import Workdir

_TOP = 10  # ops of a profile that are told one by one


@dataclasses.dataclass(frozen=True)
class KindTime:
    """The time of all ops of a kind: microseconds per inference, and the share of all ops."""

    kind: str
    count: int
    us: float
    share: float


@dataclasses.dataclass(frozen=True)
class OpProfile:
    """Where the time of a model goes; shares are 0..1 of the time of all ops."""

    kinds: tuple[KindTime, ...]
    top: tuple[tuple[OpTime, float], ...]  # with the share of each
    num_ops: int
    us: float


@dataclasses.dataclass(frozen=True)
class Timings:
    """measurements.jsonl.

    Args:
        by_sha256: the newest measurement of a file for each device and `describe_settings`.
        source: where they are from; None where nothing was measured.
        notice: what could not be read of the file; None where all could.
    """

    by_sha256: dict[str, tuple[mobile_bench.Summary, ...]]
    source: Source | None
    notice: str | None


def read_timings(workdir: Workdir, command: str) -> Timings:
    """Reads the measurements. Raises FailureError where a row is damaged."""
    path = workdir.measurements
    if not path.exists():
        return Timings({}, None, None)
    try:
        rows = mobile_bench.read_rows(path)
    except mobile_bench.FailureError as error:
        raise FailureError(str(error)) from error
    newest: dict[tuple, mobile_bench.Summary] = {}
    for one in sorted(mobile_bench.summarize(rows.measurements), key=lambda one: one.date):
        newest[one.sha256, one.device.identity, describe_settings(one)] = one
    by_sha256 = collections.defaultdict(list)
    for one in newest.values():
        by_sha256[one.sha256].append(one)
    found = {sha256: tuple(ones) for sha256, ones in by_sha256.items()}
    return Timings(found, _source(path.name, command, newest.values()), rows.notice)


def _source(name: str, command: str, summaries: Iterable[mobile_bench.Summary]) -> Source:
    summaries = list(summaries)
    dates = sorted(one.date for one in summaries)
    told = " to ".join(dict.fromkeys(map(said_date, (dates[0], dates[-1])))) if dates else "none"
    machines = dict.fromkeys(describe_device(one, with_build=True) for one in summaries)
    tools = (f"{one.tool.name} {one.tool.version}" for one in summaries)
    facts = (
        (
            "latency",
            "median over rounds of each round's median inference, one image at a time; in brackets "
            "where it lies with 95 % confidence as far as the rounds tell",
        ),
        ("machines", "; ".join(machines)),
        ("tools", ", ".join(dict.fromkeys(tools))),
        ("dates", told),
    )
    return Source(name, command, facts)


def describe_device(summary: mobile_bench.Summary, with_build: bool = False) -> str:
    """What tells a device from others, in a line; the exact build of its system if asked for."""
    device = summary.device
    parts = [device.target, f"{device.maker} {device.model}".strip(), device.cpu, device.os]
    return ", ".join(filter(None, [*parts, device.build if with_build else ""]))


def describe_settings(summary: mobile_bench.Summary) -> str:
    """What decides a latency besides the device and the file, in a line."""
    settings = summary.settings
    parts = [
        settings.delegate,
        f"{settings.threads} thread{'s' * (settings.threads != 1)}",
        f"cores {settings.cpus}" if settings.cpus else "any cores",
        f"screen {settings.screen}" if settings.screen != "leave" else "",
        "with memory" if settings.memory else "",
        "with op profile" if settings.op_profile else "",
    ]
    return ", ".join(filter(None, parts))


def is_slowed(summary: mobile_bench.Summary) -> bool:
    """Whether what was watched meanwhile slowed down what was timed."""
    return summary.settings.memory or summary.settings.op_profile


def op_profile(summary: mobile_bench.Summary) -> OpProfile | None:
    """The op profile of the last round that has one; None where none has."""
    profiles = [row.profile for row in summary.rounds if row.profile]
    if not profiles:
        return None
    ops = sorted(profiles[-1], key=_total_us, reverse=True)
    total = sum(map(_total_us, ops)) or 1.0
    times: dict[str, list[float]] = collections.defaultdict(list)
    for op in ops:
        times[op.kind].append(_total_us(op))
    kinds = [KindTime(kind, len(us), sum(us), sum(us) / total) for kind, us in times.items()]
    kinds.sort(key=lambda kind: -kind.us)
    top = tuple((op, _total_us(op) / total) for op in ops[:_TOP])
    return OpProfile(tuple(kinds), top, len(ops), sum(map(_total_us, ops)))


def _total_us(op: OpTime) -> float:
    return op.mean_us * op.calls
