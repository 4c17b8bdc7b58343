"""From models and settings to measurements: picks the target, leaves out what is already there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mobile_bench.errors import FailureError, UsageError
from mobile_bench.host import check_cpus, describe_host, describe_tool, measure_on_host
from mobile_bench.models import ModelFile
from mobile_bench.results import Measurement, Settings

TARGETS = ("host",)


def run(
    paths: Sequence[str],
    target: str,
    settings: Settings,
    *,
    timeout_secs: float,
    progress: Callable[[int, int, str], None] | None = None,
    on_result: Callable[[Measurement], None] | None = None,
) -> list[Measurement]:
    """Measures models on a target; arguments, result and errors as `mobile_bench.measure`."""
    check(target, settings, timeout_secs)
    return measure_on_host(
        paths, settings, timeout_secs=timeout_secs, progress=progress, on_result=on_result
    )


def check(target: str, settings: Settings, timeout_secs: float) -> None:
    """Raises UsageError unless the target is known and can do what the settings ask for."""
    if not 0 < timeout_secs < 1e6:
        raise UsageError(f"timeout_secs: expected more than 0, got {timeout_secs}")
    if target not in TARGETS:
        raise UsageError(f"unknown target {target!r}; known: {', '.join(TARGETS)}")
    check_cpus(settings.cpus)


def missing(paths: Iterable[str], rows: Iterable[Measurement], settings: Settings) -> list[str]:
    """Returns the paths whose models have no row yet, valid or not.

    A row counts when the model's bytes, the settings, this host and the runtime's version are
    the same. A path that cannot be read is kept, so that measuring it tells what is wrong.

    Raises:
        FailureError: The runtime is not installed.
    """
    device, tool = describe_host(), describe_tool()
    present = {
        row.sha256
        for row in rows
        if (row.settings, row.device, row.tool) == (settings, device, tool)
    }
    return [path for path in paths if _hash(path) not in present]


def _hash(path: str) -> str | None:
    try:
        return ModelFile.read(path).sha256
    except FailureError:
        return None
