"""A batch of runs as one shell script on the phone, and the reading of what it prints.

The script prints a line with a secret token wherever a part of its output begins, on the stream
that the part is on; everything between two such lines is data. Nothing here talks to a device.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

MAX_CHARS = 1 << 20  # of one part of a run's output; what is more is cut off
RESULT_FILE = "jobs/result.pb"
PROFILE_FILE = "jobs/profile.csv"
PACKAGE = "org.tensorflow.lite.benchmark"  # the app of benchmark_model
_PARTS = ("before", "result", "profile", "crash")  # that begin with a marker of their name

# mksh and toybox only. What goes through the runs may be a subshell, of which $$ is not the number.
# `echo` alone ends a line that the part before may have left open. The tool gets no input, as that
# would be the script's own where a shell reads it from there.
_SCRIPT = """\
cd {folder} || exit 1
token={token}
sh -c 'echo $PPID' >jobs/shell
state() (
{state}
)
out() {{ echo; echo "$token $*"; }}
both() {{ out "$@"; out "$@" >&2; }}
launch() {{
{launcher}
}}
run() {{
index=$1
shift
rm -f {result} {profile}
if [ $index = 0 ]; then
out 0 before
state </dev/null 2>/dev/null
fi
both $index run
launch "$@" </dev/null
code=$?
both $index exit $code
state </dev/null 2>/dev/null
if [ -f {result} ]; then out $index result; base64 {result}; fi
if [ -f {profile} ]; then out $index profile; cat {profile}; fi
both $index end
}}
{runs}
rm -f jobs/shell jobs/tool jobs/app {result} {profile}
"""

# Ends what a batch left running, and removes what it left. A process number may be another
# process's by now: only what has our folder in its command line is ended. Its words end in NULs,
# which every shell leaves out, and at which some greps stop. An app is none of our processes.
_END_SCRIPT = """\
cd {folder}/jobs 2>/dev/null || exit 0
for name in shell tool; do
if [ -f $name ]; then
read -r pid <$name
case "$pid" in
'' | *[!0-9]*) ;;
*) case "$(cat "/proc/$pid/cmdline" 2>/dev/null)" in *{folder}*) kill -9 "$pid" ;; esac ;;
esac
fi
done
if [ -f app ]; then am force-stop {package}; fi
rm -f shell tool app ./*.sh ./*.pb ./*.csv
"""


def make_script(
    commands: Sequence[Sequence[str]], *, token: str, folder: str, launcher: str, state: str
) -> str:
    """Returns the script that makes these runs, one after the other.

    Args:
        commands: The words of each command line; they are quoted here.
        token: Letters and digits that no tool can guess; `BatchReader` needs the same.
        folder: Where the script works, on the device.
        launcher: Shell text that runs the words in "$@".
        state: Shell text that prints the state of the device.
    """
    runs = [f"run {index} {shlex.join(words)}" for index, words in enumerate(commands)]
    return _SCRIPT.format(
        folder=shlex.quote(folder),
        token=shlex.quote(token),
        launcher=launcher.rstrip("\n"),
        state=state.rstrip("\n"),
        result=RESULT_FILE,
        profile=PROFILE_FILE,
        runs="\n".join(runs),
    )


def end_script(folder: str) -> str:
    """Returns the script that ends what a batch in this folder left running, and removes its files.

    It is for when no batch should be on.
    """
    return _END_SCRIPT.format(folder=shlex.quote(folder), package=PACKAGE)


@dataclass
class Run:
    """What one run printed.

    Attributes:
        index: Its place in the batch.
        exit_code: Of the tool; None until it has ended.
        cpus: The cores that the tool was allowed, such as "4-7"; None where that is not known.
        started: When the tool was started, UTC, ISO 8601, by this host's clock.
        lines: Lines of each part: "before" and "after" (the device's state; "before" is the
            "after" of the run before it in the batch), "out" and "err" (the tool's output),
            "result" and "profile" (its files, where it wrote them), "crash" (what the phone's log
            has of an app that gave no result).
        cut: Parts of which only the beginning is there.
    """

    index: int
    exit_code: int | None = None
    cpus: str | None = None
    started: str = ""
    lines: dict[str, list[str]] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    _chars: Counter[str] = field(default_factory=Counter)
    _ends: int = 0

    def text(self, part: str) -> str:
        """Returns a part of the output; "" where there is none."""
        return "\n".join(self.lines.get(part, ()))

    @property
    def result(self) -> bytes | None:
        """The tool's result file; None where there is none, or it came damaged."""
        try:
            return base64.b64decode("".join(self.lines["result"]), validate=True) or None
        except (KeyError, ValueError):
            return None

    def _add(self, part: str, line: str) -> None:
        self._chars[part] += len(line) + 1
        if self._chars[part] > MAX_CHARS:
            self.cut.add(part)
        else:
            self.lines.setdefault(part, []).append(line)

    def _drop(self, part: str) -> None:
        self._chars.pop(part, None)
        self.lines.pop(part, None)
        self.cut.discard(part)


def _utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class BatchReader:
    """Takes the lines of a batch as they come and gives back its runs, in order.

    It takes any lines in any order: a run of which something is missing just never ends. Without
    shell v2 all lines come on one stream, each of the tool's streams with its markers.

    Args:
        count: Runs in the batch.
        token: As given to `make_script`.
        now: The clock for `Run.started`.

    Attributes:
        done: Runs that have ended, which is also the index of the one that runs now.
        parts: Parts of the output that have begun: it grows as long as the script gets on.
    """

    def __init__(self, count: int, token: str, now: Callable[[], str] = _utc_now) -> None:
        self.done = self.parts = 0
        self._count = count
        self._now = now
        self._marker = re.compile(
            rf"{re.escape(token)} (?:cpus Cpus_allowed_list:\s*([\d,-]{{1,500}})|"
            r"(\d{1,6}) ([a-z]+)(?: (\d{1,3}))?)\s*",
            re.ASCII,
        )
        self._runs: dict[int, Run] = {}
        self._last_state: list[str] = []
        # The run and its part that each stream is in: stderr may lag behind.
        self._places: dict[str, tuple[Run, str] | None] = {"out": None, "err": None}

    @property
    def running(self) -> bool:
        """Whether the tool runs, and not the commands that tell the device's state."""
        run = self._runs.get(self.done)
        return run is not None and bool(run.started) and run.exit_code is None

    @property
    def flooded(self) -> bool:
        """Whether the tool of the run that is on now has printed more than `MAX_CHARS`."""
        run = self._runs.get(self.done)
        return run is not None and not run.cut.isdisjoint(("out", "err"))

    def feed(self, stream: str, line: str) -> Run | None:
        """Takes one line of a stream, "out" or "err", and returns the run that it ends, if any."""
        match = self._marker.fullmatch(line)
        place = self._places[stream]
        if match is None:
            if place is not None:
                place[0]._add(place[1], line.rstrip("\r\n"))
            return None
        cpus, index, word, number = match.groups()
        if cpus is not None:
            if place is not None:
                place[0].cpus = cpus
            return None
        if not self.done <= int(index) < self._count:
            return None
        run = self._runs.setdefault(int(index), Run(int(index)))
        self.parts += 1
        part = self._begin(run, stream, word, number)
        self._places[stream] = None if part is None else (run, part)
        if run._ends < 2 or run.exit_code is None or run.index != self.done:
            return None
        self.done += 1
        run.lines.setdefault("before", self._last_state)
        self._last_state = run.lines.get("after", [])
        return self._runs.pop(run.index)

    def _begin(self, run: Run, stream: str, word: str, number: str | None) -> str | None:
        """Notes what a marker says and returns the part that begins with it."""
        if word == "run":
            run.started = run.started or self._now()
            return stream
        if word == "exit" and number is not None:
            run.exit_code = int(number)
            return "after" if stream == "out" else None
        if word == "end":
            run._ends += 1
            return None
        if word == "log" and stream == "out":
            run._drop("out")  # the log's lines until here are of other runs
            return "out"
        return word if word in _PARTS and stream == "out" else None
