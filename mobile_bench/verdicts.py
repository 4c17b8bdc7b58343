"""Verdicts: whether a run, or the rounds of a model, can be believed, and every reason why not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence

from mobile_bench.results import (
    Affinity,
    Delegation,
    Device,
    DeviceState,
    Measurement,
    Settings,
    Timings,
    Verdict,
)
from mobile_bench.timings import percentile
from mobile_bench.topology import describe_cores

_OF_THE_TOOL_TOO = ("too few runs", "fallback")  # kinds that tool.output finds as well
SEVERE = 3  # Android's thermal status from which on it throttles
_FULL_SPEED = 0.95  # of a core's highest frequency: a limit from there on is none


def judge_run(
    settings: Settings,
    affinity: Affinity,
    delegation: Delegation,
    timings: Timings,
    before: DeviceState,
    after: DeviceState,
    device: Device,
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Verdict:
    """Says whether a run is what was asked for, on a device that was fit for it.

    Args:
        settings: What was asked for.
        affinity: The cores asked for and granted.
        delegation: What the delegate took.
        timings: What was timed.
        before: The device just before the run.
        after: The device just after it.
        device: What its cores can do.
        problems: What the tool complained about.
        notes: What else is good to know of the tool's run.
    """
    reasons = [
        *_too_few(settings, timings),
        *_fallback(settings, delegation, problems),
        *_affinity(affinity),
        *_throttled(affinity, before, after),
        *_hot(settings, before, after),
        *_screen(settings, before, after),
    ]
    return Verdict.of(
        reasons + _complaints(problems, {_kind(reason) for reason in reasons}),
        [
            *_capped(device, affinity, before, after),
            *_mixed(settings, affinity, device),
            *_crowded(settings, affinity, device),
            *(f"tool: {note}" for note in notes),
        ],
    )


def judge_rounds(settings: Settings, rows: Sequence[Measurement]) -> Verdict:
    """Says whether the rounds of a model can be believed together.

    Each kind of reason and of note of the rows is told once, with the number of rounds that have
    it. A spread of the rounds above `max_spread` is "unstable"; where, besides, each of three or
    more rounds is slower than the one before, the device was getting slower: "throttled". So it
    is where the limit of a clock moved between rounds.

    Args:
        settings: Those of the rows.
        rows: The rounds of one model on one device, at least one.
    """
    reasons = [*_counted(rows, _reasons), *_unsteady(settings, rows)]
    if not any(_kind(reason) == "throttled" for reason in reasons):
        reasons += _moved_between(rows)
    return Verdict.of(reasons, _counted(rows, lambda row: row.verdict.notes))


def _reasons(row: Measurement) -> list[str]:
    """Returns the reasons of a row; last a fallback that earlier versions took for valid."""
    return [*row.verdict.reasons, *_fallback(row.settings, row.delegation, ())]


def _complaints(problems: Sequence[str], told: Collection[str]) -> list[str]:
    """Returns the tool's problems as reasons, without those of a kind that is told already."""
    reasons = []
    for problem in problems:
        if _kind(problem) not in _OF_THE_TOOL_TOO:
            reasons.append(f"tool: {problem}")
        elif _kind(problem) not in told:
            reasons.append(problem)
    return reasons


def _too_few(settings: Settings, timings: Timings) -> Iterator[str]:
    if timings.count < settings.num_runs:
        yield (
            f"too few runs: {timings.count} of {settings.num_runs}, "
            f"ended by max_secs={settings.max_secs:g}"
        )


def _fallback(settings: Settings, delegation: Delegation, problems: Sequence[str]) -> Iterator[str]:
    asked, applied = settings.delegate, delegation.delegate
    if asked == "cpu":  # a tool that applies no delegate need not say so
        if applied not in ("cpu", None):
            yield f"fallback: {asked} was asked for, {applied} applied"
        return
    if applied != asked:
        told = "the tool does not tell what was" if applied is None else applied
        by_the_tool = (problem for problem in problems if _kind(problem) == "fallback")
        # The tool's words may have the reason in them.
        yield next(by_the_tool, f"fallback: {asked} was asked for, {told} applied")
    elif delegation.complete is False and (settings.require_full_delegation or asked != "xnnpack"):
        # XNNPACK and what it leaves run on the same cores; a GPU that hands back does not.
        yield f"fallback: {asked} did not take all of the model{_outside(delegation)}"
    elif delegation.complete is None and (settings.require_full_delegation or asked != "xnnpack"):
        yield f"fallback: the tool does not tell whether {asked} took all of the model"


def _outside(delegation: Delegation) -> str:
    if delegation.ops_outside:
        names = ", ".join(f"{name} x{count}" for name, count in delegation.ops_outside.items())
        return f": {names} left outside"
    if delegation.ops is not None and delegation.delegated_ops is not None:
        return f": {delegation.delegated_ops} of {delegation.ops} ops"
    if delegation.partitions is not None:
        return f" ({delegation.partitions} partitions)"
    return ""


def _affinity(affinity: Affinity) -> Iterator[str]:
    asked, granted = affinity.asked, affinity.granted
    if asked is not None and asked != granted:
        read = "what was granted is not known" if granted is None else f"{_cores(granted)} granted"
        yield f"affinity: cores {_cores(asked)} were asked for, {read}"


def _cores(cores: Sequence[int]) -> str:
    return ",".join(map(str, cores))


def _limits(
    affinity: Affinity, before: DeviceState, after: DeviceState
) -> dict[int, tuple[int, int | None]]:
    """Returns the highest frequency in kHz that each core of a run might take before and after it.

    Cores that did not tell before are left out; None is for those that did not tell after it.
    """
    pairs = enumerate(zip(before.core_limit_khz, after.core_limit_khz, strict=False))
    return {
        core: (first, last)
        for core, (first, last) in pairs
        if first and (affinity.granted is None or core in affinity.granted)
    }


def _throttled(affinity: Affinity, before: DeviceState, after: DeviceState) -> Iterator[str]:
    """Tells of cores whose frequency limit moved in the run.

    Down is throttling that began, up is throttling that ended, and hot cores may be switched off
    altogether.
    """
    limits = _limits(affinity, before, after)
    off = [core for core, (_, last) in limits.items() if last is None]
    if off and affinity.asked is not None:  # of the other cores the system chooses
        yield f"throttled: cores {_cores(off)} were switched off in the run"
    moved = [core for core, (first, last) in limits.items() if last and first != last]
    if moved:
        first, last = limits[moved[-1]]  # the fast cores come last
        yield (
            f"throttled: cores {_cores(moved)} were limited to {first / 1e6:.2f} GHz before and "
            f"{last / 1e6:.2f} GHz after"
        )


def _capped(
    device: Device, affinity: Affinity, before: DeviceState, after: DeviceState
) -> Iterator[str]:
    """Tells of cores that may not run at full speed, in a run that changed nothing of that.

    Battery savers, vendors' modes and owners who keep the clocks steady limit them for good.
    """
    limits = _limits(affinity, before, after)
    highest = dict(enumerate(device.core_max_khz))
    capped = [
        core
        for core, (first, last) in limits.items()
        if first == last < _FULL_SPEED * (highest.get(core) or 0)
    ]
    if capped:
        core = capped[-1]
        yield (
            f"clocks: cores {_cores(capped)} were limited to {limits[core][1] / 1e6:.2f} of "
            f"{highest[core] / 1e6:.2f} GHz from before the run on"
        )


def _mixed(settings: Settings, affinity: Affinity, device: Device) -> Iterator[str]:
    """Tells of a choice of cores of several speeds, of which not all are needed."""
    cores = [core for core in affinity.asked or () if core < len(device.core_max_khz)]
    speeds = [device.core_max_khz[core] for core in cores]
    if None not in speeds and len(set(speeds)) > 1 and settings.threads < len(cores):
        threads = f"{settings.threads} thread{'s' * (settings.threads > 1)}"
        yield (
            f"cores: the system chooses among {describe_cores(speeds)} GHz for {threads}, so the "
            "times may mix their speeds; cpus=auto takes the fastest"
        )


def _crowded(settings: Settings, affinity: Affinity, device: Device) -> Iterator[str]:
    cores = affinity.granted or affinity.asked
    count = len(device.core_max_khz) if cores is None else len(cores)
    if 0 < count < settings.threads:
        yield f"threads: {settings.threads} of them share {count} core{'s' * (count > 1)}"


def _hot(settings: Settings, before: DeviceState, after: DeviceState) -> Iterator[str]:
    known = (before.battery_celsius, after.battery_celsius)
    celsius = max((value for value in known if value is not None), default=None)
    if settings.max_celsius is not None and celsius is not None and celsius > settings.max_celsius:
        yield f"hot: the battery was at {celsius:.1f} C, above {settings.max_celsius:g} C"
    status = max(before.thermal_status or 0, after.thermal_status or 0)
    if status >= SEVERE:
        yield f"hot: thermal status {status}, the system slows itself down from {SEVERE} on"


def _screen(settings: Settings, before: DeviceState, after: DeviceState) -> Iterator[str]:
    if settings.screen == "leave":
        return
    for when, on in (("before", before.screen_on), ("after", after.screen_on)):
        if on not in (None, settings.screen == "on"):
            yield f"screen: {settings.screen} was asked for, it was {'on' if on else 'off'} {when}"
            return


def _counted(
    rows: Sequence[Measurement], texts_of: Callable[[Measurement], Sequence[str]]
) -> Iterator[str]:
    """Tells each kind of reason, or of note, once, in the first words of the first row with it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        kinds: dict[str, str] = {}
        for text in texts_of(row):
            kinds.setdefault(_kind(text), text)
        for kind, text in kinds.items():
            found.setdefault(kind, []).append(text)
    for texts in found.values():
        yield texts[0] + (f" ({len(texts)} of {len(rows)} rounds)" if len(rows) > 1 else "")


def _kind(reason: str) -> str:
    """Returns what reasons are counted by: complaints of the tool have no kinds of their own."""
    kind = reason.partition(":")[0]
    return reason if kind == "tool" else kind


def _unsteady(settings: Settings, rows: Sequence[Measurement]) -> Iterator[str]:
    times = [row.timings.typical_us for row in sorted(rows, key=lambda row: row.round)]
    median = percentile(sorted(times), 50)
    if not median:
        return
    spread = (max(times) - min(times)) / median
    if spread > settings.max_spread:
        yield (
            f"unstable: rounds differ by {spread:.1%}, more than max_spread={settings.max_spread:g}"
        )
    slower = times[-1] / times[0] - 1 if times[0] else 0.0
    falling = len(times) > 2 and all(a < b for a, b in itertools.pairwise(times))
    if falling and slower > settings.max_spread:
        yield f"throttled: each round was slower than the one before, the last by {slower:.1%}"


def _moved_between(rows: Sequence[Measurement]) -> Iterator[str]:
    """Tells of a frequency limit that stood still in each round, and not from round to round."""
    limits: dict[int, set[int]] = {}
    for row in rows:
        for core, (_, last) in _limits(row.affinity, row.before, row.after).items():
            limits.setdefault(core, set()).update({last} - {None})
    moved = [core for core, khz in sorted(limits.items()) if len(khz) > 1]
    if moved:
        low, high = min(limits[moved[-1]]), max(limits[moved[-1]])
        yield (
            f"throttled: cores {_cores(moved)} were limited to {low / 1e6:.2f} GHz in one round "
            f"and to {high / 1e6:.2f} GHz in another"
        )
