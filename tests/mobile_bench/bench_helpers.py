"""Records that nothing was run for, quick settings, and a look at processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mobile_bench.results import Delegation, Device, Measurement, Settings, Timings, Tool, Verdict

# Settings that keep a measurement of a tiny model well under a second.
QUICK = {"num_runs": 20, "min_secs": 0.0, "warmup_min_secs": 0.0, "max_spread": 100.0}
QUICK_FLAGS = [f"--{name}={value}" for name, value in QUICK.items()]


def make_measurement(**changes: object) -> Measurement:
    """Returns a valid record that nothing was run for."""
    times = {f.name: 1.5 for f in dataclasses.fields(Timings)}
    counts = {"count": 100, "warmup_count": 2, "round_medians_us": (1.5, 1.5), "spread": 0.0}
    fields = {
        "model": "a.tflite",
        "sha256": "0" * 64,
        "size_bytes": 10,
        "inputs": ("float32[1,2]",),
        "device": Device("host", "cpu", 2, "Linux"),
        "tool": Tool("ai-edge-litert", "2.3.0", "3.11.0"),
        "settings": Settings(),
        "cpus": (0, 1),
        "delegation": Delegation("xnnpack", 2, 7, {"HARD_SWISH": 2}),
        "timings": Timings(**(times | counts)),
        "verdict": Verdict(True, ()),
        "date": "2025-01-01T00:00:00+00:00",
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
