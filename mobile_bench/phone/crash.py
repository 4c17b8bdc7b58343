"""How an app crashed, as Android's log has it.

A native crash is told by libc, in the process that crashes, and by the system's debugger (DEBUG);
an exception that nobody caught by AndroidRuntime.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict

from mobile_bench.errors import one_line

TAGS = "AndroidRuntime:E libc:F DEBUG:I"  # as logcat's filters
_LONGEST = 300  # characters of what is told

_LINE = re.compile(r"[VDIWEF]/(?P<tag>[^(]*?)\s*\(\s*(?P<process>\d+)\): ?(?P<text>.*)", re.ASCII)
_MARK = re.compile(r"[0-9a-f]{32} \d{1,6} log", re.ASCII)  # our own line, before the start
_SIGNAL = re.compile(r"(?:Fatal )?signal (\d{1,3}) \((SIG[A-Z0-9]{1,12})\)", re.ASCII)
_ABORT = re.compile(r"Abort message: '?(.*?)'?")
_FRAME = re.compile(r"\s*#00 pc [0-9a-f]{4,16} +(?:\S*/)?(\S+)", re.ASCII)


def read_crash(log: str, package: str) -> str:
    """Returns how an app crashed, in a line; "" where the log has no crash of it.

    Args:
        log: `logcat -v brief` of the app's own tag and of `TAGS`; what comes before our own line
            is of other runs.
        package: The app's name.
    """
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in log.splitlines():
        if match := _LINE.fullmatch(line):
            if _MARK.fullmatch(match["text"].strip()):
                texts.clear()
            else:
                texts[match["tag"], match["process"]].append(match["text"])
    told = _exception(texts, package) or _signal(texts, package)
    return told and one_line(f"the app crashed: {told}", _LONGEST)


def _exception(texts: dict[tuple[str, str], list[str]], package: str) -> str:
    """Returns an exception that ended the app: the line after the one that names its process."""
    for (tag, _), lines in texts.items():
        for name, text in itertools.pairwise(lines):
            if tag == "AndroidRuntime" and name.startswith(f"Process: {package},"):
                return text.strip()
    return ""


def _signal(texts: dict[tuple[str, str], list[str]], package: str) -> str:
    """Returns the signal that ended the app, with its reason and place where these are told."""
    own = {process for tag, process in texts if tag == "tflite"}
    for (tag, process), lines in texts.items():
        text = "\n".join(lines)
        is_own = {
            # A process has the end of its app's name.
            "libc": process in own or f"({package[-15:]})" in text,
            "DEBUG": f">>> {package} <<<" in text,
        }
        if is_own.get(tag) and (signal := _SIGNAL.search(text)):
            parts = [f"signal {signal[1]} ({signal[2]})", *_details(texts, package)]
            return ", ".join(parts)
    return ""


def _details(texts: dict[tuple[str, str], list[str]], package: str) -> list[str]:
    for (tag, _), lines in texts.items():
        if tag == "DEBUG" and any(f">>> {package} <<<" in line for line in lines):
            frames = [f"in {match[1]}" for line in lines if (match := _FRAME.match(line))]
            aborts = [f"it says {m[1]!r}" for line in lines if (m := _ABORT.fullmatch(line))]
            return [*frames[:1], *aborts[:1]]
    return []
