"""Measures models on this host: the parent's side of the worker process, and the rounds."""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mobile_bench.errors import FailureError, MeasureError, UsageError
from mobile_bench.models import ModelFile
from mobile_bench.results import Delegation, Device, Measurement, Settings, Tool
from mobile_bench.timings import Round, judge, summarize

# Interpreters kept between rounds; models beyond either bound are loaded again in each round.
KEEP_MODELS = 32
KEEP_BYTES = 256 * 2**20

_START_SECS = 60.0

Progress = Callable[[int, int, str], None]
OnResult = Callable[[Measurement], None]


class Worker:
    """A running `mobile_bench.host_worker`.

    Args:
        settings: Threads, delegate and cores are the worker's for life.

    Attributes:
        cpus: Cores it may use, read back; None where the system cannot tell.

    Raises:
        FailureError: The worker does not start.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = self._start(settings)
        except OSError as error:
            raise FailureError(f"the runtime's process cannot be started: {error}") from error
        self._unread = b""
        try:
            greeting = self._receive(_START_SECS)
            if "error" in greeting:
                raise FailureError(greeting["error"])
        except BaseException:
            self.close()
            raise
        self.cpus: tuple[int, ...] | None = greeting["cpus"] and tuple(greeting["cpus"])

    def ask(self, request: dict[str, Any], timeout_secs: float) -> dict[str, Any]:
        """Sends a request and returns the reply.

        Raises:
            FailureError: The worker ended or did not reply in time; it is of no more use.
        """
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise FailureError(self._how_it_ended()) from None
        return self._receive(timeout_secs)

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            stream.close()

    def _start(self, settings: Settings) -> subprocess.Popen[bytes]:
        cpus = ",".join(map(str, settings.cpus or ()))
        return subprocess.Popen(
            [
                *(sys.executable, "-m", f"{__package__}.host_worker"),
                *(str(settings.threads), settings.delegate, cpus),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            cwd=Path(__file__).resolve().parents[1],  # so that -m finds this very package
            start_new_session=True,  # Ctrl-C is for the parent, which ends the worker
        )

    def _receive(self, timeout_secs: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_secs
        chunks = [self._unread]
        while b"\n" not in chunks[-1]:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise FailureError(f"no answer within {timeout_secs:g} s; the runtime hangs")
            chunks.append(os.read(self._process.stdout.fileno(), 1 << 20))
            if not chunks[-1]:
                raise FailureError(self._how_it_ended())
        line, self._unread = b"".join(chunks).split(b"\n", 1)
        return json.loads(line)

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 2000))
        log = self._log.read().decode(errors="replace").strip().splitlines()
        lines = [line for line in log if not line.startswith("INFO:")]
        how = (
            f"killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with exit code {code}"
        )
        return f"the runtime's process was {how}" + (f": {lines[-1]}" if lines else "")


@dataclass
class Job:
    """A model on its way through the rounds."""

    file: ModelFile
    keep: bool
    rounds: list[Round] = field(default_factory=list)
    inputs: tuple[str, ...] = ()
    delegation: Delegation | None = None


class HostSession:
    """Runs rounds of models in a worker, replaced when it crashes or hangs.

    Args:
        settings: How models are timed.
        timeout_secs: Seconds past its own time bounds after which a round counts as hung.

    Raises:
        FailureError: The runtime is not installed, or the worker does not start.
    """

    def __init__(self, settings: Settings, timeout_secs: float) -> None:
        self._settings = settings
        self._timeout_secs = timeout_secs
        self._device, self._tool = describe_host(), describe_tool()
        self._worker: Worker | None = Worker(settings)

    def __enter__(self) -> HostSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_worker()

    def run_round(self, job: Job, last: bool) -> None:
        """Measures one model once and adds the round to its job.

        Raises:
            FailureError: It could not be measured; the message names the model.
        """
        settings = self._settings
        request = {
            "model": os.path.abspath(job.file.path),
            "keep": job.keep and not last,
            "num_runs": settings.num_runs,
            "min_secs": settings.min_secs,
            "max_secs": settings.max_secs,
            "warmup_runs": settings.warmup_runs,
            "warmup_min_secs": settings.warmup_min_secs,
        }
        try:
            self._worker = self._worker or Worker(settings)
            reply = self._worker.ask(request, 2 * settings.max_secs + self._timeout_secs)
        except FailureError as error:
            self._end_worker()
            raise FailureError(f"{job.file.path}: {error}") from error
        except BaseException:
            self._end_worker()  # interrupted between request and reply
            raise
        if "error" in reply:
            raise FailureError(f"{job.file.path}: {reply['error']}")
        job.inputs, job.delegation = tuple(reply["inputs"]), Delegation(**reply["delegation"])
        times = (array("q", reply[name]) for name in ("warmup_ns", "runs_ns"))
        job.rounds.append(Round(reply["init_ns"], *times))

    def measurement(self, job: Job) -> Measurement:
        """Returns the record of a model that went through all rounds."""
        timings = summarize(job.rounds)
        cpus = self._worker.cpus
        return Measurement(
            model=job.file.path,
            sha256=job.file.sha256,
            size_bytes=job.file.size_bytes,
            inputs=job.inputs,
            device=self._device,
            tool=self._tool,
            settings=self._settings,
            cpus=cpus,
            delegation=job.delegation,
            timings=timings,
            verdict=judge(self._settings, cpus, job.delegation, job.rounds, timings),
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def measure_on_host(
    paths: Sequence[str],
    settings: Settings,
    *,
    timeout_secs: float,
    progress: Progress | None = None,
    on_result: OnResult | None = None,
) -> list[Measurement]:
    """Measures every model in every round: all models once, then all again.

    Args:
        paths: The models.
        settings: How they are timed.
        timeout_secs: Seconds past its own time bounds after which a round counts as hung.
        progress: Called as (rounds of models done, of how many, model) before each.
        on_result: Called with each measurement as soon as it is complete, in the last round.

    Raises:
        FailureError: The runtime is not installed, or the worker does not start.
        MeasureError: Some models could not be measured; it carries the others' measurements.
    """
    jobs, failures = make_jobs(paths)
    measurements: list[Measurement] = []
    with HostSession(settings, timeout_secs) as session:
        for index in range(settings.rounds):
            last = index == settings.rounds - 1
            for position, job in enumerate(jobs):
                path = job.file.path
                if path in failures:
                    continue
                if progress is not None:
                    progress(index * len(jobs) + position, settings.rounds * len(jobs), path)
                try:
                    session.run_round(job, last)
                except FailureError as error:
                    failures[path] = str(error)
                    job.rounds.clear()
                    continue
                if last:
                    measurements.append(session.measurement(job))
                    job.rounds.clear()
                    if on_result is not None:
                        on_result(measurements[-1])
    if failures:
        raise MeasureError(measurements, failures)
    return measurements


def make_jobs(paths: Sequence[str]) -> tuple[list[Job], dict[str, str]]:
    """Returns a job for each readable file and the failures of the others."""
    jobs: list[Job] = []
    failures: dict[str, str] = {}
    room = KEEP_BYTES
    for path in dict.fromkeys(paths):
        try:
            file = ModelFile.read(path)
        except FailureError as error:
            failures[path] = str(error)
            continue
        keep = len(jobs) < KEEP_MODELS and file.size_bytes <= room
        room -= file.size_bytes if keep else 0
        jobs.append(Job(file, keep))
    return jobs, failures


def describe_host() -> Device:
    """Returns what this host is."""
    system = platform.uname()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return Device(
        target="host",
        cpu=names[0] if names else system.machine,
        cores=os.cpu_count() or 1,
        os=f"{system.system} {system.release} {system.machine}",
    )


def describe_tool() -> Tool:
    """Returns what runs the models.

    Raises:
        FailureError: It is not installed.
    """
    from importlib import metadata

    name = "ai-edge-litert"
    try:
        return Tool(name, metadata.version(name), platform.python_version())
    except metadata.PackageNotFoundError as error:
        raise FailureError(f"{name} is not installed: pip install {name}") from error


def check_cpus(cpus: tuple[int, ...] | None) -> None:
    """Raises UsageError unless this process may bind to these cores; None is always right."""
    if cpus is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("cpus: this system cannot bind a process to cores; leave it out")
    allowed = sorted(os.sched_getaffinity(0))
    if not cpus or not set(cpus) <= set(allowed):
        raise UsageError(f"cpus: expected some of {allowed}, got {list(cpus)}")
