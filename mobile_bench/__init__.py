"""Measures how long .tflite files take, on phones and on this host: a strict record per run.

    import mobile_bench
    rows = mobile_bench.measure(["a.tflite", "b.tflite"], target="all", benchmark_binary="tools/")
    for summary in mobile_bench.summarize(rows):
        print(summary.model, summary.median_us, summary.interval_us, summary.verdict.valid)

The runtime that is timed is loaded by a process of its own, never by the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from mobile_bench.errors import FailureError, MeasureError, UsageError
from mobile_bench.results import Delegation, Measurement, Settings
from mobile_bench.rows import read_rows
from mobile_bench.summary import Summary, summarize
from mobile_bench.tool.output import ToolRun, read_run

__all__ = [
    "Delegation",
    "FailureError",
    "MeasureError",
    "Measurement",
    "Settings",
    "Summary",
    "ToolRun",
    "UsageError",
    "delegation",
    "measure",
    "read_rows",
    "read_run",
    "summarize",
]


def measure(
    models: Iterable[str | os.PathLike[str]],
    target: str = "host",
    *,
    threads: int = 1,
    cpus: str | Sequence[int] | None = None,
    delegate: str = "xnnpack",
    num_runs: int = 50,
    min_secs: float = 1.0,
    max_secs: float = 60.0,
    warmup_runs: int = 1,
    warmup_min_secs: float = 0.5,
    require_full_delegation: bool = False,
    memory: bool = False,
    op_profile: bool = False,
    screen: str = "leave",
    max_spread: float = 0.1,
    max_celsius: float | None = 37.0,
    rounds: int = 3,
    cooldown_secs: float = 300.0,
    timeout_secs: float = 60.0,
    benchmark_binary: str | os.PathLike[str] | None = None,
    benchmark_version: str | None = None,
    runner: str = "binary",
    adb_path: str | os.PathLike[str] | None = None,
    batch: int = 16,
    resume_rows: Iterable[Measurement] = (),
    progress: Callable[[int, int, str], None] | None = None,
    on_result: Callable[[Measurement], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> list[Measurement]:
    """Times each model on each target, interleaved over rounds.

    Args:
        models: Paths of .tflite files; a repeated path is measured once. On the host a dynamic
            batch is set to 1; any other dynamic size is refused.
        target: Where to measure: "host" (this machine), a phone's serial, its address in the
            network, "all" (the phones that adb knows), or several of these with commas between.
        threads: As the other arguments up to `max_celsius`: see `Settings`.
        cpus: A sequence of core numbers too; None leaves the cores to the system.
        rounds: Times that all models are measured, one after the other.
        cooldown_secs: Longest rest before models are run on a phone warmer than `max_celsius`.
        timeout_secs: Seconds past its own bounds after which a run counts as hung.
        benchmark_binary: benchmark_model for the phones: a file, or a folder with one per ABI.
        benchmark_version: What to record as its version; None for what its output tells.
        runner: How a phone runs it: "binary" or "apk".
        adb_path: The adb to use; None to look for one, by ANDROID_HOME and PATH first.
        batch: Most models that a phone is given at once.
        resume_rows: Earlier measurements; the rounds that they have are left out.
        progress: Called as (runs done, runs in all, what comes now) before each run and rest.
        on_result: Called with each measurement as soon as it is there, never by two threads at
            once. What it raises ends the measuring.
        notice: Called with a line where a phone makes the user wait: it rests, or was lost.

    Returns:
        The new measurements, one per model, round and target, in the order of measuring, valid or
        not: see `Measurement.verdict`. `summarize` makes one result of the rounds of a model.

    Raises:
        UsageError: An unknown target, or a value out of its range.
        MeasureError: Some runs failed, or a phone was lost: `failures` says what and why, and
            `measurements` has all the others.
        FailureError: No target can be used.
    """
    if isinstance(models, (str, os.PathLike)):
        raise UsageError(f"models: expected a list of paths, got one: [{str(models)!r}] is a list")
    settings = Settings(
        threads=threads,
        cpus=_cpus(cpus),
        delegate=delegate,
        num_runs=num_runs,
        min_secs=min_secs,
        max_secs=max_secs,
        warmup_runs=warmup_runs,
        warmup_min_secs=warmup_min_secs,
        require_full_delegation=require_full_delegation,
        memory=memory,
        op_profile=op_profile,
        screen=screen,
        max_spread=max_spread,
        max_celsius=max_celsius,
    )
    from mobile_bench import session  # only who measures needs threads and processes
    from mobile_bench.target import TargetOptions

    options = TargetOptions(
        timeout_secs=timeout_secs,
        benchmark_binary=None if benchmark_binary is None else os.fspath(benchmark_binary),
        benchmark_version=benchmark_version,
        runner=runner,
        adb_path=None if adb_path is None else os.fspath(adb_path),
        batch=batch,
        environ=os.environ,
    )
    return session.run(
        [os.fspath(model) for model in models],
        target,
        settings,
        options=options,
        rounds=rounds,
        cooldown_secs=cooldown_secs,
        resume_rows=resume_rows,
        progress=progress,
        on_result=on_result,
        notice=notice,
    )


def _cpus(cpus: str | Sequence[int] | None) -> str:
    """Returns the cores as `Settings` has them."""
    if cpus is None or isinstance(cpus, str):
        return cpus or ""
    if not cpus:
        raise UsageError("cpus: expected core numbers, got none; None leaves them to the system")
    return ",".join(str(core) for core in sorted(set(cpus)))


def delegation(model: str | os.PathLike[str], *, threads: int = 1) -> Delegation:
    """Tells what this host's runtime hands to its XNNPACK delegate, without timing anything.

    The runtime is loaded by the caller's own process.

    Args:
        model: Path of a .tflite file.
        threads: Threads of the runtime.

    Raises:
        FailureError: The runtime refuses the file.
    """
    from mobile_bench.host.worker import LoadedModel, ModelError

    try:
        return Delegation(**LoadedModel(os.fspath(model), threads, "xnnpack").delegation())
    except ModelError as error:
        raise FailureError(f"{os.fspath(model)}: {error}") from error
