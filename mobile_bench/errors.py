"""The errors that end a command with one clear message instead of a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobile_bench.results import Measurement


class UsageError(ValueError):
    """The user asked for something that cannot be: a flag, a target, a pattern. Exit code 2.

    The message is one line that can be printed, whatever names are in it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, None))


class FailureError(RuntimeError):
    """The request was fine but the work could not be done: a damaged model. Exit code 1.

    Args:
        lines: Of the message, each of which can then be printed, whatever names are in it.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(one_line(line, None) for line in lines))


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
            f"failures: {len(failures)}, runs measured: {len(measurements)}", *failures.values()
        )


def one_line(text: str, limit: int | None = 500) -> str:
    """Returns text of a file name, tool or device as it can be printed within a message.

    Escapes, line ends, marks of direction and the like are written out.

    Args:
        text: Whatever others wrote.
        limit: Most characters of it that are told; None for all.
    """
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:limit])
    return line if limit is None or len(text) <= limit else line + "..."
