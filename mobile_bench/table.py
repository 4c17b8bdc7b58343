"""The measurements as a Markdown table, which reads as plain text too."""

from __future__ import annotations

from collections.abc import Iterable

from mobile_bench.results import Measurement

_HEAD = ("model", "median us", "p90 us", "spread", "runs", "init ms", "delegate", "verdict")


def format_table(measurements: Iterable[Measurement]) -> str:
    """Returns one line per measurement, under a head, columns padded to one width."""
    rows = [_HEAD, *(_cells(measurement) for measurement in measurements)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = [_line(row, widths) for row in rows]
    rule = [
        ":" + "-" * (w - 1) if _is_text(i) else "-" * (w - 1) + ":" for i, w in enumerate(widths)
    ]
    return "\n".join([lines[0], _line(tuple(rule), widths), *lines[1:]])


def _cells(measurement: Measurement) -> tuple[str, ...]:
    timings, verdict = measurement.timings, measurement.verdict
    return (
        _safe(measurement.model),
        f"{timings.median_us:.1f}",
        f"{timings.p90_us:.1f}",
        "-" if timings.spread is None else f"{timings.spread:.1%}",
        str(timings.count),
        f"{timings.init_us / 1000:.1f}",
        _delegate(measurement),
        "valid" if verdict.valid else "invalid: " + _safe("; ".join(verdict.reasons)),
    )


def _delegate(measurement: Measurement) -> str:
    delegation = measurement.delegation
    if not delegation.partitions:
        return delegation.delegate
    outside = sum(delegation.ops_outside.values())
    return (
        f"{delegation.delegate}, {delegation.partitions} "
        f"partition{'' if delegation.partitions == 1 else 's'}"
        + (f", {outside} of {delegation.ops} ops outside" if outside else "")
    )


def _safe(text: str) -> str:
    """Returns text that cannot break the table or the terminal, whatever a file is called."""
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return printable.replace("|", "\\|")


def _is_text(column: int) -> bool:
    return _HEAD[column] in ("model", "delegate", "verdict")


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = (
        cell.ljust(width) if _is_text(i) else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"
