"""TensorFlow Lite's benchmark_model: which file serves a device, and its command line.

What the tool prints is read in output.py. Nothing here starts a process.
"""

from __future__ import annotations

import decimal
import math
import os
import re
import shlex
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from mobile_bench.errors import FailureError, UsageError

DELEGATES = ("cpu", "xnnpack", "gpu", "nnapi", "hexagon")

# The two ARM builds are published under these names. There are no published builds for x86
# phones and emulators; own builds are looked for under names made in the same way.
OFFICIAL_NAMES: Mapping[str, str] = types.MappingProxyType(
    {
        "arm64-v8a": "android_aarch64_benchmark_model",
        "armeabi-v7a": "android_arm_benchmark_model",
        "x86_64": "android_x86-64_benchmark_model",
        "x86": "android_x86_benchmark_model",
    }
)
WHERE_TO_GET_IT = (
    "the benchmark tools page of LiteRT (formerly TensorFlow Lite) has nightly builds for "
    "Android; see docs/PHONES.md"
)

_ABIS_OF_ELF_MACHINE = {
    183: ("arm64-v8a",),
    40: ("armeabi-v7a", "armeabi"),
    62: ("x86_64",),
    3: ("x86",),
}
_LARGEST_INT32 = 2**31 - 1
_HELP_FLAG = re.compile(r"^\s*--(\w+)=\S*\s+(?:bool|int32|int64|float|double|string)\b", re.ASCII)


@dataclass(frozen=True)
class ToolOptions:
    """One run of benchmark_model.

    Attributes:
        threads: Threads of the runtime.
        delegate: One of `DELEGATES`; "cpu" runs the runtime's own kernels, without XNNPACK.
        num_runs: Least number of timed runs.
        min_secs: Least seconds of timed runs.
        max_secs: Seconds after which warm-up and runs each start no further run.
        warmup_runs: Least number of warm-up runs.
        warmup_min_secs: Least seconds of warm-up.
        memory: Whether to watch the peak of memory. A thread of its own does it every 50 ms.
        op_profile_path: Where on the device the op profile goes; None for no profile.
        result_path: Where on the device the result proto goes; None for none.

    Raises:
        UsageError: A value is out of its range.
    """

    threads: int = 1
    delegate: str = "xnnpack"
    num_runs: int = 50
    min_secs: float = 1.0
    max_secs: float = 60.0
    warmup_runs: int = 1
    warmup_min_secs: float = 0.5
    memory: bool = False
    op_profile_path: str | None = None
    result_path: str | None = None

    def __post_init__(self) -> None:
        if self.delegate not in DELEGATES:
            raise UsageError(f"delegate: expected {', '.join(DELEGATES)}, got {self.delegate!r}")
        # The tool itself accepts zero threads and reads 5.5 runs as 5 without a word.
        for name, low in (("threads", 1), ("num_runs", 1), ("warmup_runs", 0)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= _LARGEST_INT32:
                raise UsageError(f"{name}: expected a whole number from {low}, got {value!r}")
        for name in ("min_secs", "max_secs", "warmup_min_secs"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name}: expected seconds from 0, got {value!r}")


@dataclass(frozen=True)
class ToolHelp:
    """What a build of benchmark_model can do, by its own `--help`.

    Attributes:
        flags: Names of its flags, without dashes.
        generation: "current" (prints medians), "2020" (to 2024) or "2019".
    """

    flags: frozenset[str]
    generation: str


def read_help(text: str) -> ToolHelp:
    """Reads what `benchmark_model --help` printed (on stderr, with exit code 1).

    Raises:
        FailureError: The text lists no flags that make sense for benchmark_model.
    """
    found = (_HELP_FLAG.match(line) for line in text.splitlines())
    flags = frozenset(match[1] for match in found if match)
    if not {"graph", "num_runs"} <= flags:
        shown = text.strip()[:200]
        raise FailureError(f"benchmark_model --help: expected its list of flags, got {shown!r}")
    if "result_file_path" in flags:
        return ToolHelp(flags, "current")
    return ToolHelp(flags, "2020" if "use_xnnpack" in flags else "2019")


def arguments(
    model_path: str, options: ToolOptions, supported: Collection[str] | None = None
) -> list[str]:
    """Returns the command line of benchmark_model after the program's name, unquoted.

    Every argument is `--key=value`: the tool ignores any other spelling, with exit code 0. What
    an old build cannot do and no measurement needs (the bounds in seconds, the peak of memory,
    the result file) is left out.

    Args:
        model_path: Where on the device the model is.
        options: How to run it.
        supported: Names of the tool's flags, `ToolHelp.flags`; None takes a current build.

    Raises:
        FailureError: This build lacks the delegate or op profiling.
    """

    def has(flag: str) -> bool:
        return supported is None or flag in supported

    flags = {
        "graph": model_path,
        "num_threads": str(options.threads),
        "num_runs": str(options.num_runs),
        "warmup_runs": str(options.warmup_runs),
    }
    for name in ("min_secs", "max_secs", "warmup_min_secs"):
        if has(name):
            flags[name] = _plain(getattr(options, name))
    if options.delegate != "cpu":
        _require(has(f"use_{options.delegate}"), f"the {options.delegate} delegate")
        flags[f"use_{options.delegate}"] = "true"
        if options.delegate == "nnapi" and "disable_nnapi_cpu" in (supported or ()):
            flags["disable_nnapi_cpu"] = "true"  # the default of current builds alone
    elif has("use_xnnpack"):  # where XNNPACK is built in, it has to be switched off
        flags["use_xnnpack"] = "false"
    if options.memory and has("report_peak_memory_footprint"):
        flags["report_peak_memory_footprint"] = "true"
    if options.op_profile_path is not None:
        _require(has("enable_op_profiling"), "op profiling")
        flags["enable_op_profiling"] = "true"
        flags |= _profile_file(options.op_profile_path, has)
    if options.result_path is not None and has("result_file_path"):
        flags["result_file_path"] = options.result_path
    return [f"--{name}={value}" for name, value in flags.items()]


def _profile_file(path: str, has: Callable[[str], bool]) -> dict[str, str]:
    """Where the op profile goes; a build that has neither flag prints it on stdout."""
    if has("op_profiling_output_mode"):
        return {"op_profiling_output_mode": "csv", "op_profiling_output_file": path}
    return {"profiling_output_csv_file": path} if has("profiling_output_csv_file") else {}


def _require(is_there: bool, what: str) -> None:
    if not is_there:
        raise FailureError(
            f"this benchmark_model was built without {what}: do without it, or use another "
            f"build ({WHERE_TO_GET_IT})"
        )


def _plain(seconds: float) -> str:
    """Returns a number without an exponent: 0.00001, not 1e-05."""
    return format(decimal.Decimal(str(seconds)).normalize(), "f")


def read_flags(command: str | Sequence[str] | None) -> dict[str, str]:
    """Returns the flags of a command line as the tool reads them: the first of two equal ones wins.

    Args:
        command: The words of the command line, or one string in a shell's spelling. A prefix such
            as `taskset f0` does no harm.
    """
    if isinstance(command, str):
        try:
            command = shlex.split(command)
        except ValueError:  # an open quote
            command = command.split()
    flags: dict[str, str] = {}
    for word in command or ():
        name, equals, value = word.partition("=")
        if equals and name.startswith("--"):
            flags.setdefault(name[2:], value)
    return flags


def find_binary(path: str, abis: Sequence[str]) -> str:
    """Returns the file of benchmark_model that runs on a device.

    Args:
        path: A file, or a folder of files under their `OFFICIAL_NAMES`.
        abis: ABIs of the device, the preferred one first.

    Raises:
        UsageError: There is nothing at the path, or it is no Android program.
        FailureError: It does not serve this device; it may serve others.
    """
    if os.path.isdir(path):
        names = [OFFICIAL_NAMES[abi] for abi in abis if abi in OFFICIAL_NAMES]
        files = [os.path.join(path, name) for name in names]
        file = next((file for file in files if os.path.isfile(file)), None)
        if file is None:
            raise FailureError(
                f"benchmark_binary: {path} has no {' or '.join(names) or 'file'} for a device "
                f"of {', '.join(abis) or 'unknown ABI'}: {WHERE_TO_GET_IT}"
            )
        path = file
    file_abis = _abis_of(path)
    if not set(file_abis) & set(abis):
        raise FailureError(
            f"benchmark_binary: {path} is built for {file_abis[0]}, and the device runs "
            f"{', '.join(abis) or 'unknown ABIs'}: give a folder with one file per ABI; "
            f"{WHERE_TO_GET_IT}"
        )
    return path


def _abis_of(path: str) -> tuple[str, ...]:
    """The ABIs that a program can serve, by the machine in its ELF header."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise UsageError(
            f"benchmark_binary: cannot read {path} ({error.strerror}): {WHERE_TO_GET_IT}"
        ) from error
    order = {1: "little", 2: "big"}.get(head[5] if len(head) >= 20 else 0)
    if not head.startswith(b"\x7fELF") or order is None:
        raise UsageError(
            f"benchmark_binary: expected an Android program (ELF), got {path}: {WHERE_TO_GET_IT}"
        )
    machine = int.from_bytes(head[18:20], order)
    if machine not in _ABIS_OF_ELF_MACHINE:
        raise UsageError(
            f"benchmark_binary: {path} is built for ELF machine {machine}, expected one of "
            f"{', '.join(OFFICIAL_NAMES)}: {WHERE_TO_GET_IT}"
        )
    # The Linux builds stand beside the Android ones and end on a phone in a mere "not found".
    if b"/ld-linux" in head:
        raise UsageError(
            f"benchmark_binary: {path} is built for Linux, expected a build for Android "
            f"({OFFICIAL_NAMES[_ABIS_OF_ELF_MACHINE[machine][0]]}): "
            f"{WHERE_TO_GET_IT}"
        )
    return _ABIS_OF_ELF_MACHINE[machine]
