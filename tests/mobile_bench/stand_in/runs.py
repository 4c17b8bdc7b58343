"""The runs of benchmark_model on a device: how it behaves, what was run, and the app form of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from stand_in.logcat import log_crash, log_exception

if TYPE_CHECKING:
    from stand_in.device import StandInDevice


PACKAGE = "org.tensorflow.lite.benchmark"


@dataclasses.dataclass
class ToolSettings:
    """How the phone's benchmark_model was built and how it behaves.

    Attributes:
        instant: Prints made-up timings at once instead of running the model.
        generation: "current", "2020" or "2019": the form of its output.
        delegates: Those compiled in: of "xnnpack", "gpu", "nnapi", "hexagon".
        partitions: How many delegate kernels an instant run tells of; None for the whole graph.
        mean_us: Mean time of an instant run, or a function of the run's arguments.
        std_us: Its standard deviation.
    """

    instant: bool = False
    generation: str = "current"
    delegates: tuple[str, ...] = ("xnnpack",)
    partitions: int | None = None
    mean_us: float | Callable[[list[str]], float] = 1500.0
    std_us: float = 20.0

    def orders(self, arguments: list[str]) -> dict[str, object]:
        """Returns what one run is told; `arguments` are its flags."""
        mean_us = self.mean_us(arguments) if callable(self.mean_us) else self.mean_us
        return vars(self) | {"mean_us": mean_us}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the tool that was started.

    Attributes:
        arguments: Its flags, with the phone's paths.
        cpus: The cores it was bound to, such as "4-7"; None for all.
        pid: The host's process.
    """

    arguments: list[str]
    cpus: str | None
    pid: int

    def is_running(self) -> bool:
        """Tells whether the process is still there."""
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False


class App:
    """The benchmark as an installed app: started by `am`, its output goes to the log.

    Attributes:
        throws: The exception that ends each start of it; "" for none.
    """

    def __init__(self, device: StandInDevice) -> None:
        self.throws = ""
        self._device = device
        self._process: subprocess.Popen | None = None

    def start(self, arguments: list[str]) -> None:
        """Starts a run and returns at once."""
        if self.throws:
            log_exception(self._device.logcat, PACKAGE, 4711, self.throws)
            return
        self._process = self._device.popen(
            [str(self._device.files.runner), "arm64-v8a", "(BenchmarkModelAndroid)", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """Ends the run, as `am force-stop` does."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()

    def pid(self) -> int | None:
        """Returns its process; None where it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running else None

    def _watch(self, process: subprocess.Popen) -> None:
        """Logs what the app prints, and at its end the line that the app itself logs."""
        errors = threading.Thread(target=self._log, args=(process, process.stderr), daemon=True)
        errors.start()
        lines = self._log(process, process.stdout)
        errors.join()
        results = [line for line in lines if "timings in us" in line]
        code = process.wait()
        if code < 0 and code != -signal.SIGKILL:  # of which nobody is told
            log_crash(self._device.logcat, PACKAGE, process.pid, -code)
        if code == 0 and results:
            self._device.logcat.add(process.pid, "E", "tflite", results[-1])

    def _log(self, process: subprocess.Popen, pipe: TextIO) -> list[str]:
        lines = []
        with pipe:
            for line in pipe:
                prefix, _, text = line.rstrip("\n").partition(": ")
                level = {"INFO": "I", "WARN": "W", "ERROR": "E"}.get(prefix)
                if level is None:
                    level, text = "I", line.rstrip("\n")
                lines.append(text)
                self._device.logcat.add(process.pid, level, "tflite", text)
        return lines
