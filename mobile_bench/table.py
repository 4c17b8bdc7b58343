"""Summaries, changes and op profiles as Markdown tables, which read as plain text, and as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence

from mobile_bench.compare import Change
from mobile_bench.errors import one_line
from mobile_bench.results import Delegation, Measurement, OpTime, Verdict
from mobile_bench.summary import Summary

_FOLDED = "; "  # between the reasons of a verdict, and between notes
# What Markdown could take for HTML, a link, an image, an entity or emphasis.
_MARKUP = re.compile(r"[<\[\]!`*~$\\@&#{}]|\w:/|www\.|mailto:|xmpp:|\b_|_\b", re.IGNORECASE)
# The wide signs, too; and behind a ; since that ends a cell where the comma is for decimals.
_FORMULA = re.compile(r"(?:^|(?<=;))(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def format_table(summaries: Sequence[Summary]) -> str:
    """Returns one line per summary; columns for device, tool and settings where these differ."""
    celsius = [warmest(summary) for summary in summaries]
    peak_mb = [summary.memory and summary.memory.peak_mb for summary in summaries]
    columns = {
        "model": [summary.model for summary in summaries],
        **_what_differs(summaries),
        "median us [95 %]": [_microseconds(s.median_us, s.interval_us) for s in summaries],
        "p95 us": [_number(s.p95_us) for s in summaries],
        "spread": [_percent(s.spread) for s in summaries],
        "runs": [str(s.count) for s in summaries],
        "init ms": [_number(s.init_us and s.init_us / 1000) for s in summaries],
        "peak MB": [_number(value) for value in peak_mb],
        "delegate": [_delegate(s.delegation) for s in summaries],
        "C": [_number(value) for value in celsius],
        "verdict": [_verdict(s.verdict) for s in summaries],
    }
    if all(value is None for value in peak_mb):  # it was not asked for
        del columns["peak MB"]
    if all(value is None for value in celsius):  # a host tells none
        del columns["C"]
    return _markdown(columns, text=("model", "device", "tool", "settings", "delegate", "verdict"))


def _what_differs(summaries: Sequence[Summary]) -> dict[str, list[str]]:
    """Returns columns that tell apart the devices, tools and settings, where there are several."""
    described = {
        "device": [f"{s.device.target} {s.device.model}".strip() for s in summaries],
        "tool": [f"{s.tool.name} {s.tool.version}" for s in summaries],
        "settings": _different_settings(summaries),
    }
    different = {
        "device": {s.device for s in summaries},
        "tool": {s.tool for s in summaries},
        "settings": {s.settings for s in summaries},
    }
    return {name: cells for name, cells in described.items() if len(different[name]) > 1}


def _different_settings(summaries: Sequence[Summary]) -> list[str]:
    records = [dataclasses.asdict(summary.settings) for summary in summaries]
    differing = [
        name for name in (records or [{}])[0] if len({record[name] for record in records}) > 1
    ]
    return [", ".join(f"{name}={record[name]}" for name in differing) for record in records]


def format_csv(summaries: Iterable[Summary]) -> str:
    """Returns a head and one line per summary, with all that a Markdown table has no room for.

    What is not known is an empty cell. The reasons of a verdict are one cell, and so are its notes,
    with "; " between. In text what cannot be printed is written out, and what a spreadsheet would
    take for a formula has a ' before it.
    """
    return _csv(map(_flat, summaries))


def _csv(records: Iterable[dict[str, object]]) -> str:
    file = io.StringIO()
    writer = None
    for record in records:
        if writer is None:
            writer = csv.DictWriter(file, record.keys(), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: _csv_cell(value) for name, value in record.items()})
    return file.getvalue().removesuffix("\n")


def _csv_cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    return _FORMULA.sub("'", one_line(value, None))


def _flat(summary: Summary) -> dict[str, object]:
    device, tool, delegation = summary.device, summary.tool, summary.delegation
    low, high = summary.interval_us or (None, None)
    memory = dataclasses.asdict(summary.memory) if summary.memory else {}
    return {
        "model": summary.model,
        "sha256": summary.sha256,
        "size_bytes": summary.size_bytes,
        "target": device.target,
        "serial": device.serial,
        "maker": device.maker,
        "device": device.model,
        "cpu": device.cpu,
        "os": device.os,
        "build": device.build,
        "tool": tool.name,
        "tool_version": tool.version,
        "tool_sha256": tool.sha256,
        **dataclasses.asdict(summary.settings),
        "rounds": len(summary.rounds),
        "runs": summary.count,
        "median_us": summary.median_us,
        "low_us": low,
        "high_us": high,
        "min_us": summary.min_us,
        "p90_us": summary.p90_us,
        "p95_us": summary.p95_us,
        "init_us": summary.init_us,
        "first_us": summary.first_us,
        "spread": summary.spread,
        "delegate_applied": delegation.delegate,
        "partitions": delegation.partitions,
        "ops": delegation.ops,
        "delegated_ops": delegation.delegated_ops,
        "complete": delegation.complete,
        "cores_granted": " ".join(map(str, summary.affinity.granted or ())),
        "init_mb": memory.get("init_mb"),
        "overall_mb": memory.get("overall_mb"),
        "peak_mb": memory.get("peak_mb"),
        "battery_celsius": warmest(summary),
        "valid": summary.verdict.valid,
        "reasons": _FOLDED.join(summary.verdict.reasons),
        "notes": _FOLDED.join(summary.verdict.notes),
        "date": summary.date,
    }


def format_changes(changes: Sequence[Change]) -> str:
    """Returns one line per change: medians of A and B, and B as a multiple of A."""
    columns = {
        "model": [change.model for change in changes],
        "device": [change.target for change in changes],
        "A us": [_number(change.a and change.a.median_us) for change in changes],
        "B us": [_number(change.b and change.b.median_us) for change in changes],
        "B / A [95 %]": [_ratio(change) for change in changes],
        "change": [change.changed for change in changes],
        "notes": [_FOLDED.join(change.notes) for change in changes],
    }
    if len(set(columns["device"])) == 1:
        del columns["device"]
    return _markdown(columns, text=("model", "device", "change", "notes"))


def format_profile(measurement: Measurement) -> str:
    """Returns the ops of a measurement with a profile, the one that takes longest first."""
    ops = _longest_first(measurement)
    columns = {
        "op": [op.name for op in ops],
        "kind": [op.kind for op in ops],
        "mean us": [_number(op.mean_us) for op in ops],
        "calls": [f"{op.calls:g}" for op in ops],
        "share": ["-" if op.percent is None else f"{op.percent:.1f}%" for op in ops],
    }
    head = f"Ops of {_safe(measurement.model)} on {_safe(measurement.device.target)}:"
    return f"{head}\n\n{_markdown(columns, text=('op', 'kind'))}"


def format_profiles_csv(measurements: Iterable[Measurement]) -> str:
    """Returns a head and one line per op of the measurements, in the order of `format_profile`."""
    return _csv(
        {"model": measurement.model, "target": measurement.device.target} | dataclasses.asdict(op)
        for measurement in measurements
        for op in _longest_first(measurement)
    )


def _longest_first(measurement: Measurement) -> list[OpTime]:
    return sorted(measurement.profile or (), key=lambda op: op.mean_us * op.calls, reverse=True)


def warmest(summary: Summary) -> float | None:
    """Returns the battery's highest temperature before and after the rounds, in degrees Celsius."""
    states = [state for row in summary.rounds for state in (row.before, row.after)]
    known = [state.battery_celsius for state in states if state.battery_celsius is not None]
    return max(known, default=None)


def _microseconds(value: float, bounds: tuple[float, float] | None) -> str:
    return f"{value:.1f}" + (f" [{bounds[0]:.1f}, {bounds[1]:.1f}]" if bounds else "")


def _ratio(change: Change) -> str:
    if change.ratio is None:
        return "-"
    bounds = change.interval
    return f"{change.ratio:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _verdict(verdict: Verdict) -> str:
    text = "valid" if verdict.valid else "invalid: " + _FOLDED.join(verdict.reasons)
    return text + (f" (note: {_FOLDED.join(verdict.notes)})" if verdict.notes else "")


def _delegate(delegation: Delegation) -> str:
    """Returns such as "xnnpack, 2 partitions, 3 of 30 ops outside", as far as it is known."""
    parts = [delegation.delegate or "not told"]
    if delegation.partitions:
        parts.append(f"{delegation.partitions} partition{'s' * (delegation.partitions > 1)}")
    if delegation.delegate == "cpu":
        return parts[0]  # all ops are outside of a delegate
    if None not in (delegation.ops, delegation.delegated_ops):
        outside = delegation.ops - delegation.delegated_ops
        if outside:
            parts.append(f"{outside} of {delegation.ops} ops outside")
    elif delegation.complete is False:
        parts.append("ops outside")
    return ", ".join(parts)


def _markdown(columns: dict[str, list[str]], text: Sequence[str]) -> str:
    """Returns a table with columns padded to one width each, those of text to the left."""
    cells = {
        name: [name, *(map(_safe, column) if name in text else column)]
        for name, column in columns.items()
    }
    padded = []
    for name, column in cells.items():
        width = max(map(len, column))
        pad = str.ljust if name in text else str.rjust
        rule = ":" + "-" * (width - 1) if name in text else "-" * (width - 1) + ":"
        head, *body = (pad(cell, width) for cell in column)
        padded.append([head, rule, *body])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def _safe(text: str) -> str:
    """Returns text that cannot break a table, a page or the terminal, whatever a file is called.

    What Markdown could take for more than text is a code span.
    """
    text = one_line(text, None)
    if _MARKUP.search(text):
        fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
        space = " " * ("`" in (text[0], text[-1]))
        text = f"{fence}{space}{text}{space}{fence}"
    return text.replace("|", "\\|")
