"""The record of one measurement, from measuring to report, and its strict JSON form.

Nothing here knows how a model is run, so that every target fills the same record.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

from mobile_bench.errors import UsageError

MAX_THREADS = 64
MAX_RUNS_PER_ROUND = 100_000


@dataclass(frozen=True)
class Settings:
    """How a model is timed; two rows compare only where these are equal.

    A round warms up for at least `warmup_runs` and `warmup_min_secs`, then runs for at least
    `num_runs` and `min_secs`. Warm-up and runs each end early at `max_secs`, and at 100,000 runs
    whatever `min_secs` says.

    Attributes:
        threads: Threads of the runtime.
        cpus: Cores the runtime is bound to, in ascending order; None leaves it to the system.
        delegate: Delegate asked for, "xnnpack" or "none".
        num_runs: Least number of timed runs in a round.
        min_secs: Least seconds of timed runs in a round.
        max_secs: Seconds after which warm-up and runs each start no further run.
        warmup_runs: Least number of warm-up runs in a round.
        warmup_min_secs: Least seconds of warm-up in a round.
        rounds: Times every model is measured, interleaved with the others.
        max_spread: Largest spread of a valid measurement (see `Timings.spread`).

    Raises:
        UsageError: A value is out of its range.
    """

    threads: int = 1
    cpus: tuple[int, ...] | None = None
    delegate: str = "xnnpack"
    num_runs: int = 50
    min_secs: float = 1.0
    max_secs: float = 60.0
    warmup_runs: int = 1
    warmup_min_secs: float = 0.5
    rounds: int = 3
    max_spread: float = 0.1

    def __post_init__(self) -> None:
        _check_range("threads", self.threads, 1, MAX_THREADS)
        _check_range("num_runs", self.num_runs, 1, MAX_RUNS_PER_ROUND)
        _check_range("warmup_runs", self.warmup_runs, 0, MAX_RUNS_PER_ROUND)
        _check_range("rounds", self.rounds, 1, 1000)
        _check_range("max_secs", self.max_secs, 0.001, 86400)
        _check_range("min_secs", self.min_secs, 0, self.max_secs)
        _check_range("warmup_min_secs", self.warmup_min_secs, 0, self.max_secs)
        _check_range("max_spread", self.max_spread, 0, 100)
        if self.delegate not in ("xnnpack", "none"):
            raise UsageError(f"delegate: expected xnnpack or none, got {self.delegate!r}")
        if self.cpus is not None and list(self.cpus) != sorted(set(self.cpus)):
            raise UsageError(f"cpus: expected ascending core numbers, got {self.cpus}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name}: expected {low} to {high}, got {value}")


@dataclass(frozen=True)
class Device:
    """What the model ran on: `target` as asked for, CPU model, number of cores, system."""

    target: str
    cpu: str
    cores: int
    os: str


@dataclass(frozen=True)
class Tool:
    """What ran the model: name and version of the runtime, and of Python around it."""

    name: str
    version: str
    python: str


@dataclass(frozen=True)
class Delegation:
    """What the runtime handed to its delegate.

    Attributes:
        delegate: The delegate that was applied, "xnnpack" or "none".
        partitions: Pieces of the graph it took.
        ops: Ops of the model's main graph.
        ops_outside: Ops that it did not take, counted by name.
    """

    delegate: str
    partitions: int
    ops: int
    ops_outside: dict[str, int]


@dataclass(frozen=True)
class Timings:
    """Times of one model in microseconds, over the runs of all rounds.

    Attributes:
        init_us: Reading the model, applying the delegate, allocating tensors; once. The
            first model that a process loads pays about a millisecond more, for the delegate.
        first_us: The first run after that.
        warmup_mean_us: Mean of all warm-up runs, the first run included; None without warm-up.
        std_us: Standard deviation of the population of runs.
        round_medians_us: The median of each round, in order.
        spread: (largest - smallest round median) / median; None with one round.
    """

    init_us: float
    first_us: float
    warmup_count: int
    warmup_mean_us: float | None
    count: int
    mean_us: float
    std_us: float
    min_us: float
    max_us: float
    median_us: float
    p5_us: float
    p90_us: float
    p95_us: float
    round_medians_us: tuple[float, ...]
    spread: float | None


@dataclass(frozen=True)
class Verdict:
    """Whether the timings can be believed, and every reason why not."""

    valid: bool
    reasons: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.valid == bool(self.reasons):
            raise ValueError("verdict: reasons are for invalid measurements, and all of those")


@dataclass(frozen=True)
class Measurement:
    """One model, timed on one target: the row of a results file.

    Attributes:
        model: Path of the model as it was given.
        sha256: Hash of the file's bytes, in hex.
        size_bytes: Size of the file.
        inputs: Type and shape of each input as run, such as "float32[1,224,224,3]".
        cpus: Cores the runtime was allowed to use, read back; None where that cannot be known.
        date: When the measurement was finished, UTC, ISO 8601.
    """

    model: str
    sha256: str
    size_bytes: int
    inputs: tuple[str, ...]
    device: Device
    tool: Tool
    settings: Settings
    cpus: tuple[int, ...] | None
    delegation: Delegation
    timings: Timings
    verdict: Verdict
    date: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as what JSON can hold; `from_dict` takes it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Measurement:
        """Rebuilds a record from its JSON form.

        Raises:
            ValueError: A key is missing or unknown, or a value is of another type; the message
                names the key.
        """
        return _decode(values, cls, "")


def _decode(value: Any, expected: Any, where: str) -> Any:
    """Returns a JSON value as the annotated type `expected`; `where` names it in errors."""
    if dataclasses.is_dataclass(expected):
        return _decode_record(value, expected, where)
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is types.UnionType:  # only "T | None" is used
        return None if value is None else _decode(value, arguments[0], where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_decode(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _decode(v, arguments[1], f"{where}.{key}") for key, v in value.items()}
    if expected is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if expected in (int, str, bool) and type(value) is expected:
        return value
    name = getattr(expected, "__name__", str(expected)) if origin is None else str(expected)
    raise ValueError(f"{where}: expected {name}, got {value!r:.80}")


def _decode_record(value: Any, expected: Any, where: str) -> Any:
    label = where or "row"
    if not isinstance(value, dict):
        raise ValueError(f"{label}: expected an object, got {value!r:.80}")
    hints = typing.get_type_hints(expected)
    missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
    if missing:
        raise ValueError(f"{label}: missing {', '.join(missing)}")
    if unknown:
        raise ValueError(f"{label}: unknown {', '.join(unknown)}")
    prefix = f"{where}." if where else ""
    return expected(**{key: _decode(value[key], hints[key], prefix + key) for key in hints})
