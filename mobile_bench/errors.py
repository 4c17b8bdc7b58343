"""The errors that end a command with one clear message instead of a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobile_bench.results import Measurement


class UsageError(ValueError):
    """The user asked for something that cannot be: a flag, a target, a pattern. Exit code 2."""


class FailureError(RuntimeError):
    """The request was fine but the work could not be done: a damaged model. Exit code 1."""


class MeasureError(FailureError):
    """Some models could not be measured; the others were.

    Attributes:
        measurements: What was measured, in the order of the models asked for.
        failures: What went wrong, by model path as it was given.
    """

    def __init__(self, measurements: list[Measurement], failures: dict[str, str]) -> None:
        self.measurements = measurements
        self.failures = failures
        total = len(measurements) + len(failures)
        super().__init__(
            "\n".join([f"{len(failures)} of {total} models not measured:", *failures.values()])
        )
