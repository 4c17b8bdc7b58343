"""The record of one run, from measuring to report, and its strict JSON form.

Nothing here knows how a model is run, so that every target fills the same record.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass
from typing import Any

from mobile_bench.errors import UsageError

# Of the JSON form of a row. A row of 2.1, say, has other fields with defaults and is read, too.
VERSION = 2
MAX_THREADS = 64
MAX_RUNS_PER_ROUND = 100_000
DELEGATES = ("xnnpack", "cpu", "gpu", "nnapi", "hexagon")
SCREENS = ("leave", "on", "off")
NAMED_CPUS = ("big", "little", "auto")


@dataclass(frozen=True)
class Settings:
    """How one run is made and judged; two rows compare only where these are equal.

    A run warms up for at least `warmup_runs` and `warmup_min_secs`, then times at least `num_runs`
    inferences and `min_secs`. Warm-up and timing each end early at `max_secs`.

    Attributes:
        threads: Threads of the runtime.
        cpus: Cores to bind the runtime to: "" leaves it to the system, "big", "little" and "auto"
            are chosen from the device's topology, "0,1,4-7" are numbers and "0xf0" is a mask.
        delegate: Delegate asked for, one of DELEGATES; "cpu" is the runtime's own kernels.
        num_runs: Least number of timed inferences.
        min_secs: Least seconds of timed inferences.
        max_secs: Seconds after which warm-up and timing each start no further inference.
        warmup_runs: Least number of warm-up inferences.
        warmup_min_secs: Least seconds of warm-up.
        require_full_delegation: Whether a run with an op outside the delegate is invalid.
        memory: Whether the peak of memory is watched, which slows what is timed.
        op_profile: Whether every op is timed, which slows what is timed.
        screen: "on", "off", or "leave" it as it is, while a phone is measured.
        max_spread: Largest difference of the rounds' medians, as a fraction of their median, in a
            valid summary.
        max_celsius: Battery temperature above which a run is invalid; None for any.

    Raises:
        UsageError: A value is out of its range.
    """

    threads: int = 1
    cpus: str = ""
    delegate: str = "xnnpack"
    num_runs: int = 50
    min_secs: float = 1.0
    max_secs: float = 60.0
    warmup_runs: int = 1
    warmup_min_secs: float = 0.5
    require_full_delegation: bool = False
    memory: bool = False
    op_profile: bool = False
    screen: str = "leave"
    max_spread: float = 0.1
    max_celsius: float | None = 37.0

    def __post_init__(self) -> None:
        _check_range("threads", self.threads, 1, MAX_THREADS)
        _check_range("num_runs", self.num_runs, 1, MAX_RUNS_PER_ROUND)
        _check_range("warmup_runs", self.warmup_runs, 0, MAX_RUNS_PER_ROUND)
        _check_range("max_secs", self.max_secs, 0.001, 86400)
        _check_range("min_secs", self.min_secs, 0, self.max_secs)
        _check_range("warmup_min_secs", self.warmup_min_secs, 0, self.max_secs)
        _check_range("max_spread", self.max_spread, 0, 100)
        if self.max_celsius is not None:
            _check_range("max_celsius", self.max_celsius, 0, 100)
        _check_choice("delegate", self.delegate, DELEGATES)
        _check_choice("screen", self.screen, SCREENS)
        if self.cpus not in ("", *NAMED_CPUS):
            parse_cpus(self.cpus)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name}: expected {low} to {high}, got {value}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name}: expected one of {', '.join(choices)}, got {value!r:.80}")


def parse_cpus(text: str) -> tuple[int, ...]:
    """Returns the core numbers of "0,1,4-7" or of a mask such as "0xf0", in ascending order.

    Raises:
        UsageError: The text is neither, names no core, or a core above 1023.
    """
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,256}", text):
        mask = int(text, 16)
        cores = {core for core in range(mask.bit_length()) if mask >> core & 1}
    elif re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text, re.ASCII):
        ranges = [part.partition("-")[::2] for part in text.split(",")]
        cores = {core for low, high in ranges for core in range(int(low), int(high or low) + 1)}
    else:
        cores = set()
    if not cores or max(cores) > 1023:
        raise UsageError(
            f"cpus: expected {', '.join(NAMED_CPUS)}, core numbers such as 0,1,4-7 or a mask such "
            f"as 0xf0, got {text!r:.80}"
        )
    return tuple(sorted(cores))


@dataclass(frozen=True)
class Device:
    """What a model ran on, apart from what changes from minute to minute (`DeviceState`).

    Attributes:
        target: As asked for: "host", or the serial that adb knows it by.
        serial: The device's own serial, equal by cable and by Wi-Fi; "" where there is none.
        maker: Who made it; "" where that is not known.
        model: Its name as its maker has it.
        cpu: Its SoC, or its CPU's model name.
        os: System and version.
        build: The exact build of the system (a phone's fingerprint).
        abis: What its programs are compiled for, the preferred one first.
        core_max_khz: Highest frequency of each core in kHz; None where the system does not tell.
    """

    target: str
    serial: str
    maker: str
    model: str
    cpu: str
    os: str
    build: str
    abis: tuple[str, ...]
    core_max_khz: tuple[int | None, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from others, however it is connected and whichever cores are on."""
        return (self.serial or self.target, self.maker, self.model, self.cpu, self.os, self.build)


@dataclass(frozen=True)
class DeviceState:
    """How a device was at a moment; None and () where it does not tell.

    Attributes:
        date: UTC, ISO 8601, by this host's clock.
        battery_percent: Charge.
        charging: Whether the battery is being charged: a full one on a cable is not.
        battery_celsius: Temperature of the battery.
        thermal_status: Android's, 0 (none) to 6 (shutdown); from 3 (severe) on it throttles.
        core_khz: Frequency of each core now, in kHz.
        core_limit_khz: Highest frequency that each core may take now, in kHz.
        governors: What sets the frequency of each core.
        screen_on: Whether the screen is on.
        notes: What of its answers was odd, and is therefore None, one line each.
    """

    date: str
    battery_percent: int | None = None
    charging: bool | None = None
    battery_celsius: float | None = None
    thermal_status: int | None = None
    core_khz: tuple[int | None, ...] = ()
    core_limit_khz: tuple[int | None, ...] = ()
    governors: tuple[str | None, ...] = ()
    screen_on: bool | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tool:
    """What ran the model.

    Attributes:
        name: "ai-edge-litert", "benchmark_model" or "benchmark_model.apk".
        version: Its version; for a tool that does not tell, which output it prints.
        sha256: Hash of its file, in hex; "" for a Python package.
    """

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Affinity:
    """Cores asked for and granted; None where that is left to the system, or cannot be known.

    Attributes:
        asked: The cores that `Settings.cpus` means on this device.
        granted: Those that the timed process was allowed to use, read back from it.
    """

    asked: tuple[int, ...] | None
    granted: tuple[int, ...] | None


@dataclass(frozen=True)
class Delegation:
    """What the runtime handed to its delegate; None where the tool does not tell.

    Attributes:
        delegate: The delegate that was applied, one of DELEGATES ("cpu" for none).
        partitions: Pieces of the graph it took.
        ops: Ops of the model's main graph.
        delegated_ops: Ops that it took.
        ops_outside: The other ops, counted by name.
        complete: Whether it took all of the graph.
    """

    delegate: str | None
    partitions: int | None = None
    ops: int | None = None
    delegated_ops: int | None = None
    ops_outside: dict[str, int] | None = None
    complete: bool | None = None


@dataclass(frozen=True)
class Timings:
    """Times of one run in microseconds; None where the tool does not tell.

    Attributes:
        count: Timed inferences.
        init_us: Reading the model, applying the delegate, allocating tensors.
        first_us: The first inference after that.
        warmup_mean_us: Mean of the warm-up inferences, the first one included.
        std_us: Standard deviation of the population of inferences.
    """

    count: int
    mean_us: float
    median_us: float | None = None
    min_us: float | None = None
    max_us: float | None = None
    std_us: float | None = None
    p5_us: float | None = None
    p90_us: float | None = None
    p95_us: float | None = None
    init_us: float | None = None
    first_us: float | None = None
    warmup_count: int | None = None
    warmup_mean_us: float | None = None

    @property
    def typical_us(self) -> float:
        """The median; the mean of a tool that prints none, or 0 for less than a microsecond."""
        return self.median_us or self.mean_us

    @property
    def fast_us(self) -> float:
        """The 5th percentile; the least or the mean of a tool that prints none, or 0."""
        return self.p5_us or self.min_us or self.mean_us


@dataclass(frozen=True)
class Memory:
    """Memory of the timed process in MB, as its tool estimates it; None where it does not tell.

    Attributes:
        init_mb: What loading the model added.
        overall_mb: What there was more than at the start in the end.
        peak_mb: The peak, where it was watched.
    """

    init_mb: float | None = None
    overall_mb: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True)
class OpTime:
    """The time of one op of the model, or of one partition of the delegate.

    Attributes:
        name: Its name in the graph.
        kind: What it computes, as the runtime calls it.
        mean_us: Mean of its calls.
        calls: Calls per inference.
        percent: Its share of the time of all ops.
    """

    name: str
    kind: str
    mean_us: float
    calls: float
    percent: float | None


@dataclass(frozen=True)
class Verdict:
    """Whether the timings can be believed, and every reason why not.

    A reason begins with its kind: "too few runs:", "fallback:", "affinity:", "throttled:", "hot:",
    "screen:", "unstable:" or "tool:" (what the benchmark tool complained about).

    Attributes:
        notes: What is good to know and makes nothing invalid, as "clocks:", "cores:", "threads:"
            or "tool:".
    """

    valid: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.valid == bool(self.reasons):
            raise ValueError("verdict: reasons are for invalid measurements, and all of those")

    @classmethod
    def of(cls, reasons: typing.Iterable[str], notes: typing.Iterable[str] = ()) -> Verdict:
        """Returns the verdict with these reasons: valid where there is none."""
        reasons = tuple(reasons)
        return cls(not reasons, reasons, tuple(notes))


@dataclass(frozen=True)
class Measurement:
    """One run of one model on one target: a row of a results file.

    Attributes:
        session: Which call measured it: a resumed call goes on with the session of its rows.
        round: Which of the rounds over all models, from 0.
        date: When the run was finished, UTC, ISO 8601.
        model: Path of the model as it was given.
        sha256: Hash of the file's bytes, in hex.
        size_bytes: Size of the file.
        inputs: Type and shape of each input as run, such as "float32[1,224,224,3]"; () where the
            tool does not tell.
        command: The tool's command line; "" where there is none.
        memory: None where the tool does not tell.
        profile: Each op's time where asked for.
        before: The device just before the run.
        after: The device just after it.
    """

    session: str
    round: int
    date: str
    model: str
    sha256: str
    size_bytes: int
    inputs: tuple[str, ...]
    device: Device
    tool: Tool
    command: str
    settings: Settings
    affinity: Affinity
    delegation: Delegation
    timings: Timings
    memory: Memory | None
    profile: tuple[OpTime, ...] | None
    before: DeviceState
    after: DeviceState
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as JSON would give it back; `from_dict` takes it."""
        return {"version": VERSION, **_encode(dataclasses.asdict(self))}

    @classmethod
    def from_dict(cls, values: dict[str, Any], unknown: set[str] | None = None) -> Measurement:
        """Rebuilds a record from its JSON form.

        Args:
            values: The form. Fields that came later and are missing take their defaults; fields
                that only a later version knows are left out.
            unknown: Gets the names of those that were left out, such as "after.humidity".

        Raises:
            ValueError: The form is of another version, a key is missing that has no default, or a
                value is of another type; the message names the key.
        """
        if not isinstance(values, dict):
            raise ValueError(f"row: expected an object, got {values!r:.80}")
        version = values.get("version", 1)
        if type(version) not in (int, float) or version // 1 != VERSION:
            raise ValueError(
                f"this is a row of version {version!r:.20} of mobile_bench's files, this is version"
                f" {VERSION}; measure again into another file"
            )
        rest = {key: value for key, value in values.items() if key != "version"}
        row = _decode(rest, cls, "", set() if unknown is None else unknown)
        for name, value in dataclasses.asdict(row.timings).items():
            if value is not None and value < 0:
                raise ValueError(f"timings.{name}: expected 0 or more, got {value:g}")
        return row


def _encode(value: Any) -> Any:
    """Returns a value with lists in place of tuples, so that it equals what is read again."""
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(value: Any, expected: Any, where: str, unknown: set[str]) -> Any:
    """Returns a JSON value as the annotated type `expected`; `where` names it in errors."""
    if dataclasses.is_dataclass(expected):
        return _decode_record(value, expected, where, unknown)
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is types.UnionType:  # only "T | None" is used
        return None if value is None else _decode(value, arguments[0], where, unknown)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(
            _decode(v, arguments[0], f"{where}[{i}]", unknown) for i, v in enumerate(value)
        )
    if origin is dict and isinstance(value, dict):
        return {k: _decode(v, arguments[1], f"{where}.{k}", unknown) for k, v in value.items()}
    if expected is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if expected is int and type(value) is int and abs(value) < 2**63:
        return value
    if expected in (str, bool) and type(value) is expected:
        return value
    name = getattr(expected, "__name__", str(expected)) if origin is None else str(expected)
    raise ValueError(f"{where}: expected {name}, got {value!r:.80}")


def _decode_record(value: Any, expected: Any, where: str, unknown: set[str]) -> Any:
    label = where or "row"
    if not isinstance(value, dict):
        raise ValueError(f"{label}: expected an object, got {value!r:.80}")
    hints = typing.get_type_hints(expected)
    needed = {
        field.name for field in dataclasses.fields(expected) if field.default is dataclasses.MISSING
    }
    missing = sorted(needed - value.keys())
    if missing:
        raise ValueError(f"{label}: missing {', '.join(missing)}")
    prefix = f"{where}." if where else ""
    unknown.update(re.sub(r"\[\d+]", "", prefix) + key for key in value.keys() - hints.keys())
    known = value.keys() & hints.keys()
    return expected(**{k: _decode(value[k], hints[k], prefix + k, unknown) for k in known})
