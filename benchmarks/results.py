"""The kept results: a CSV file for each part of `make bench`, each row with all that is known."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from records import Record, as_lines, from_row, read_csv, to_row, write_csv

# Where these differ, a result says nothing of what would be measured now.
_SAME = (
    *("arguments", "quick", "code"),
    *("python", "tensorflow", "keras", "torch", "ofa", "ai-edge-litert", "numpy"),
    *("cpu", "cores", "cpu_flags", "memory_gb"),
)


@dataclass(frozen=True)
class Result:
    """What a part measured.

    Attributes:
        part: Its name, which is the file's.
        records: What was measured, in order.
        context: Columns that are equal in all rows: date, versions, machine, ...
    """

    part: str
    records: tuple[Record, ...]
    context: dict[str, str]

    def is_of(self, context: dict[str, str]) -> bool:
        """Whether it was measured with the same code, settings, versions and machine."""
        return all(self.context.get(name) == context.get(name) for name in _SAME)

    def write(self, folder: pathlib.Path) -> pathlib.Path:
        """Writes PART.csv. Raises FailureError where that fails."""
        path = folder / f"{self.part}.csv"
        rows = [
            {"part": self.part, **to_row(record), **_derived(record), **self.context}
            for record in self.records
        ]
        write_csv(path, rows)
        return path

    def caption(self) -> str:
        """When, how long and beside what it was measured."""
        context = self.context
        marks = [
            "quick settings: not a measurement" if context["quick"] == "yes" else "",
            f"busy: others took {context['others_cores']} cores"
            if context["busy"] == "yes"
            else "",
        ]
        begun = [context["date"], f"{float(context['seconds']) / 60:.1f} min"]
        return ", ".join(filter(None, begun + marks))

    def lines(self) -> Iterable[str]:
        """The result as lines of text."""
        yield f"{self.part}: {self.caption()}"
        yield from as_lines(self.records)


def read_result(folder: pathlib.Path, part: str) -> Result | None:
    """The result of a part in a folder; None without one, or where its file cannot be read."""
    try:
        rows = read_csv(folder / f"{part}.csv")
        records = tuple(from_row(row) for row in rows)
    except (OSError, ValueError):
        return None
    if not rows:
        return None
    own = {"part", *to_row(records[0]), *_derived(records[0])}
    context = {name: value for name, value in rows[0].items() if name not in own}
    return Result(part, records, context)


def _derived(record: Record) -> dict[str, str]:
    """What a spreadsheet wants to see; read from nowhere, since it follows from the values."""
    ratios = record.ratios
    return {
        "ours_median": f"{statistics.median(record.ours):.6g}",
        "reference_median": f"{statistics.median(record.reference):.6g}" if ratios else "",
        "ratio_median": f"{statistics.median(ratios):.4f}" if ratios else "",
        "ratio_min": f"{min(ratios):.4f}" if ratios else "",
        "ratio_max": f"{max(ratios):.4f}" if ratios else "",
        "count": str(len(record.ours)),
        "met": {True: "yes", False: "no", None: ""}[record.met],
    }
