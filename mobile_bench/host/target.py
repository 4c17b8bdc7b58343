"""The target "host": measures models on this machine, in a worker process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from mobile_bench.errors import RunError, TargetError, UsageError, one_line
from mobile_bench.host.info import describe_host, describe_tool, host_cores, host_state
from mobile_bench.models import ModelFile
from mobile_bench.results import Affinity, Delegation, DeviceState, Measurement, Memory, Settings
from mobile_bench.scratch import temporary_file
from mobile_bench.target import RunFailure, TargetOptions
from mobile_bench.timings import summarize_runs
from mobile_bench.verdicts import judge_run

DELEGATES = ("xnnpack", "cpu")

# Interpreters kept between rounds; models beyond either bound are loaded again in each round.
KEEP_MODELS = 32
KEEP_BYTES = 256 * 2**20

_START_SECS = 60.0


class Worker:
    """A running `mobile_bench.host.worker`.

    Args:
        threads: Threads of the runtime.
        delegate: One of DELEGATES.
        cpus: Cores to bind it to; None leaves that to the system.

    Attributes:
        cpus: Cores it may use, read back; None where the system cannot tell.

    Raises:
        RunError: The worker does not start.
        TargetError: There is no room for its log.
    """

    def __init__(self, threads: int, delegate: str, cpus: Sequence[int] | None) -> None:
        try:
            self._log = temporary_file()
            self._process = self._start(threads, delegate, cpus or ())
        except OSError as error:
            raise RunError(f"the runtime's process cannot be started: {error}") from error
        self._unread = b""
        try:
            greeting = self._receive(_START_SECS)
            if "error" in greeting:
                raise RunError(greeting["error"])
        except BaseException:
            self.close()
            raise
        self.cpus: tuple[int, ...] | None = greeting["cpus"] and tuple(greeting["cpus"])

    def ask(self, request: dict[str, Any], timeout_secs: float) -> dict[str, Any]:
        """Sends a request and returns the reply.

        Raises:
            RunError: The worker ended or did not reply in time; it is of no more use.
        """
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise RunError(self._how_it_ended()) from None
        return self._receive(timeout_secs)

    def kill(self) -> None:
        """Ends the process, whatever it is doing; may be called by another thread."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process and gives back what it needed."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            stream.close()

    def _start(self, threads: int, delegate: str, cpus: Sequence[int]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", f"{__package__}.worker"),
                *(str(threads), delegate, ",".join(map(str, cpus))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            cwd=Path(__file__).resolve().parents[2],  # so that -m finds this very package
            start_new_session=True,  # Ctrl-C is for the parent, which ends the worker
        )

    def _receive(self, timeout_secs: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_secs
        chunks = [self._unread]
        while b"\n" not in chunks[-1]:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise RunError(f"no answer within {timeout_secs:g} s; the runtime hangs")
            chunks.append(os.read(self._process.stdout.fileno(), 1 << 20))
            if not chunks[-1]:
                raise RunError(self._how_it_ended())
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
        return f"the runtime's process was {how}" + (f": {one_line(lines[-1])}" if lines else "")


class HostTarget:
    """This machine as a target, see `target.Target`.

    A crash or hang of the runtime costs one run: a new worker process does the next.

    Args:
        settings: How each run is made and judged.
        options: Of these only `timeout_secs` is for the host.

    Raises:
        UsageError: The settings ask for what the host cannot do.
        FailureError: The runtime is not installed.
    """

    name = "host"
    batch = 1

    def __init__(self, settings: Settings, options: TargetOptions) -> None:
        _check(settings)
        self.device, self.tool = describe_host(), describe_tool()
        self._cpus = host_cores(settings)
        self._settings = settings
        self._timeout_secs = 2 * settings.max_secs + options.timeout_secs
        self._kept: set[str] = set()
        self._worker: Worker | None = None
        self._granted: tuple[int, ...] | None = None  # cores, as the worker read them back
        self._closed = False
        self._in_use = threading.Lock()  # held while the worker is started, asked or closed

    def prepare(self, files: Sequence[ModelFile]) -> dict[str, str]:
        """Chooses the models whose interpreters stay between rounds; refuses none."""
        room = KEEP_BYTES
        for file in files:
            if len(self._kept) < KEEP_MODELS and file.size_bytes <= room:
                self._kept.add(file.path)
                room -= file.size_bytes
        return {}

    def measure(
        self, files: Sequence[ModelFile], session: str, round_index: int
    ) -> Generator[Measurement | RunFailure, None, None]:
        """Runs each model once, see `target.Target`."""
        for file in files:
            try:
                before = self.state()
                reply = self._ask(file)
                yield self._measurement(file, session, round_index, reply, before, self.state())
            except RunError as error:
                yield RunFailure(file.path, str(error))

    def state(self) -> DeviceState:
        """Returns how this host is now."""
        return host_state()

    def close(self) -> None:
        """Ends the worker, whatever it is doing."""
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.kill()  # whoever waits for its answer gets the end of its output
        with self._in_use:
            self._end_worker()

    def _ask(self, file: ModelFile) -> dict[str, Any]:
        """Has the worker run a model once and returns its reply.

        Raises:
            RunError: The model could not be measured.
            TargetError: There is no worker any more, or none starts.
        """
        with self._in_use:
            try:
                if self._worker is None:
                    self._worker = self._start_worker()
                if self._closed:  # while it was started: `close` could not see it yet
                    raise TargetError("the measuring was ended")
                reply = self._worker.ask(self._request(file), self._timeout_secs)
            except BaseException as error:  # interrupted between request and reply, too
                self._end_worker()
                if self._closed and isinstance(error, RunError):
                    raise TargetError("the measuring was ended") from error
                raise
            if self._settings.memory:
                self._end_worker()  # the next model's memory is not to be what this one left
        if "error" in reply:
            raise RunError(reply["error"])
        return reply

    def _start_worker(self) -> Worker:
        try:
            worker = Worker(self._settings.threads, self._settings.delegate, self._cpus)
        except RunError as error:
            raise TargetError(str(error)) from error
        self._granted = worker.cpus
        return worker

    def _request(self, file: ModelFile) -> dict[str, Any]:
        settings = self._settings
        return {
            "model": os.path.abspath(file.path),
            "keep": file.path in self._kept,
            "num_runs": settings.num_runs,
            "min_secs": settings.min_secs,
            "max_secs": settings.max_secs,
            "warmup_runs": settings.warmup_runs,
            "warmup_min_secs": settings.warmup_min_secs,
        }

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _measurement(
        self,
        file: ModelFile,
        session: str,
        round_index: int,
        reply: dict[str, Any],
        before: DeviceState,
        after: DeviceState,
    ) -> Measurement:
        settings = self._settings
        timings = summarize_runs(reply["init_ns"], reply["warmup_ns"], reply["runs_ns"])
        affinity = Affinity(self._cpus, self._granted)
        delegation = Delegation(**reply["delegation"])
        return Measurement(
            session=session,
            round=round_index,
            date=after.date,
            model=file.path,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
            inputs=tuple(reply["inputs"]),
            device=self.device,
            tool=self.tool,
            command="",
            settings=settings,
            affinity=affinity,
            delegation=delegation,
            timings=timings,
            memory=Memory(**reply["memory"]) if settings.memory else None,
            profile=None,
            before=before,
            after=after,
            verdict=judge_run(settings, affinity, delegation, timings, before, after, self.device),
        )


def _check(settings: Settings) -> None:
    """Raises UsageError where the settings ask for what only phones can do."""
    if settings.delegate not in DELEGATES:
        raise UsageError(
            f"delegate: the host's runtime has {', '.join(DELEGATES)}, not {settings.delegate}"
        )
    if settings.op_profile:
        raise UsageError(
            "op_profile: the runtime's Python package cannot time single ops; on the host, "
            "measured alone, --benchmark_binary=PATH names a benchmark_model that can"
        )
