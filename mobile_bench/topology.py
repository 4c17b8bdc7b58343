"""Which cores of a device are big and which little, and which of them a run is bound to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from mobile_bench.errors import UsageError
from mobile_bench.results import NAMED_CPUS, Device, parse_cpus


def resolve_cpus(
    cpus: str, device: Device, threads: int, *, allowed: Collection[int] | None = None
) -> tuple[int, ...] | None:
    """Returns the cores that `Settings.cpus` means on a device, ascending.

    Args:
        cpus: "" for None: the system chooses. "little" is the slowest cluster, "big" all others
            (all cores where there is one cluster), "auto" the `threads` fastest cores. Else core
            numbers or a mask.
        device: Its cores and their highest frequencies.
        threads: Of the runtime.
        allowed: The cores that this process may use, on the host.

    Raises:
        UsageError: A core is not there, or the device does not tell which cores are fast.
    """
    if not cpus:
        return None
    frequencies = {
        core: khz
        for core, khz in enumerate(device.core_max_khz)
        if allowed is None or core in allowed
    }
    if cpus in NAMED_CPUS:
        return _named_cores(cpus, device.target, frequencies, threads)
    cores = parse_cpus(cpus)
    missing = sorted(set(cores) - frequencies.keys())
    if missing and frequencies:
        raise UsageError(
            f"cpus: {device.target} may be bound to {_join(frequencies)}, not to {_join(missing)}"
        )
    return cores


def _named_cores(
    name: str, target: str, frequencies: dict[int, int | None], threads: int
) -> tuple[int, ...]:
    known = {core: khz for core, khz in frequencies.items() if khz is not None}
    if not known or len(known) < len(frequencies):
        # A cluster that is switched off or hidden could be the fast one.
        raise UsageError(
            f"cpus: {target} does not tell how fast each of its cores is, so {name} is not known; "
            "give core numbers such as 4-7"
        )
    slowest = min(known.values())
    little = [core for core, khz in known.items() if khz == slowest]
    big = [core for core, khz in known.items() if khz > slowest] or little
    fastest = sorted(known, key=lambda core: (-known[core], core))[:threads]
    return tuple(sorted({"little": little, "big": big, "auto": fastest}[name]))


def cores_to_mask(cores: Iterable[int]) -> str:
    """Returns the mask of cores as Android's taskset takes it: hexadecimal without 0x."""
    return f"{sum(1 << core for core in set(cores)):x}"


def describe_cores(core_max_khz: Sequence[int | None]) -> str:
    """Returns how many cores there are of each highest frequency in GHz: "4x1.80 + 1x2.84"."""
    clusters = Counter(core_max_khz)
    unknown = clusters.pop(None, 0)
    parts = [f"{count}x{khz / 1e6:.2f}" for khz, count in sorted(clusters.items())]
    return " + ".join([*parts, *([f"{unknown}x?"] if unknown else [])])


def _join(cores: Iterable[int]) -> str:
    return ",".join(map(str, cores))
