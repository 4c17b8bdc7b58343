"""What changed between two results files: before and after, or one phone and another."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

from mobile_bench.results import Device, Settings, Tool
from mobile_bench.summary import Summary, interval, resampled_medians

# What two summaries may have in common, best first. A pair is made where it has one candidate on
# either side, so that a file that was moved, rebuilt or measured elsewhere finds its counterpart.
_IDENTITIES = ("model", "sha256", "name")
_CONTEXTS = (("device", "settings"), ("device",), ("settings",), ())
_PAIRINGS = (
    ("model", "sha256", "device", "tool", "settings"),
    *((identity, *context) for context, identity in itertools.product(_CONTEXTS, _IDENTITIES)),
)


@dataclass(frozen=True)
class Change:
    """One model before (A) and after (B).

    Attributes:
        model: Its path in B, or in A where B has it not.
        target: Where B measured it, or A.
        a: The summary before; None for a model that is only in B.
        b: The summary after; None for a model that is only in A.
        ratio: B's median divided by A's; None where one is missing, or A's is 0.
        interval: Where the ratio lies with 95 % confidence, from the rounds of both; None where
            one of them has one round. `summary.interval` says what it is worth.
        changed: "faster" or "slower" where the interval leaves out 1, "same" where it has it (no
            difference was seen, which is no proof that there is none), "unknown" without an
            interval, "only in A" or "only in B".
        notes: What else is different, which of the two is not valid, and notes of one of their
            verdicts alone; of one that is alone, its settings where they are not the defaults.
    """

    model: str
    target: str
    a: Summary | None
    b: Summary | None
    ratio: float | None
    interval: tuple[float, float] | None
    changed: str
    notes: tuple[str, ...]


def compare(a: Sequence[Summary], b: Sequence[Summary]) -> list[Change]:
    """Returns what changed from A to B: the models of A in their order, then those only in B."""
    partners, only_in_b = _pair(a, b)
    changes = [
        _one_sided(before, "A") if after is None else _change(before, after)
        for before, after in zip(a, partners, strict=True)
    ]
    return changes + [_one_sided(after, "B") for after in only_in_b]


def _pair(a: Sequence[Summary], b: Sequence[Summary]) -> tuple[list[Summary | None], list[Summary]]:
    """Returns B's counterpart of each summary of A, and those of B that are none's."""
    partners: dict[int, int] = {}
    for traits in _PAIRINGS:
        left_a = _by_traits(a, traits, set(partners))
        left_b = _by_traits(b, traits, set(partners.values()))
        for key in left_a.keys() & left_b.keys():
            if len(left_a[key]) == len(left_b[key]) == 1:
                partners[left_a[key][0]] = left_b[key][0]
    taken = set(partners.values())
    return (
        [b[partners[i]] if i in partners else None for i in range(len(a))],
        [summary for i, summary in enumerate(b) if i not in taken],
    )


def _by_traits(
    summaries: Sequence[Summary], traits: Sequence[str], taken: set[int]
) -> dict[tuple[object, ...], list[int]]:
    """Returns the places of the summaries that are not taken, by the values of their traits."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, summary in enumerate(summaries):
        if place not in taken:
            key = tuple(_trait(summary, trait) for trait in traits)
            groups.setdefault(key, []).append(place)
    return groups


def _trait(summary: Summary, trait: str) -> object:
    if trait == "name":
        return os.path.basename(summary.model)
    if trait == "device":  # the same phone after an update of its system, or by Wi-Fi
        return summary.device.serial or summary.device.target
    return getattr(summary, trait)


def _one_sided(summary: Summary, side: str) -> Change:
    a, b = (summary, None) if side == "A" else (None, summary)
    asked = ", ".join(  # where one file has the model with several settings, they tell it apart
        f"{field.name} {value!r}"
        for field in dataclasses.fields(Settings)
        if (value := getattr(summary.settings, field.name)) != field.default
    )
    notes = (f"measured with {asked}",) if asked else ()
    target = summary.device.target
    return Change(summary.model, target, a, b, None, None, f"only in {side}", notes)


def _change(a: Summary, b: Summary) -> Change:
    ratio = b.median_us / a.median_us if a.median_us else None
    bounds = None
    if min(len(a.rounds), len(b.rounds)) > 1 and min(a.round_us) > 0:
        of_a, of_b = resampled_medians(a.round_us), resampled_medians(b.round_us, seed=1)
        bounds = interval(after / before for before, after in zip(of_a, of_b, strict=True))
    if bounds is None:
        changed = "unknown"
    else:
        changed = "faster" if bounds[1] < 1 else "slower" if bounds[0] > 1 else "same"
    return Change(b.model, b.device.target, a, b, ratio, bounds, changed, _notes(a, b))


def _notes(a: Summary, b: Summary) -> tuple[str, ...]:
    notes = []
    if a.model != b.model:
        notes.append(f"other path: was {a.model}")
    if a.sha256 != b.sha256:
        notes.append(f"other file: {a.size_bytes} -> {b.size_bytes} bytes")
    if a.device != b.device:
        notes.append(f"other device: {_differences(a.device, b.device)}")
    if a.tool != b.tool:
        notes.append(f"other tool: {_differences(a.tool, b.tool)}")
    means = [one.rounds[-1].timings.median_us is None for one in (a, b)]
    if means[0] != means[1]:  # a mean is mostly the larger one
        notes.append(f"{'AB'[means.index(True)]} has means: its tool prints no medians")
    if a.settings != b.settings:
        notes.append(f"other settings: {_differences(a.settings, b.settings)}")
    for side, summary, other in (("A", a, b), ("B", b, a)):
        if not summary.verdict.valid:
            notes.append(f"{side} is invalid: {'; '.join(summary.verdict.reasons)}")
        notes += [f"{side}: {n}" for n in summary.verdict.notes if n not in other.verdict.notes]
    return tuple(notes)


def _differences(a: Device | Tool | Settings, b: Device | Tool | Settings) -> str:
    """Returns the fields that differ, such as "threads 1 -> 4, cpus '' -> 'big'"."""
    before, after = dataclasses.asdict(a), dataclasses.asdict(b)
    return ", ".join(
        f"{name} {_short(before[name])} -> {_short(after[name])}"
        for name in before
        if before[name] != after[name]
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
