"""Which process of which host something belongs to, and whether that process still runs."""

from __future__ import annotations

import os
import platform
import re


def this_host() -> str:
    """Returns a name of this host, and of its process numbers: a container has its own."""
    name = re.sub(r"[^\w.-]", "_", platform.node(), flags=re.ASCII)[:100] or "unnamed"
    try:
        numbers = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux: one set of numbers
        numbers = ""
    return f"{name}/{numbers}"


def is_running(process: int) -> bool:
    """Returns whether there is a process of this number on this host."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
