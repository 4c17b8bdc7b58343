"""Records that nothing was run for, quick settings, processes, and what both host targets do."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path

from mobile_bench.errors import TargetError
from mobile_bench.models import ModelFile
from mobile_bench.results import (
    Affinity,
    Delegation,
    Device,
    DeviceState,
    Measurement,
    Settings,
    Timings,
    Tool,
    Verdict,
)
from mobile_bench.target import Target

# Settings that keep a measurement of a tiny model well under a second.
QUICK = {"num_runs": 20, "min_secs": 0.0, "warmup_min_secs": 0.0, "max_spread": 100.0}
QUICK_FLAGS = [f"--{name}={value}" for name, value in QUICK.items()]

HOST = Device("host", "", "", "", "cpu", "Linux", "6.1", ("x86_64",), (None, None))
TOOL = Tool("ai-edge-litert", "2.3.0", "")
STATE = DeviceState("2025-01-01T00:00:00+00:00")


def make_measurement(**changes: object) -> Measurement:
    """Returns a valid record that nothing was run for.

    Args:
        changes: Fields of the record, or of its timings (`typical_us` is the median).
    """
    if "typical_us" in changes:
        changes["median_us"] = changes.pop("typical_us")
    names = {field.name for field in dataclasses.fields(Timings)}
    times = dict.fromkeys(names, 1.5) | {"count": 100, "warmup_count": 2}
    times |= {name: changes.pop(name) for name in names & changes.keys()}
    fields = {
        "session": "20250101T000000Z-0",
        "round": 0,
        "date": "2025-01-01T00:00:00+00:00",
        "model": "a.tflite",
        "sha256": "0" * 64,
        "size_bytes": 10,
        "inputs": ("float32[1,2]",),
        "device": HOST,
        "tool": TOOL,
        "command": "",
        "settings": Settings(),
        "affinity": Affinity(None, (0, 1)),
        "delegation": Delegation("xnnpack", 2, 7, 5, {"HARD_SWISH": 2}, False),
        "timings": Timings(**times),
        "memory": None,
        "profile": None,
        "before": STATE,
        "after": STATE,
        "verdict": Verdict(True, ()),
    }
    return Measurement(**(fields | changes))


def children(pid: int) -> list[int]:
    """Returns the processes that a process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # it ended meanwhile
        if int(parent) == pid:
            found.append(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def check_that_closing_ends_a_run_of_another_thread(target: Target, file: ModelFile) -> None:
    """The run would take minutes; the thread gets a TargetError, and no process is left."""
    before, errors = children(os.getpid()), []

    def measure() -> None:
        try:
            list(target.measure([file], "session", 0))
        except TargetError as error:
            errors.append(str(error))

    thread = threading.Thread(target=measure)
    thread.start()
    while children(os.getpid()) == before:
        time.sleep(0.01)
    target.close()
    thread.join(30)
    assert errors == ["the measuring was ended"]
    assert children(os.getpid()) == before
    target.close()  # a second time does no harm
