"""benchmark_model as an app on a phone, started by an intent; its output comes from the log.

An app runs as its users know it, with Android's scheduling of what is in the foreground, and may
use delegates that a program of the shell may not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from mobile_bench.adb.device import AdbDevice
from mobile_bench.errors import FailureError, UsageError, one_line
from mobile_bench.models import ModelFile
from mobile_bench.phone.batch import PACKAGE
from mobile_bench.phone.binary import tool_options
from mobile_bench.phone.crash import TAGS
from mobile_bench.phone.install import remote_model
from mobile_bench.results import Settings, Tool
from mobile_bench.target import TargetOptions
from mobile_bench.tool import command as tool

_START = ["am", "start", "-S", "-n", f"{PACKAGE}/.BenchmarkModelActivity", "--es", "args"]
_SHELL_SECS = 60.0
_POLLS_PER_SEC = 2
_GONE_SECS = 5  # without its process after which the app has ended

# The app prints its result last of all but the memory, which comes at once. It may take a moment to
# be there, as may all of what the system logs of a crash, and a `pidof` that old phones do not have
# (127) is no sign that it has ended. Phones may refuse to clear their log: what stands in it before
# our own line is of other runs.
_LAUNCHER = """\
logcat -c
mark="$token $index log"
log -t tflite "$mark"
echo >jobs/app
{start} "$*" || return
polls=0
gone=0
result=
while [ $polls -lt {most_polls} ]; do
sleep {pause}
polls=$((polls + 1))
case "$(logcat -d -v raw -s tflite {crash_tags})" in
*"$mark"*'nference timings in us'*) result=yes; break ;;
*"$mark"*'>>> {package} <<<'* | *"$mark"*'Process: {package},'*) sleep 1; break ;;
esac
pidof {package} >/dev/null
if [ $? = 1 ]; then gone=$((gone + 1)); else gone=0; fi
if [ $gone = {most_gone} ]; then break; fi
done
logcat -d -v raw -s tflite
if [ ! "$result" ]; then
out $index crash
logcat -d -v brief -s tflite {crash_tags}
fi
am force-stop {package}
"""


class ApkRunner:
    """The benchmark app on one phone, on which it is installed already.

    Args:
        device: The phone.
        cpus: Has to be None: an app cannot be bound to cores from outside.
        settings: How each run is made.
        options: What to record as its version, and how long a run may take.

    Attributes:
        tool: What it is.
        launcher: Shell text for `batch.make_script`.

    Raises:
        UsageError: The settings ask for what the app cannot do.
        FailureError: It is not installed.
    """

    def __init__(
        self,
        device: AdbDevice,
        cpus: Sequence[int] | None,
        settings: Settings,
        options: TargetOptions,
    ) -> None:
        if cpus is not None:
            raise UsageError("cpus: an app cannot be bound to cores; leave it out, or runner=apk")
        if settings.op_profile:
            raise UsageError("op_profile: the app cannot write one; leave it out, or runner=apk")
        self._options = tool_options(settings)
        most_secs = 2 * settings.max_secs + options.timeout_secs
        self.launcher = _LAUNCHER.format(
            start=shlex.join(_START),
            most_polls=int(most_secs * _POLLS_PER_SEC) + 1,
            pause=1 / _POLLS_PER_SEC,
            most_gone=_GONE_SECS * _POLLS_PER_SEC,
            package=PACKAGE,
            crash_tags=TAGS,
        )
        version, digest = _identify(device)
        self.tool = Tool("benchmark_model.apk", options.benchmark_version or version, digest)

    def words(self, file: ModelFile) -> list[str]:
        """Returns the arguments of the run of a model."""
        return tool.arguments(remote_model(file), self._options)

    def command(self, file: ModelFile) -> str:
        """Returns the command line as it is recorded: what to type on the phone for this run."""
        return shlex.join([*_START, " ".join(self.words(file))])


def _identify(device: AdbDevice) -> tuple[str, str]:
    """Returns the app's version, and the sha256 of its file where that can be read."""
    answer = device.shell(["pm", "path", PACKAGE], timeout_secs=_SHELL_SECS).stdout
    path = re.search(r"(?m)^package:(/\S{1,500})\s*$", answer)
    if path is None:
        raise FailureError(
            f"{device.serial}: {PACKAGE} is not installed: `adb install -g -r` its apk first "
            f"({tool.WHERE_TO_GET_IT})"
        )
    about = device.shell(["dumpsys", "package", PACKAGE], timeout_secs=_SHELL_SECS).stdout
    version = re.search(r"versionName=(\S{1,100})", about)
    hashed = device.shell(["sha256sum", path[1]], timeout_secs=_SHELL_SECS).stdout
    digest = re.match(r"[0-9a-f]{64}\b", hashed)
    return one_line(version[1]) if version else "unknown", digest[0] if digest else ""
