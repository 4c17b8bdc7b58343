"""The op profile of benchmark_model: time per op, from its CSV file or from its stdout.

The CSV is none by RFC 4180. It holds several tables, twice (initialization, then runs), under
equal titles; types of ops contain the separator, and in names commas became tabs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mobile_bench.tool.lines import Stats, read_stats

_MAX_CHARS = 16_000_000
_MAX_QUOTE = 80
_TITLE = re.compile(r"=+ (Run Order|Top by Computation Time|Summary by node type) =+$")
_INIT_PART = "Profiling Info for Benchmark Initialization:"
_RUNS_PART = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_TIMINGS = "Timings (microseconds): "
_END = re.compile(r"\d{1,9} nodes observed$")


@dataclass(frozen=True)
class OpTime:
    """One op, or a step of initialization.

    Attributes:
        name: Where it stands in the graph, such as "Delegate/Add (ND):17". With several delegate
            partitions, ops of equal names are merged into one.
        node_type: Kind of op, such as "Convolution (NHWC, F32) DWConv".
        first_ms: Its first call.
        avg_ms: Mean of a call, over all runs.
        percent: Its share of the profiled time; None where the tool divided by zero.
        mem_kb: Growth of memory during a call.
        times_called: Calls in a run.
    """

    name: str
    node_type: str
    first_ms: float
    avg_ms: float
    percent: float | None
    mem_kb: float
    times_called: int

    @property
    def total_ms(self) -> float:
        """Its mean time in a run."""
        return self.avg_ms * self.times_called


@dataclass(frozen=True)
class TypeTime:
    """All ops of a type: how many, and their mean time in a run.

    The tool cuts each op to whole microseconds before it adds them: the time is too small by up to
    a microsecond per op.
    """

    node_type: str
    count: int
    avg_ms: float
    percent: float | None
    mem_kb: float
    times_called: int


@dataclass(frozen=True)
class OpProfile:
    """What benchmark_model found by profiling; ops are in the order of the graph.

    Attributes:
        init_ops: The steps of initialization.
        ops: The ops of the model.
        types: The same by type of op, the slowest first.
        runs: Runs that were profiled.
        run_us: Mean of the profiled time of a run.
    """

    init_ops: tuple[OpTime, ...]
    ops: tuple[OpTime, ...]
    types: tuple[TypeTime, ...]
    runs: int
    run_us: float


def read_op_profile(text: str) -> OpProfile:
    """Reads a profile, as CSV or as printed on stdout (other output around it does no harm).

    Raises:
        ValueError: The profile is damaged, cut short or not there; the message names the line.
    """
    if len(text) > _MAX_CHARS:
        raise ValueError(f"op profile: expected at most {_MAX_CHARS} characters, got {len(text)}")
    init, runs = _Part(), _Part()
    part = runs  # builds of 2019 have no titles of parts
    lines = re.split(r"\r\n|\n|\r", text)
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix("INFO: ")
        if line in (_INIT_PART, _RUNS_PART):
            part = init if line == _INIT_PART else runs
            continue
        try:
            part.read(line)
        except ValueError as error:
            raise ValueError(f"op profile, line {number}: {error}") from error
    if not (runs.complete and runs.types and runs.timings and runs.timings.count):
        raise ValueError(f"op profile: ends before the table of types, after {len(lines)} lines")
    return OpProfile(
        init_ops=tuple(init.ops),
        ops=tuple(runs.ops),
        types=tuple(runs.types),
        runs=runs.timings.count,
        run_us=runs.timings.values["avg"],
    )


class _Part:
    """The tables of one part, read line by line."""

    def __init__(self) -> None:
        self.ops: list[OpTime] = []
        self.types: list[TypeTime] = []
        self.timings: Stats | None = None
        self.complete = False
        self._table: str | None = None
        self._columns: list[str] | None = None

    def read(self, line: str) -> None:
        """Takes a line.

        Raises:
            ValueError: It is damaged.
        """
        if title := _TITLE.match(line):
            self._table, self._columns = title[1], None
        elif self._table is None:
            self._read_end(line)
        elif not line.strip():
            self._table = None
        elif self._columns is None:
            self._columns = _columns(line)
        elif self._table != "Top by Computation Time":  # which repeats the slowest ops
            self._read_row(_fields(line, self._columns))

    def _read_row(self, row: dict[str, str]) -> None:
        common = {
            "node_type": row["node type"],
            "avg_ms": _number(row, "avg ms"),
            "mem_kb": _number(row, "mem kb", low=-math.inf),
            "times_called": _whole(row, "times called"),
        }
        if self._table == "Run Order":
            # The tool puts tabs for the commas of a name in CSV.
            name = row["name"].replace("\t", ",")
            first = _number(row, "first")
            self.ops.append(OpTime(name=name, first_ms=first, percent=_percent(row, "%"), **common))
        else:
            count, percent = _whole(row, "count"), _percent(row, "avg %")
            self.types.append(TypeTime(count=count, percent=percent, **common))

    def _read_end(self, line: str) -> None:
        if line.startswith(_TIMINGS):
            self.timings = read_stats(line.removeprefix(_TIMINGS))
        elif _END.match(line):
            self.complete = True


# Columns that are read, of the table of ops and of that of types.
_NEEDED = (
    {"node type", "first", "avg ms", "%", "mem kb", "times called", "name"},
    {"node type", "count", "avg ms", "avg %", "mem kb", "times called"},
)


def _columns(line: str) -> list[str]:
    """The names of a table's columns in one spelling: `avg_ms` and `[avg ms]` are "avg ms"."""
    parts = line.split("\t")[1:] if line.startswith("\t") else line.split(", ")
    columns = [part.strip().strip("[]").replace("_", " ").lower() for part in parts]
    if columns[0] != "node type" or not any(needed <= set(columns) for needed in _NEEDED):
        raise ValueError(f"expected the names of columns, got {_quote(line)}")
    return columns


def _fields(line: str, columns: Sequence[str]) -> dict[str, str]:
    """Splits a row. In CSV only the type, the first column, may contain the separator."""
    if line.startswith("\t"):
        values = [value.strip() for value in line.split("\t")[1:]]
    else:
        values = line.rsplit(", ", len(columns) - 1)
    if len(values) != len(columns):
        raise ValueError(f"expected {len(columns)} values, got {_quote(line)}")
    return dict(zip(columns, values, strict=True))


def _number(row: dict[str, str], column: str, low: float = 0.0) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= low):
        raise ValueError(f"expected a number as {column}, got {_quote(row[column])}")
    return value


def _whole(row: dict[str, str], column: str) -> int:
    value = _number(row, column)
    if not value.is_integer():
        raise ValueError(f"expected a whole number as {column}, got {_quote(row[column])}")
    return int(value)


def _percent(row: dict[str, str], column: str) -> float | None:
    if row[column] in ("-nan%", "nan%"):  # no time at all was profiled
        return None
    return _number({column: row[column].removesuffix("%")}, column)


def _quote(text: str) -> str:
    return repr(text[:_MAX_QUOTE])
