"""benchmark_model as a program on a phone: put there, asked what it can do, given its words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mobile_bench.adb.device import FOLDER, AdbDevice
from mobile_bench.errors import FailureError, UsageError, one_line
from mobile_bench.models import ModelFile
from mobile_bench.phone.batch import PROFILE_FILE, RESULT_FILE
from mobile_bench.phone.install import push_tool, remote_model
from mobile_bench.results import Device, Settings, Tool
from mobile_bench.target import TargetOptions
from mobile_bench.tool import command as tool
from mobile_bench.topology import cores_to_mask

_SHELL_SECS = 20.0
_HELP_SECS = 60.0
_SHELL_REFUSALS = (126, 127)  # exit codes for a program that is not one, or is not there

# The cores are read back within the process that becomes the tool, after taskset has had its say.
_LAUNCHER = """\
{taskset}sh -c 'echo $$ >jobs/tool
echo
echo "$0 cpus $(grep Cpus_allowed_list /proc/self/status)"
exec "$@"' $token "$@"
"""


def launcher(cpus: Sequence[int] | None) -> str:
    """Returns the shell text for `batch.make_script` that runs a program bound to these cores."""
    taskset = "" if cpus is None else f"taskset {shlex.quote(cores_to_mask(cpus))} "
    return _LAUNCHER.format(taskset=taskset)


class BinaryRunner:
    """benchmark_model on one phone.

    Args:
        device: The phone; its folders are there.
        description: What it is.
        cpus: The cores to bind to; None for any.
        settings: How each run is made.
        options: Where the tool is on this host.

    Attributes:
        tool: What it is.
        launcher: Shell text for `batch.make_script`.

    Raises:
        UsageError: No tool was given, or it is no program for Android.
        FailureError: It does not serve this phone, or lacks what the settings ask for.
    """

    def __init__(
        self,
        device: AdbDevice,
        description: Device,
        cpus: Sequence[int] | None,
        settings: Settings,
        options: TargetOptions,
    ) -> None:
        if options.benchmark_binary is None:
            raise UsageError(
                "benchmark_binary: a phone needs TensorFlow Lite's benchmark_model, a file or a "
                f"folder with one per ABI: {tool.WHERE_TO_GET_IT}"
            )
        path = tool.find_binary(options.benchmark_binary, description.abis)
        self._taskset = [] if cpus is None else ["taskset", cores_to_mask(cpus)]
        if cpus is not None:
            _check_taskset(device, self._taskset)
        self._remote, digest = push_tool(device, path)
        self.launcher = launcher(cpus)
        self._options = tool_options(
            settings,
            op_profile_path=f"{FOLDER}/{PROFILE_FILE}" if settings.op_profile else None,
            result_path=f"{FOLDER}/{RESULT_FILE}",
        )
        self._help = _ask_help(device, self._remote, path)
        tool.arguments("", self._options, self._help.flags)  # raises for what it cannot do
        version = options.benchmark_version or self._help.generation
        self.tool = Tool("benchmark_model", version, digest)

    def words(self, file: ModelFile) -> list[str]:
        """Returns the words of the command line that runs a model."""
        flags = tool.arguments(remote_model(file), self._options, self._help.flags)
        return [self._remote, *flags]

    def command(self, file: ModelFile) -> str:
        """Returns the command line as it is recorded: what to type on the phone for this run."""
        return shlex.join([*self._taskset, *self.words(file)])


def tool_options(
    settings: Settings, *, op_profile_path: str | None = None, result_path: str | None = None
) -> tool.ToolOptions:
    """Returns what the settings mean for the tool.

    Whether all has to be delegated is left to the verdict: the tool itself would tell no time.
    """
    return tool.ToolOptions(
        threads=settings.threads,
        delegate=settings.delegate,
        num_runs=settings.num_runs,
        min_secs=settings.min_secs,
        max_secs=settings.max_secs,
        warmup_runs=settings.warmup_runs,
        warmup_min_secs=settings.warmup_min_secs,
        memory=settings.memory,
        op_profile_path=op_profile_path,
        result_path=result_path,
    )


def _check_taskset(device: AdbDevice, taskset: Sequence[str]) -> None:
    """Tries it once: old phones have none, and a phone may refuse cores that it has switched off.

    Raises:
        FailureError: It does not work.
    """
    done = device.shell([*taskset, "true"], timeout_secs=_SHELL_SECS)
    if done.exit_code:
        said = one_line((done.stderr or done.stdout).strip(), 200)
        raise FailureError(
            f"{device.serial}: cpus: `{shlex.join(taskset)}` does not work on this phone (exit "
            f"code {done.exit_code}: {said}); give other cores, or leave cpus out"
        )


def _ask_help(device: AdbDevice, remote: str, path: str) -> tool.ToolHelp:
    """Runs the tool once: it may not run at all, and builds differ in what they can do."""
    done = device.shell([remote, "--help"], timeout_secs=_HELP_SECS)
    said = f"{done.stdout}\n{done.stderr}"
    if done.exit_code in _SHELL_REFUSALS or done.exit_code > 128:
        raise FailureError(
            f"{device.serial}: {path} does not run on this phone (exit code {done.exit_code}: "
            f"{one_line(said.strip(), 200)}); is it built for its ABI? {tool.WHERE_TO_GET_IT}"
        )
    try:
        return tool.read_help(said)
    except FailureError as error:
        raise FailureError(f"{device.serial}: {path}: {error}") from error
