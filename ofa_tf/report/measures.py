"""What a search can limit, as the report calls it."""

from __future__ import annotations

MEASURES = {  # names and units
    "latency_ms": ("latency", "ms"),
    "macs_m": ("MACs", "M"),
    "params_m": ("parameters", "M"),
    "file_kb": ("file", "kB"),
    "memory_kb": ("activations", "kB"),
}


def measure_name(measure: str) -> tuple[str, str]:
    """Name and unit of a measure, also of the latency on a device: `note10_ms`."""
    if measure in MEASURES:
        return MEASURES[measure]
    what, _, unit = measure.rpartition("_")
    return f"latency on {what}", unit


def measure_label(measure: str) -> str:
    """Name and unit in one text, for the head of a column or an axis."""
    return "{} ({})".format(*measure_name(measure))
