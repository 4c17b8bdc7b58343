"""The errors that end a command with one clear message instead of a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobile_bench.results import Measurement


class UsageError(ValueError):
    """The user asked for something that cannot be: a flag, a target, a pattern. Exit code 2."""


class FailureError(RuntimeError):
    """The request was fine but the work could not be done: a damaged model. Exit code 1."""


class RunError(FailureError):
    """This run failed: a crash, a time-out, rubbish. The target's other models go on."""


class TargetError(FailureError):
    """The target is gone, or cannot measure at all. The other targets go on."""


class MeasureError(FailureError):
    """Some runs failed; the others were measured.

    Attributes:
        measurements: What was measured, in the order of measuring.
        failures: What went wrong, each as one whole line that names it: by model path with one
            target, by "target: path" with several, by the target's name where it was lost.
    """

    def __init__(self, measurements: list[Measurement], failures: dict[str, str]) -> None:
        self.measurements = measurements
        self.failures = failures
        super().__init__(
            "\n".join(
                [
                    f"failures: {len(failures)}, runs measured: {len(measurements)}",
                    *failures.values(),
                ]
            )
        )


def one_line(text: str, limit: int = 500) -> str:
    """Returns text of a file name, tool or device as it can be printed within a message."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:limit])
    return line + "..." if len(text) > limit else line
