"""What a benchmark measured: a record with the values of both sides, its ratio and its goal.

Every script here yields records and hands them to `report`, which prints each as it comes and
writes them all as JSON where it is asked to. Plain Python, without NumPy or TensorFlow.
"""

from __future__ import annotations

import argparse
import dataclasses
import operator
import pathlib
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ofa_tf.files import write_json

_GOAL = re.compile(r"(all )?(>=|<=) (\d+(?:\.\d+)?)")
_RELATIONS = {">=": operator.ge, "<=": operator.le}


@dataclasses.dataclass(frozen=True)
class Record:
    """One comparison: a quantity of ours and, where there is one, of what it is compared with.

    Attributes:
        setting: What all values were measured with, such as space, resolution and batch size.
        case: What was measured, such as "train step, largest".
        unit: Of the values, such as "images/s".
        ours: Our values, one of each repeat; or of each arch, see `of`.
        reference: Those of the other side, measured in turn with ours; empty without one.
        against: What the other side is, such as "PyTorch reference".
        goal: What was asked of the ratio's median (of ours where there is no other side), such as
            ">= 2"; of every ratio in "all >= 1". Empty without a goal.
        of: What the values are of: "repeats", "archs", ...

    Raises:
        ValueError: There are no values, not as many on both sides, or the goal cannot be read.
    """

    setting: str
    case: str
    unit: str
    ours: tuple[float, ...]
    reference: tuple[float, ...] = ()
    against: str = ""
    goal: str = ""
    of: str = "repeats"

    def __post_init__(self) -> None:
        if not self.ours or len(self.reference) not in (0, len(self.ours)):
            raise ValueError(
                f"{self.case}: {len(self.ours)} values and {len(self.reference)} of the reference; "
                "expected some, and as many on both sides"
            )
        if self.goal and not _GOAL.fullmatch(self.goal):
            raise ValueError(f'goal {self.goal!r}: expected one like ">= 2" or "all <= 1.05"')

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over the other side's, pair by pair; empty without another side."""
        if not self.reference:
            return ()
        pairs = zip(self.ours, self.reference, strict=True)
        return tuple(mine / other if other else float("inf") for mine, other in pairs)

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None without one."""
        goal = _GOAL.fullmatch(self.goal)
        if not goal:
            return None
        values = self.ratios or self.ours
        judged = values if goal[1] else [statistics.median(values)]
        return all(_RELATIONS[goal[2]](value, float(goal[3])) for value in judged)


HEADS = ("", "ours", "other", "ratio (min to max)", "of", "against", "goal")


def cells(record: Record) -> tuple[str, ...]:
    """The record under the columns HEADS; of several values the median."""
    return (
        f"{record.case}, {record.unit}" if record.unit else record.case,
        _middle(record.ours),
        _middle(record.reference),
        _spread(record.ratios),
        f"{len(record.ours)} {record.of}" if len(record.ours) > 1 else "",
        record.against,
        f"{record.goal}: {'met' if record.met else 'missed'}" if record.goal else "",
    )


def _middle(values: Sequence[float]) -> str:
    return number(statistics.median(values)) if values else ""


def number(value: float) -> str:
    """A value with four significant digits, or with all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    median, least, most = statistics.median(ratios), min(ratios), max(ratios)
    near = all(abs(ratio - 1) < 0.02 for ratio in ratios)
    digits = 3 if near else 2 if median < 10 else 0
    if len(ratios) == 1:
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def as_lines(records: Iterable[Record]) -> Iterator[str]:
    """The records as lines of text, each setting above its own."""
    setting = None
    for record in records:
        if record.setting != setting:
            setting = record.setting
            yield f"  {setting}"
        yield _line(cells(record))


def head_line() -> str:
    """The columns' names over `as_lines`."""
    return _line(HEADS)


def _line(texts: Sequence[str]) -> str:
    case, ours, other, ratio, of, against, goal = texts
    return f"    {case:<46}{ours:>9}{other:>9}{ratio:>22}  {of:<11}{against:<21}{goal}".rstrip()


def parser(doc: str) -> argparse.ArgumentParser:
    """With the help of a script's docstring, and the flag that every script has."""
    made = argparse.ArgumentParser(description=doc.partition("\n")[0])
    made.add_argument("--records", type=pathlib.Path, help="a JSON file for what is measured")
    return made


def report(records: Iterable[Record], path: pathlib.Path | None) -> None:
    """Prints each record when it is there, and writes all of them at the end.

    Raises:
        FailureError: The file cannot be written.
    """
    kept: list[Record] = []

    def passing() -> Iterator[Record]:
        for record in records:
            kept.append(record)
            yield record

    print(head_line(), flush=True)
    for line in as_lines(passing()):
        print(line, flush=True)
    if path:
        write_json(path, [dataclasses.asdict(record) for record in kept])


def from_json(row: dict[str, Any]) -> Record:
    """A record as `report` wrote it."""
    return Record(**row | {name: tuple(row[name]) for name in ("ours", "reference")})


def in_turn(
    subjects: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, tuple[float, ...]]:
    """What each subject measured in each turn, after a turn that warms all of them up."""
    turns = [{name: run() for name, run in subjects.items()} for _ in range(1 + repeats)]
    return {name: tuple(turn[name] for turn in turns[1:]) for name in subjects}
