"""Where a benchmark ran: processor, memory, versions, code, and what else ran meanwhile."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import platform
import resource
import subprocess
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Features of processors that decide which kernels run: of x86, then of ARM.
_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "sve", "i8mm", "bf16"),
)
_PACKAGES = ("tensorflow", "keras", "torch", "ofa", "ai-edge-litert", "numpy", "ofa_tf")
# With more of a core than this for other processes, what was measured is called busy.
_BUSY_CORES = 0.1
# /proc/stat: the times of all cores that were not idle. Those of guests are in user's already.
_NOT_IDLE = ("user", "nice", "system", "irq", "softirq", "steal")
_STAT_COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@functools.cache
def versions() -> dict[str, str]:
    """Python's version and those of the packages; empty for one that is not installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


@functools.cache
def machine() -> dict[str, str]:
    """The processor's name, number of cores and features, and the memory."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    info = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        info.setdefault(name.strip(), value.strip())
    features = info.get("flags", info.get("Features", "")).split()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": info.get("model name", platform.machine()),
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu_flags": " ".join(flag for flag in _FLAGS if flag in features),
        "memory_gb": f"{memory / 1e9:.1f}",
    }


def commit() -> str:
    """The commit that is checked out, with "+" after it where measured code differs from it."""
    git = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    try:
        head = git(["git", "rev-parse", "--short=10", "HEAD"])
        changed = git(["git", "status", "--porcelain", "--", "ofa_tf", "mobile_bench"])
    except OSError:
        return ""  # no git here
    if head.returncode:
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def code_hash(scripts: Iterable[pathlib.Path]) -> str:
    """Stands for the code that is measured, both packages, and for the scripts that measure it."""
    files = {
        path for package in ("ofa_tf", "mobile_bench") for path in ROOT.glob(f"{package}/**/*")
    }
    digest = hashlib.sha256()
    for path in sorted({*files, *scripts}):
        if path.suffix == ".py":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


class Watch:
    """What happens from here to `stop`: the date, the loads, and what other processes took."""

    def __init__(self) -> None:
        self._date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._load = os.getloadavg()[0]
        self._start = time.monotonic()
        self._others = _cpu_seconds() - _own_seconds()

    def stop(self) -> dict[str, str]:
        """The columns of it.

        Processes that this one started count as its own when they have ended and were waited for.
        """
        seconds = time.monotonic() - self._start
        others = max(_cpu_seconds() - _own_seconds() - self._others, 0) / max(seconds, 1e-3)
        return {
            "date": self._date,
            "seconds": f"{seconds:.0f}",
            "load_start": f"{self._load:.2f}",
            "load_end": f"{os.getloadavg()[0]:.2f}",
            "others_cores": f"{others:.2f}",
            "busy": "yes" if others > _BUSY_CORES else "no",
        }


def _cpu_seconds() -> float:
    """Seconds for which the cores were not idle, since the system's start."""
    line = pathlib.Path("/proc/stat").read_text().partition("\n")[0]
    ticks = dict(zip(_STAT_COLUMNS, map(int, line.split()[1:]), strict=False))
    return sum(ticks[name] for name in _NOT_IDLE) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
