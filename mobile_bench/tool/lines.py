"""What the lines say that benchmark_model prints: one pattern for each kind of line, of every
generation of the tool, with and without prefixes. What follows from them is in output.py.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

MAX_CHARS = 1_000_000  # of each stream; an op profile of thousands of ops still fits
_MAX_LINE = 4096
_MAX_QUOTE = 200

_DELEGATE_OF_KERNEL = {
    "TfLiteXNNPackDelegate": "xnnpack",
    "TfLiteGpuDelegate": "gpu",
    "TfLiteGpuDelegateV2": "gpu",
    "TfLiteNnapiDelegate": "nnapi",
    "TfLiteHexagonDelegate": "hexagon",
}
_LOGCAT = re.compile(
    r"(?:\d\d-\d\d \d\d:\d\d:\d\d\.\d+ +\d+ +\d+ [VDIWEF] [^:]{0,80}: "  # threadtime
    r"|[VDIWEF]/[^(:]{0,80}(?:\( *\d+\))?: )",  # brief
    re.ASCII,
)
_LEVEL = re.compile(r"(INFO|WARN|WARNING|ERROR|FATAL|VERBOSE|DEBUG): ?")


@dataclass(frozen=True)
class Line:
    """A line without its prefixes; `level` is the tool's own, "" where it printed none."""

    level: str
    text: str


def split_lines(text: str) -> list[Line]:
    """Splits what was printed, up to `MAX_CHARS`, into lines that are not empty."""
    lines = []
    for line in re.split(r"\r\n|\n|\r", text[:MAX_CHARS]):
        line = line[:_MAX_LINE].strip(" ")
        if logcat := _LOGCAT.match(line):
            line = line[logcat.end() :]
        level = _LEVEL.match(line)
        if level:
            line = line[level.end() :]
        if line:
            lines.append(Line(level[1] if level else "", line.strip(" ")))
    return lines


def quote(text: str) -> str:
    """Makes text of the tool fit for a message: printable, of bounded length."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: _MAX_QUOTE + 1])
    return shown if len(shown) <= _MAX_QUOTE else f"{shown[: _MAX_QUOTE - 3]}..."


@dataclass(frozen=True)
class Stats:
    """A `count=...` line: its values in microseconds, by their names in it.

    With a count above 0 these are first, min, max, avg and std at least; median, p5 and p95 come
    with current builds.
    """

    count: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """The line of results: "2020" or "2019" by its form, times in microseconds."""

    generation: str
    init: float
    warmup: float
    mean: float


@dataclass(frozen=True)
class Applied:
    """A line that says that a delegate was applied, and how many pieces of the graph it has."""

    delegate: str
    extent: str | None  # "completely", "partially"
    kernels: int | None


@dataclass(frozen=True)
class Replaced:
    """What a delegate took of one graph; the partitions are its own and those of the CPU."""

    ops: int
    total: int | None
    partitions: int | None


@dataclass
class Found:
    """What the lines say, before it is judged.

    Attributes:
        problems: Lines that are damaged, one sentence each.
        notes: What is good to know and speaks against nothing, one sentence each.
        asked: Least number of runs, as the tool repeats its flag.
        announced: Least number of runs of each phase that began: warm-up, runs.
        stats: In order, with the number of the phase, from 1, that they came in.
        sizes: Fields of ToolRun in megabytes.
        idle: Delegates that were applied and took no op.
        replaced: What the runtime says of each delegate and graph.
        shares: What a delegate says of itself before it is applied, by its name.
        accelerators: Those that NNAPI has on this device; None where it does not tell.
        complaints: Lines that no pattern knows and that say that something went wrong.
        errors: Those of them that the tool calls errors.
        last_said: The last line that had a level; what follows without one goes on with it.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    asked: int | None = None
    announced: list[int] = field(default_factory=list)
    stats: list[tuple[int, Stats]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    sizes: dict[str, float] = field(default_factory=dict)
    unconsumed: list[str] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    idle: set[str] = field(default_factory=set)
    replaced: dict[tuple[str, str], Replaced] = field(default_factory=dict)
    shares: dict[str, Replaced] = field(default_factory=dict)
    accelerators: tuple[str, ...] | None = None
    xnnpack_created: bool = False
    saved: bool = False
    csv_on_stdout: bool = False
    complaints: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    last_said: str = ""


def scan(lines: Sequence[Line]) -> Found:
    """Collects what the lines say."""
    found = Found()
    for line in lines:
        for pattern, note in _PATTERNS:
            if match := pattern.match(line.text):
                note(found, match)
                break
        else:
            # Earlier builds print no levels, so that their words have to tell what is a complaint.
            if line.level in _WRONG or (not line.level and _COMPLAINT.search(line.text)):
                found.complaints.append(line.text)
            if line.level in ("ERROR", "FATAL") and not _HARMLESS_ERROR.match(line.text):
                found.errors.append(line.text)
        if line.level:
            found.last_said = line.text
    return found


# --- The line of statistics -------------------------------------------------------------------

_INT = r"(-?\d{1,15})"
_NUMBER = r"([-+]?(?:\d{1,300}(?:\.\d{0,300})?(?:[eE][-+]?\d{1,3})?|nan|inf))"
_STATS_VALUE = re.compile(rf"(count|first|curr|min|max|avg|std|p5|median|p95)={_NUMBER}", re.ASCII)
_OF_ALL_RUNS = {"first", "curr", "min", "max", "avg", "std"}
_PERCENTILES = {"p5", "median", "p95"}


def read_stats(text: str) -> Stats:
    """Reads a `count=...` line.

    Raises:
        ValueError: It is not complete, or its numbers cannot be.
    """
    values: dict[str, float] = {}
    for part in text.replace("(all same)", "").split():
        match = _STATS_VALUE.fullmatch(part)
        if match is None or match[1] in values:
            raise ValueError(f"'{part}' is no value of it")
        values[match[1]] = float(match[2])
        if not (math.isfinite(values[match[1]]) and values[match[1]] >= 0):
            raise ValueError(f"'{part}' cannot be")
    count = values.pop("count")
    if not count.is_integer() or count > 1e15:
        raise ValueError("the count is no count")
    if values.keys() & _PERCENTILES not in (set(), _PERCENTILES):
        raise ValueError("percentiles are missing")
    given = values.keys() - _PERCENTILES
    if count and given == {"curr"}:  # a single run, or all the same
        values |= dict.fromkeys(("first", "min", "max", "avg"), values["curr"])
        values["std"] = 0.0
    elif given != (_OF_ALL_RUNS if count else set()):
        raise ValueError("values are missing")
    if count:
        _check_order(values)
    return Stats(int(count), values)


def _check_order(values: Mapping[str, float]) -> None:
    order = ["min", *(name for name in ("p5", "median", "p95") if name in values), "max"]
    if any(values[low] > values[high] for low, high in itertools.pairwise(order)):
        raise ValueError(f"{', '.join(order)} are not in ascending order")
    # The average is printed with six digits, the others are whole.
    if not values["min"] * 0.99999 <= values["avg"] <= values["max"] * 1.00001:
        raise ValueError("the average is not between the extremes")


# --- What each kind of line adds --------------------------------------------------------------

_Match = re.Match[str]


def _on_stats(found: Found, match: _Match) -> None:
    try:
        found.stats.append((len(found.announced), read_stats(match[0])))
    except ValueError as error:
        found.problems.append(f"the line '{quote(match[0])}' is damaged: {quote(str(error))}")


def _on_result(generation: str) -> Callable[[Found, _Match], None]:
    def note(found: Found, match: _Match) -> None:
        numbers = {name: float(match[name]) for name in ("init", "warmup", "mean")}
        if all(math.isfinite(number) and number >= 0 for number in numbers.values()):
            found.results.append(Result(generation, **numbers))
        else:
            found.problems.append(f"the line '{quote(match[0])}' has numbers that cannot be")

    return note


def _on_asked(found: Found, match: _Match) -> None:
    found.asked = int(match[1])


def _on_announced(found: Found, match: _Match) -> None:
    found.announced.append(int(match[1]))


def _on_unconsumed(found: Found, match: _Match) -> None:
    found.unconsumed += match[1].split()


def _on_applied(found: Found, match: _Match) -> None:
    kernels = None if match["kernels"] is None else int(match["kernels"])
    found.applied.append(Applied(match["name"].lower(), match["extent"], kernels))


def _on_idle(found: Found, match: _Match) -> None:
    found.idle.add(match[1].lower())


def _on_gpu_split(found: Found, match: _Match) -> None:
    ops = int(match["ops"] or 0)
    _add_share(found, "gpu", Replaced(ops, ops + int(match["rest"]), None))


def _on_share(found: Found, match: _Match) -> None:
    partitions = None if match["partitions"] is None else int(match["partitions"])
    share = Replaced(int(match["ops"]), int(match["total"]), partitions)
    _add_share(found, match["name"].lower(), share)


def _add_share(found: Found, name: str, share: Replaced) -> None:
    """Keeps a share; of several, one for each graph, a part counts rather than a whole."""
    if name not in found.shares or share.ops < share.total:
        found.shares[name] = share


def _on_accelerators(found: Found, match: _Match) -> None:
    found.accelerators = tuple(name.strip() for name in match[1].split(",") if name.strip())


def _on_opengl(found: Found, match: _Match) -> None:
    # Whatever kept the delegate from OpenCL was said just before, mostly as an error.
    why = match[1] or (found.complaints[-1] if found.complaints else "it does not say why")
    if not match[1] and found.errors and found.errors[-1] == found.last_said:
        why = found.errors.pop()
    found.notes.append(f"the GPU delegate fell back to OpenGL: {quote(why)}")


def _on_replaced(found: Found, match: _Match) -> None:
    if int(match["ops"]) == 0:
        return
    delegate = _DELEGATE_OF_KERNEL.get(match["kernel"], match["kernel"].lower())
    # A graph is said again when its tensors are allocated again: the last time counts.
    found.replaced[delegate, match["graph"]] = Replaced(
        int(match["ops"]),
        None if match["total"] is None else int(match["total"]),
        int(match["partitions"]),
    )


def _on_size(*names: str, low: float = 0.0) -> Callable[[Found, _Match], None]:
    def note(found: Found, match: _Match) -> None:
        for name, text in zip(names, match.groups(), strict=True):
            if math.isfinite(float(text)) and float(text) >= low:
                found.sizes[name] = float(text)
            else:
                found.problems.append(f"the {name.replace('_', ' ')} cannot be {quote(text)}")

    return note


def _on_word(name: str) -> Callable[[Found, _Match], None]:
    def note(found: Found, match: _Match) -> None:
        setattr(found, name, True)

    return note


_RESULT_END = r"(?: ?Overall .*)?$"  # the Android app glues its memory to the last number
_PATTERNS = tuple(
    (re.compile(pattern, re.ASCII), note)
    for pattern, note in (
        (r"count=.*", _on_stats),
        (
            rf"Inference timings in us: Init: (?P<init>{_NUMBER}), First inference: {_NUMBER}, "
            rf"Warmup \(avg\): (?P<warmup>{_NUMBER}), Inference \(avg\): (?P<mean>{_NUMBER})"
            rf"{_RESULT_END}",
            _on_result("2020"),
        ),
        (
            rf"Average inference timings in us: Warmup: (?P<warmup>{_NUMBER}), "
            rf"Init: (?P<init>{_NUMBER}), (?:no stats|Inference): (?P<mean>{_NUMBER})"
            rf"{_RESULT_END}",
            _on_result("2019"),
        ),
        (rf"Running benchmark for (?:at least )?{_INT} iterations", _on_announced),
        (rf"(?:Min num runs|Num runs): \[{_INT}\]$", _on_asked),
        (r"Unconsumed cmdline flags: (.*)", _on_unconsumed),
        (
            r"(?:Explicitly applied|Applied) (?P<name>\w{1,40}) delegate\b"
            r"(?:, and the model graph will be (?P<extent>completely|partially) executed)?"
            r"(?:.* w/ (?P<kernels>\d{1,9}) delegate kernels)?",
            _on_applied,
        ),
        (r"Though (\w{1,40}) delegate is explicitly applied, the model graph will not", _on_idle),
        (r"Created 0 (GPU) delegate kernels", _on_idle),
        (
            r"(?:No|(?:First )?(?P<ops>\d{1,9})) operations will run on the GPU, and "
            r"(?:all|the remaining) (?P<rest>\d{1,9}) (?:operations )?(?:will run )?on the CPU",
            _on_gpu_split,
        ),
        (
            r"(?:TfLite)?(?P<name>[A-Za-z]{1,40}?)(?:Delegate)?(?: delegate)?: (?P<ops>\d{1,9}) "
            r"nodes delegated out of (?P<total>\d{1,9}) nodes"
            r"(?: with (?P<partitions>\d{1,9}) partitions)?",
            _on_share,
        ),
        (
            r"(?:NNAPI accelerators available: \[|"
            r"nnapi accelerator name: \[[^\]]{0,200}\] \(Available: )([^\])]{0,500})[\])]",
            _on_accelerators,
        ),
        (r"Falling back to OpenGL|(.*\S) Using OpenGL instead", _on_opengl),
        (
            r"Replacing (?P<ops>\d{1,9})(?: out of (?P<total>\d{1,9}))? node\(s\) with delegate "
            r"\((?P<kernel>\w{1,40})\) node, yielding (?P<partitions>\d{1,9}) partitions"
            r"(?P<graph>.{0,80})",
            _on_replaced,
        ),
        (r"Created TensorFlow Lite XNNPACK delegate for CPU", _on_word("xnnpack_created")),
        (rf"The input model file size \(MB\): {_NUMBER}$", _on_size("file_size_mb")),
        (
            r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) "
            rf"\(MB\): init={_NUMBER} overall={_NUMBER}$",
            _on_size("init_memory_mb", "overall_memory_mb", low=-math.inf),  # it may shrink
        ),
        (
            rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}$",
            _on_size("peak_memory_mb"),
        ),
        (r"Saved benchmark result to:", _on_word("saved")),
        (r"node type, (?:start, )?first, avg_ms, ", _on_word("csv_on_stdout")),
    )
)
_WRONG = ("WARN", "WARNING", "ERROR", "FATAL")
# Without a level: words of a complaint. An echo of a flag, `Graph: [not_there.tflite]`, has none.
_COMPLAINT = re.compile(
    r"^(?!Loaded model |[^\[]{1,80}: ?\[.*\]$).*\b(?:not|no|cannot|can't|couldn't|unable|invalid|"
    r"missing|denied|disallowed|aborted|fault|un(?:supported|known|expected)|fail\w*|errors?)\b",
    re.ASCII | re.IGNORECASE,
)
# Errors of runs that go on: a delegate tells which ops it leaves to the CPU, and the GPU delegate
# that it goes on with OpenGL where a phone has no OpenCL.
_HARMLESS_ERROR = re.compile(
    r"(?:Following|Next) operations are not supported|Can not open OpenCL library"
)
