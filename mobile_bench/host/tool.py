"""The target "host" with a benchmark_model for this machine in place of the Python runtime.

A run is a batch of one: the very script, and the very reading of its output, that a phone has.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO

from mobile_bench.errors import FailureError, RunError, TargetError, UsageError
from mobile_bench.host.info import describe_host, host_cores, host_state
from mobile_bench.models import ModelFile
from mobile_bench.phone.batch import (
    MAX_CHARS,
    PROFILE_FILE,
    RESULT_FILE,
    BatchReader,
    Run,
    make_script,
)
from mobile_bench.phone.binary import launcher, tool_options
from mobile_bench.phone.description import state_script
from mobile_bench.phone.record import make_measurement
from mobile_bench.results import DeviceState, Measurement, Settings, Tool
from mobile_bench.scratch import temporary_file, temporary_folder
from mobile_bench.target import RunFailure, TargetOptions
from mobile_bench.tool import command as tool
from mobile_bench.topology import cores_to_mask

_HELP_SECS = 60.0
_MOST_BYTES = 16 * 2**20  # of a file that the program writes, and of what it prints

# Ends the script, and all that it started, when this process has ended, by whatever signal: then
# the pipe ends that is its input. A program that prints without end is ended before the disk is
# full; ulimit counts in blocks of 512 bytes, bash in some of its modes in 1024.
_GUARD = f"""\
ulimit -f {_MOST_BYTES // 512}
exec 9<&0 </dev/null
(read -r line <&9; kill -9 0) >/dev/null 2>&1 &
exec 9<&-
"""


class HostToolTarget:
    """This machine, measured by a program, see `target.Target`.

    Args:
        settings: How each run is made and judged.
        options: `benchmark_binary` is the program.

    Raises:
        UsageError: The program is none, or the cores cannot be bound to.
        FailureError: It does not run here, or lacks what the settings ask for.
    """

    name = "host"
    batch = 1

    def __init__(self, settings: Settings, options: TargetOptions) -> None:
        self.device = describe_host()
        self._settings = settings
        self._cpus = host_cores(settings)
        if self._cpus is not None and shutil.which("taskset") is None:
            raise UsageError("cpus: binding benchmark_model to cores needs the program taskset")
        self._path = _program(options.benchmark_binary or "")
        self._help = _ask_help(self._path)
        version = options.benchmark_version or self._help.generation
        self.tool = Tool("benchmark_model", version, ModelFile.read(self._path).sha256)
        self._timeout_secs = 2 * settings.max_secs + options.timeout_secs
        self._words("", "")  # raises for what this build cannot do
        self._folder = temporary_folder()
        Path(self._folder.name, "jobs").mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._in_use = threading.Lock()  # held while a run is on

    def prepare(self, files: Sequence[ModelFile]) -> dict[str, str]:
        """Has nothing to do: the program reads the files where they are."""
        return {}

    def measure(
        self, files: Sequence[ModelFile], session: str, round_index: int
    ) -> Generator[Measurement | RunFailure, None, None]:
        """Runs each model once, see `target.Target`."""
        for file in files:
            words = self._words(os.path.abspath(file.path), self._folder.name)
            taskset = [] if self._cpus is None else ["taskset", cores_to_mask(self._cpus)]
            try:
                yield make_measurement(
                    self._run(words),
                    file,
                    shlex.join([*taskset, *words]),
                    session=session,
                    round_index=round_index,
                    device=self.device,
                    tool=self.tool,
                    settings=self._settings,
                    cpus=self._cpus,
                )
            except RunError as error:
                yield RunFailure(file.path, str(error))

    def state(self) -> DeviceState:
        """Returns how this host is now."""
        return host_state()

    def close(self) -> None:
        """Ends the program, whatever it is doing, and removes its files."""
        self._closed = True
        self._kill()
        with self._in_use:
            self._folder.cleanup()

    def _words(self, model_path: str, folder: str) -> list[str]:
        options = tool_options(
            self._settings,
            op_profile_path=f"{folder}/{PROFILE_FILE}" if self._settings.op_profile else None,
            result_path=f"{folder}/{RESULT_FILE}",
        )
        return [self._path, *tool.arguments(model_path, options, self._help.flags)]

    def _run(self, words: Sequence[str]) -> Run:
        """Runs the program once and returns what it printed.

        Raises:
            RunError: It hangs.
            TargetError: All was ended meanwhile.
        """
        token = secrets.token_hex(16)
        script = make_script(
            [words],
            token=token,
            folder=self._folder.name,
            launcher=launcher(self._cpus),
            state=state_script(),
        )
        with self._in_use, temporary_file() as out, temporary_file() as err:
            self._process = subprocess.Popen(
                ["sh", "-c", _GUARD + script],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,  # Ctrl-C is for this process, which ends the program
            )
            try:
                if not self._closed:  # while it was started: `close` could not see it yet
                    self._process.wait(self._timeout_secs)
            except subprocess.TimeoutExpired:
                raise RunError(f"no end within {self._timeout_secs:g} s; it hangs") from None
            finally:
                self._kill()
                self._process.wait()
                self._process.stdin.close()
            if self._closed:
                raise TargetError("the measuring was ended")
            if max(os.fstat(file.fileno()).st_size for file in (out, err)) >= _MOST_BYTES:
                raise RunError("the tool printed without end, so it was ended")
            return _read(token, out, err)

    def _kill(self) -> None:
        """Ends the shell and the program; may be called by another thread."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.killpg(process.pid, signal.SIGKILL)


def _program(path: str) -> str:
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise UsageError(
            f"benchmark_binary: the host needs a program built for this machine, got {path!r}"
        )
    return os.path.abspath(path)


def _ask_help(path: str) -> tool.ToolHelp:
    try:
        done = subprocess.run(
            [path, "--help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_HELP_SECS,
        )
        said = (done.stdout[:MAX_CHARS] + done.stderr[:MAX_CHARS]).decode(errors="replace")
        return tool.read_help(said)
    except subprocess.TimeoutExpired:
        raise FailureError(f"{path}: --help did not end within {_HELP_SECS:g} s") from None
    except OSError as error:
        raise FailureError(f"{path}: does not run on this machine: {error.strerror}") from error
    except FailureError as error:
        raise FailureError(f"{path}: {error}") from error


def _read(token: str, out: IO[bytes], err: IO[bytes]) -> Run:
    reader = BatchReader(1, token)
    for stream, file in (("out", out), ("err", err)):
        file.seek(0)
        for line in file:
            run = reader.feed(stream, line.decode(errors="replace"))
            if run is not None:
                return run
    raise RunError("its shell ended before it did")
