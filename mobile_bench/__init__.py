"""Measures how long .tflite files take, one strict record per model.

    import mobile_bench
    for measurement in mobile_bench.measure(["a.tflite", "b.tflite"]):
        print(measurement.model, measurement.timings.median_us, measurement.verdict.valid)

The runtime that is timed is loaded by a process of its own, never by the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from mobile_bench.errors import FailureError, MeasureError, UsageError
from mobile_bench.results import Delegation, Measurement, Settings
from mobile_bench.rows import read_rows

__all__ = [
    "Delegation",
    "FailureError",
    "MeasureError",
    "Measurement",
    "Settings",
    "UsageError",
    "delegation",
    "measure",
    "read_rows",
]


def measure(
    models: Iterable[str | os.PathLike[str]],
    target: str = "host",
    *,
    threads: int = 1,
    cpus: Sequence[int] | None = None,
    use_xnnpack: bool = True,
    num_runs: int = 50,
    min_secs: float = 1.0,
    max_secs: float = 60.0,
    warmup_runs: int = 1,
    warmup_min_secs: float = 0.5,
    rounds: int = 3,
    max_spread: float = 0.1,
    timeout_secs: float = 60.0,
    progress: Callable[[int, int, str], None] | None = None,
    on_result: Callable[[Measurement], None] | None = None,
) -> list[Measurement]:
    """Times each model on the target, interleaved over rounds.

    Args:
        models: Paths of .tflite files; a repeated path is measured once. A dynamic batch is
            set to 1; any other dynamic size is refused.
        target: Where to measure: "host", this machine.
        threads: Threads of the runtime.
        cpus: Cores to bind the runtime to; None leaves it to the system.
        use_xnnpack: Whether the runtime applies its XNNPACK delegate.
        num_runs: Least number of timed runs in a round.
        min_secs: Least seconds of timed runs in a round.
        max_secs: Seconds after which warm-up and runs each start no further run.
        warmup_runs: Least number of warm-up runs in a round.
        warmup_min_secs: Least seconds of warm-up in a round.
        rounds: Times that all models are measured, one after the other.
        max_spread: Largest difference of the round medians, as a fraction of the median, of a
            valid measurement.
        timeout_secs: Seconds past these bounds after which a model counts as hung.
        progress: Called as (steps done, steps in all, model) before each step.
        on_result: Called with each measurement as soon as it is complete, in the last round. What
            it raises ends the measuring.

    Returns:
        The measurements in the order of `models`, valid or not: see `Measurement.verdict`.

    Raises:
        UsageError: An unknown target, or a value out of its range.
        MeasureError: Some models could not be measured: `failures` says why, by path, and
            `measurements` has all the others.
        FailureError: The runtime does not start.
    """
    if isinstance(models, (str, os.PathLike)):
        raise UsageError(f"models: expected a list of paths, got one: [{str(models)!r}] is a list")
    settings = Settings(
        threads=threads,
        cpus=None if cpus is None else tuple(sorted(set(cpus))),
        delegate="xnnpack" if use_xnnpack else "none",
        num_runs=num_runs,
        min_secs=min_secs,
        max_secs=max_secs,
        warmup_runs=warmup_runs,
        warmup_min_secs=warmup_min_secs,
        rounds=rounds,
        max_spread=max_spread,
    )
    from mobile_bench import session  # only who measures needs processes

    return session.run(
        [os.fspath(model) for model in models],
        target,
        settings,
        timeout_secs=timeout_secs,
        progress=progress,
        on_result=on_result,
    )


def delegation(model: str | os.PathLike[str], *, threads: int = 1) -> Delegation:
    """Tells what this host's runtime hands to its XNNPACK delegate, without timing anything.

    The runtime is loaded by the caller's own process.

    Args:
        model: Path of a .tflite file.
        threads: Threads of the runtime.

    Raises:
        FailureError: The runtime refuses the file.
    """
    from mobile_bench.host_worker import LoadedModel, ModelError

    try:
        return Delegation(**LoadedModel(os.fspath(model), threads, "xnnpack").delegation())
    except ModelError as error:
        raise FailureError(f"{os.fspath(model)}: {error}") from error
