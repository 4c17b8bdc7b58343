"""What benchmark_model printed, as one record with everything that speaks against the run.

The tool ends with exit code 0 for unknown flags, for delegates that were not applied and for runs
that were cut short, so the exit code alone is not believed. The command line is in tool.py, the
patterns of single lines are in lines.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobile_bench.tool.command import read_flags
from mobile_bench.tool.lines import MAX_CHARS, Found, Result, Stats, quote, scan, split_lines

_MAX_FLAGS = 20
_MAX_OF_A_KIND = 3  # problems
# What complaints about a delegate speak of.
_WORDS_OF = {
    "gpu": re.compile(r"gpu|opencl|opengl", re.IGNORECASE),
    "nnapi": re.compile(r"nn ?api|aneuralnetworks", re.IGNORECASE),
    "hexagon": re.compile(r"hexagon", re.IGNORECASE),
    "xnnpack": re.compile(r"xnnpack", re.IGNORECASE),
}
_NNAPI_ON_CPU = "nnapi-reference"
_YES, _NO = ("true", "1"), ("false", "0")
# By number as Linux and Android count them, whatever this host calls them.
_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    31: "SIGSYS",
}
_SHELL_CODES = {126: " (it cannot be executed)", 127: " (it was not found)"}


@dataclass(frozen=True, kw_only=True)
class ToolRun:
    """One run of benchmark_model. What the tool did not print, or printed as nonsense, is None.

    Attributes:
        problems: Everything that speaks against the run, one sentence each; none for a good run.
            "too few runs:" and "fallback:" begin those that are a verdict's as well.
        notes: What is good to know of it and speaks against nothing, one sentence each.
        generation: Dialect of the output: "current" (prints medians), "2020" (to 2024) or "2019".
        init_us: Loading the model, applying the delegate, allocating tensors.
        first_us: The first run of all, in the warm-up if there was one.
        count: Number of timed runs; the statistics are of these.
        std_us: Standard deviation, in whole microseconds as the tool rounds it.
        median_us: In whole microseconds, like all but the means: 0 for models far below one.
        asked_runs: Least number of runs that the command line asked for.
        init_memory_mb: Growth of memory by initialization, in MiB.
        overall_memory_mb: The same over the whole process. The tool keeps every sample, so this
            is too large for models of a few microseconds.
        peak_memory_mb: Largest resident memory seen by periodic checks.
        file_size_mb: Size of the model in millions of bytes.
        delegate: What ran the graph by the tool's own words: "xnnpack", "gpu", "nnapi", "hexagon",
            another delegate by its name, or "cpu" where no word of a delegate was said. A delegate
            that the tool was not told to use leaves one trace only: the runtime says that it has
            created XNNPACK. Then this is "xnnpack", and how much it took stays unknown.
        delegate_partitions: Pieces of the graph that the delegate runs.
        fully_delegated: Whether it runs the whole graph.
        delegated_ops: Ops that it took, where the runtime logs that.
        total_ops: Ops of the graphs it was offered.
        unconsumed_flags: Arguments that the tool did not understand, and ignored.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    generation: str | None = None
    init_us: float | None = None
    first_us: float | None = None
    warmup_count: int | None = None
    warmup_mean_us: float | None = None
    count: int | None = None
    mean_us: float | None = None
    std_us: float | None = None
    min_us: float | None = None
    max_us: float | None = None
    median_us: float | None = None
    p5_us: float | None = None
    p95_us: float | None = None
    asked_runs: int | None = None
    init_memory_mb: float | None = None
    overall_memory_mb: float | None = None
    peak_memory_mb: float | None = None
    file_size_mb: float | None = None
    delegate: str | None = None
    delegate_partitions: int | None = None
    fully_delegated: bool | None = None
    delegated_ops: int | None = None
    total_ops: int | None = None
    unconsumed_flags: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the run."""
        return not self.problems


def read_run(
    stdout: str, stderr: str, exit_code: int, command: str | Sequence[str] | None = None
) -> ToolRun:
    """Reads one run of benchmark_model, of any generation, and finds what is wrong with it.

    Never raises, whatever a tool or a device prints.

    Args:
        stdout: What it printed. Both streams in one (a pty, logcat) will do.
        stderr: The rest; that the runtime writes there is no sign of an error.
        exit_code: As a shell gives it: 128 + n, or -n, for a process that signal n ended.
        command: The command line, as words or as one string: what it asked for is checked. None
            takes what the tool repeats of it.
    """
    found = scan(split_lines(stdout) + split_lines(stderr))
    flags = read_flags(command)
    asked_runs = _asked_runs(flags, found)
    problems = found.problems[:_MAX_OF_A_KIND] + _unconsumed(found)
    if max(len(stdout), len(stderr)) > MAX_CHARS:
        problems.append(f"the output has over {MAX_CHARS} characters: the rest was not read")
    if exit_code != 0:
        problems.insert(0, _exit_problem(exit_code, found, stdout, stderr))
    else:
        problems += _missing_results(found)
        problems += _too_few_runs(found, asked_runs)
        problems += _lost_files(found, flags)
        errors = found.errors[:_MAX_OF_A_KIND]
        problems += [f"the tool reports: {quote(error)}" for error in errors]
        problems += _delegate_problems(found, flags)
    return ToolRun(
        problems=tuple(problems),
        notes=tuple(dict.fromkeys(found.notes[:_MAX_OF_A_KIND])),
        asked_runs=asked_runs,
        unconsumed_flags=tuple(quote(flag) for flag in found.unconsumed[:_MAX_FLAGS]),
        **_timings(found),
        **found.sizes,
        **_delegate(found),
    )


# --- From lines to fields ---------------------------------------------------------------------


def _asked_runs(flags: Mapping[str, str], found: Found) -> int | None:
    """What the command line asked for, or what the tool repeats of it."""
    if match := re.match(r"-?\d{1,15}", flags.get("num_runs", ""), re.ASCII):
        return int(match[0])  # the tool too reads 5.5 as 5
    if found.asked is not None:
        return found.asked
    return found.announced[1] if len(found.announced) == 2 else None


def _phases(found: Found) -> tuple[Stats | None, Stats | None]:
    """The statistics of warm-up and runs, as far as they were printed whole."""
    by_phase = dict(found.stats)
    return by_phase.get(1), by_phase.get(2)


def _timings(found: Found) -> dict[str, float | int | str | None]:
    """The fields of ToolRun that tell of time, as far as they are known."""
    warmup, runs = _phases(found)
    fields: dict[str, float | int | str | None] = {}
    if found.results:
        result = found.results[0]
        fields["generation"] = result.generation
        fields["init_us"] = result.init
        fields["warmup_mean_us"] = result.warmup
        fields["mean_us"] = result.mean
    if warmup is not None:
        fields["warmup_count"] = warmup.count
        fields["warmup_mean_us"] = warmup.values.get("avg")
    if runs is not None:
        fields["count"] = runs.count
        fields["mean_us"] = runs.values.get("avg")
        if runs.count:
            for name in ("std", "min", "max", "median", "p5", "p95"):
                fields[f"{name}_us"] = runs.values.get(name)
    for stats in (runs, warmup):
        if stats is not None and stats.count:
            fields["first_us"] = stats.values["first"]
        if stats is not None and "median" in stats.values:
            fields["generation"] = "current"
    return fields


def _idle(found: Found) -> set[str]:
    """The delegates that took nothing of the graph, in the tool's words or in their own."""
    by_themselves = {name for name, share in found.shares.items() if not share.ops}
    took_some = {line.delegate for line in found.applied if line.extent is not None}
    return found.idle | (by_themselves - took_some)


def _delegate(found: Found) -> dict[str, str | int | bool | None]:
    """The fields of ToolRun that tell of the delegate."""
    idle = _idle(found)
    applied = next((line for line in found.applied if line.delegate not in idle), None)
    taken = {name for name, _ in found.replaced} - idle
    if applied is not None:
        name = applied.delegate
    elif taken:  # XNNPACK may have picked up what another delegate left
        name = min(taken, key=lambda delegate: (delegate == "xnnpack", delegate))
    elif found.xnnpack_created and "xnnpack" not in idle:
        name = "xnnpack"
    else:
        return {"delegate": "cpu" if found.results else None}
    graphs = [graph for (delegate, _), graph in found.replaced.items() if delegate == name]
    share = found.shares.get(name)
    if share is not None and not (graphs and all(graph.total for graph in graphs)):
        graphs = [share]  # earlier runtimes do not tell of how many ops they are
    totals = [graph.total for graph in graphs]
    ops = sum(graph.ops for graph in graphs) if graphs else None
    total = sum(totals) if totals and None not in totals else None
    if applied is not None and applied.extent is not None:
        is_part = share is not None and share.ops < share.total
        full: bool | None = applied.extent == "completely" and not is_part
        partitions = 1 if full else applied.kernels
    else:
        full = None if total is None else ops == total
        partitions = graphs[0].partitions if full and len(graphs) == 1 else None
    return {
        "delegate": name,
        "delegate_partitions": partitions,
        "fully_delegated": full,
        "delegated_ops": ops,
        "total_ops": total,
    }


# --- What speaks against a run ----------------------------------------------------------------


def _unconsumed(found: Found) -> list[str]:
    if not found.unconsumed:
        return []
    shown = quote(" ".join(found.unconsumed))
    return [f"benchmark_model ignored {shown}: this build does not know these arguments"]


def _exit_problem(exit_code: int, found: Found, stdout: str, stderr: str) -> str:
    """Says how the process ended, with the tool's own reason or else with its last words."""
    number = exit_code - 128 if exit_code > 128 else -exit_code
    if 0 < number <= 64:
        ending = f"benchmark_model was ended by {_SIGNALS.get(number, f'signal {number}')}"
    else:
        ending = (
            f"benchmark_model ended with exit code {exit_code}{_SHELL_CODES.get(exit_code, '')}"
        )
    ignored = ("Benchmarking failed.", "usage: ")
    reasons = [error for error in found.errors if not error.startswith(ignored)]
    if reasons:
        return f"{ending}: {quote('; '.join(dict.fromkeys(reasons)))}"
    if any(error.startswith("usage: ") for error in found.errors):
        return f"{ending}: it printed its usage"
    said = split_lines(stdout)
    # What the runtime informs of on stderr is no reason; what the shell or libc says there is.
    said += [line for line in split_lines(stderr) if line.level not in ("INFO", "VERBOSE")]
    said = [line.text for line in said if not line.text.startswith(ignored)]
    return f"{ending}: {f'its last line was {quote(said[-1])!r}' if said else 'it said nothing'}"


def _missing_results(found: Found) -> list[str]:
    """What a run that ended well should have printed and did not, or printed twice."""
    if not found.results:
        said = [f"; the last complaint is '{quote(text)}'" for text in found.complaints[-1:]]
        return [
            "the output has no whole line of results ('Inference timings in us'): nothing was "
            f"run, or the output is cut short{''.join(said)}"
        ]
    result = found.results[0]
    # The Android app of 2019 logs nothing but its result.
    if result.generation == "2019" and not (found.stats or found.announced):
        return [] if result.mean > 0 else ["nothing was measured: the mean is 0"]
    mixed = len(found.announced) > 2 or len(found.stats) > 2
    if mixed or len({line.mean for line in found.results}) > 1:
        return ["the output has the results of several runs"]
    runs = _phases(found)[1]
    if runs is None:
        return ["the output has no whole line of statistics ('count=') for warm-up and runs"]
    if not runs.count:
        return ["nothing was measured: no timed run (a dry run, or no runs asked for)"]
    if runs.values["avg"] == 0:
        return ["nothing was measured: the mean is 0 us, below the resolution of the tool"]
    if not _equal_as_printed(runs.values["avg"], result):
        means = f"{runs.values['avg']:g} us in the statistics, {result.mean:g} us in the results"
        return [f"the output is damaged: the mean is {means}"]
    return []


def _equal_as_printed(mean: float, result: Result) -> bool:
    """Whether a mean of the statistics is that of the results: both are printed from one number.

    With six digits, but a single run, and runs that are all the same, have all digits in the
    statistics: curr=4204739 is 4.20474e+06. In 2019 one of the two could be an integer.
    """
    slack = 1.0 if result.generation == "2019" else 0.0
    return f"{mean:g}" == f"{result.mean:g}" or abs(mean - result.mean) <= slack


def _too_few_runs(found: Found, asked: int | None) -> list[str]:
    runs = _phases(found)[1]
    if runs is None or asked is None or not 0 < runs.count < asked:
        return []
    return [f"too few runs: {runs.count} of {asked}, the time was up before"]


def _lost_files(found: Found, flags: Mapping[str, str]) -> list[str]:
    problems = []
    path = flags.get("result_file_path")
    if path and not found.saved:
        problems.append(f"the result file {quote(path)} was not written")
    path = flags.get("profiling_output_csv_file")
    if flags.get("op_profiling_output_mode") == "csv":
        path = flags.get("op_profiling_output_file")
    if path and found.csv_on_stdout:
        problems.append(f"the op profile {quote(path)} was not written: it is on stdout instead")
    return problems


def _delegate_problems(found: Found, flags: Mapping[str, str]) -> list[str]:
    """Compares the delegates asked for with those that were applied."""
    problems = []
    idle, read = _idle(found), _delegate(found)
    applied = {line.delegate for line in found.applied} | {name for name, _ in found.replaced}
    for name, words in _WORDS_OF.items():
        if flags.get(f"use_{name}") not in _YES:
            continue
        complaint = next((text for text in found.complaints if words.search(text)), None)
        said = f" ({quote(complaint)})" if complaint else ""
        if name in idle:
            problems.append(f"fallback: {name} took nothing of the graph: the CPU was timed{said}")
        elif name not in applied:
            problems.append(
                f"fallback: {name} was asked for, and nothing says that it was applied{said}"
            )
        elif name == "nnapi" and _is_on_cpu(found, flags):
            problems.append(
                f"fallback: nnapi had no accelerator but {_NNAPI_ON_CPU}: the CPU was timed"
            )
        elif name != "xnnpack" and read["delegate"] == name and not read["fully_delegated"]:
            # XNNPACK and what it leaves run on the same cores.
            took = "took" if read["fully_delegated"] is False else "may have taken"
            problems.append(f"fallback: {name} {took} a part of the graph: the CPU runs the rest")
    if flags.get("use_xnnpack") in _NO and (found.xnnpack_created or "xnnpack" in applied):
        problems.append("fallback: xnnpack was switched off, and was applied all the same")
    required = flags.get("require_full_delegation") in _YES
    if required and read.get("fully_delegated") is not True:
        problems.append("fallback: full delegation was required, and nothing says that there was")
    return problems


def _is_on_cpu(found: Found, flags: Mapping[str, str]) -> bool:
    """Whether NNAPI could use nothing but its reference implementation, which the CPU runs."""
    chosen = flags.get("nnapi_accelerator_name")
    return {_NNAPI_ON_CPU} in (set(found.accelerators or ()), {chosen})
