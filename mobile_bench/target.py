"""What the session needs of a target (a phone, this host), and what targets are opened with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mobile_bench.errors import UsageError
from mobile_bench.models import ModelFile
from mobile_bench.results import Device, DeviceState, Measurement, Tool

RUNNERS = ("binary", "apk")
MAX_BATCH = 1000


@dataclass(frozen=True)
class TargetOptions:
    """How targets are reached and run; what changes a time is in `results.Settings` instead.

    Attributes:
        timeout_secs: Seconds past its own bounds after which a run counts as hung.
        benchmark_binary: benchmark_model for the phones: a file, or a folder with one per ABI. With
            the host as the only target a build for this machine, which then runs the models.
        benchmark_version: What to record as its version; None for what its output tells.
        runner: How a phone runs it, one of RUNNERS.
        adb_path: The adb to use; None to look for one.
        batch: Most models that a phone is given at once.
        environ: Variables that adb is looked for with (ANDROID_HOME, PATH, ...).

    Raises:
        UsageError: A value is out of its range.
    """

    timeout_secs: float = 60.0
    benchmark_binary: str | None = None
    benchmark_version: str | None = None
    runner: str = "binary"
    adb_path: str | None = None
    batch: int = 16
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.timeout_secs < math.inf:
            raise UsageError(f"timeout_secs: expected more than 0, got {self.timeout_secs}")
        if not 1 <= self.batch <= MAX_BATCH:
            raise UsageError(f"batch: expected 1 to {MAX_BATCH}, got {self.batch}")
        if self.runner not in RUNNERS:
            raise UsageError(f"runner: expected one of {', '.join(RUNNERS)}, got {self.runner!r}")


@dataclass(frozen=True)
class RunFailure:
    """A run that gave no measurement.

    Attributes:
        path: The model's, as it was given.
        message: Why, in one line that does not name the model.
    """

    path: str
    message: str


class Target(Protocol):
    """Where models are timed. Used by one thread, apart from `close`.

    Attributes:
        name: "host" or the serial, for messages.
        device: What it is.
        tool: What runs the models there.
        batch: Most models that one call of `measure` may take.
        notice: Called with a line where the target makes the user wait; the session sets it.
    """

    name: str
    device: Device
    tool: Tool
    batch: int
    notice: Callable[[str], None]

    def prepare(self, files: Sequence[ModelFile]) -> dict[str, str]:
        """Makes the models ready (a phone is given them) and tells what cannot be measured.

        Returns:
            Why, by path, for the models that cannot be measured; a line that names no model.

        Raises:
            TargetError: Nothing can be measured.
        """

    def measure(
        self, files: Sequence[ModelFile], session: str, round_index: int
    ) -> Generator[Measurement | RunFailure, None, None]:
        """Runs each model once and yields one result per file, in order, as soon as it is there.

        Closing the generator ends what runs.

        Args:
            files: At most `batch` of the files that were prepared.
            session: Goes into the measurements.
            round_index: As well.

        Raises:
            TargetError: Nothing more can be measured; the message names no target.
        """

    def state(self) -> DeviceState:
        """Returns how the device is now.

        Raises:
            TargetError: It cannot be reached.
        """

    def close(self) -> None:
        """Ends what runs on the target and leaves it as it was found. Never raises.

        May be called more than once, and by another thread while `measure` runs, which then
        raises TargetError soon.
        """
