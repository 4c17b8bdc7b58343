"""The phone's log, as `logcat` prints it."""

from __future__ import annotations

import signal
import time
from typing import NamedTuple

_LEVELS = "VDIWEFS"  # the last is for filters only: silent


class _Row(NamedTuple):
    when: str
    pid: int
    level: str
    tag: str
    text: str

    def line(self, style: str) -> str:
        when, pid, level, tag, text = self
        return {
            "threadtime": f"{when} {pid:5} {pid:5} {level} {tag:8}: {text}\n",
            "brief": f"{level}/{tag:8}({pid:5}): {text}\n",
            "tag": f"{level}/{tag:8}: {text}\n",
            "raw": f"{text}\n",
        }[style]


class Logcat:
    """The phone's log."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []

    def add(self, pid: int, level: str, tag: str, text: str) -> None:
        """Adds one line; `level` is a letter of VDIWEF."""
        self._rows.append(_Row(time.strftime("%m-%d %H:%M:%S.000"), pid, level, tag, text))

    def clear(self) -> None:
        self._rows.clear()

    def text(self, arguments: list[str]) -> str:
        """Returns the lines that `logcat` with these arguments prints.

        The formats threadtime (the default), brief, tag and raw are known, and the filters
        `TAG:LEVEL`, `*:S` and `-s TAG`.
        """
        style = arguments[arguments.index("-v") + 1] if "-v" in arguments else "threadtime"
        least = _filters(arguments)
        rest = least.pop("*", "S" if "-s" in arguments else "V")
        lines = [
            row.line(style)
            for row in self._rows
            if _LEVELS.index(row.level) >= _LEVELS.index(least.get(row.tag, rest))
        ]
        return "--------- beginning of main\n" + "".join(lines)


def _filters(arguments: list[str]) -> dict[str, str]:
    """Returns the least level of each tag that is named."""
    least = {}
    before = ""
    for word in arguments:
        if not word.startswith("-") and before not in ("-v", "-b", "-t", "-T"):
            tag, _, level = word.partition(":")
            least[tag] = level or "V"
        before = word
    return least


def log_crash(logcat: Logcat, package: str, pid: int, number: int) -> None:
    """Logs a native crash as Android does since version 8: libc, then the system's debugger."""
    name = signal.Signals(number).name
    comm = package[-15:]  # a process has the end of its app's name
    reason = {11: "code 1 (SEGV_MAPERR), fault addr 0x10"}.get(number, "code -1 (SI_QUEUE)")
    where = f"in tid {pid} ({comm}), pid {pid} ({comm})"
    logcat.add(pid, "F", "libc", f"Fatal signal {number} ({name}), {reason} {where}")
    abort = ["Abort message: 'assertion failed'"] if number == signal.SIGABRT else []
    for text in (
        "*** *** *** *** *** *** *** *** *** *** *** *** *** *** *** ***",
        "Build fingerprint: 'google/sargo/sargo:9/PQ3B.190801.002/5674421:user/release-keys'",
        "Revision: 'MP1.0'",
        "ABI: 'arm64'",
        f"pid: {pid}, tid: {pid}, name: {comm}  >>> {package} <<<",
        f"signal {number} ({name}), {reason}",
        *abort,
        "    x0  0000000000000000  x1  0000007fe5b9c2a8  x2  0000000000000010",
        "backtrace:",
        "      #00 pc 00000000000f1a2c  /data/app/~~Zx3w==/lib/arm64/libbenchmark_model.so "
        "(BuildId: 2f1)",
        "      #01 pc 00000000000a0b1c  /apex/com.android.art/lib64/libart.so",
    ):
        logcat.add(pid + 17, "F", "DEBUG", text)


def log_exception(logcat: Logcat, package: str, pid: int, text: str) -> None:
    """Logs an exception that no code of an app has caught."""
    for line in (
        "FATAL EXCEPTION: main",
        f"Process: {package}, PID: {pid}",
        text,
        "\tat java.lang.Runtime.loadLibrary0(Runtime.java:1016)",
        "\tat android.os.Looper.loop(Looper.java:193)",
    ):
        logcat.add(pid, "E", "AndroidRuntime", line)
