"""Where a benchmark ran: processor, memory, versions, code."""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import subprocess
from importlib import metadata

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Features of processors that decide which kernels run: of x86, then of ARM.
_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "sve", "i8mm", "bf16"),
)
_PACKAGES = ("tensorflow", "keras", "torch", "ofa", "ai-edge-litert", "numpy", "ofa_tf")


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
