"""What the stand-in of benchmark_model reports: statistics, op profiles and the result file."""

from __future__ import annotations

import struct


class Sample:
    """The times of several runs, which the tool counts in whole microseconds."""

    def __init__(self, times_us: list[float]) -> None:
        self.times_us = times_us = list(map(int, times_us))
        self.mean = sum(times_us) / max(1, len(times_us))
        squares = sum((time - self.mean) ** 2 for time in times_us)
        self.std = (squares / max(1, len(times_us))) ** 0.5
        self._ordered = sorted(times_us)

    def line(self, percentiles: bool) -> str:
        """Returns them as the tool's line of statistics."""
        times = self.times_us
        text = f"count={len(times)}"
        if len(times) == 1:
            text += f" curr={times[0]}"
        elif times and min(times) == max(times):
            text += f" curr={times[-1]}(all same)"
        elif times:
            text += (
                f" first={times[0]} curr={times[-1]} min={min(times)} max={max(times)}"
                f" avg={self.mean:g} std={int(self.std)}"
            )
        if percentiles:
            p5, median, p95 = (self.percentile(percent) for percent in (5, 50, 95))
            text += f" p5={p5} median={median} p95={p95}"
        return text

    def percentile(self, percent: int) -> int:
        """Returns a percentile in whole microseconds; 0 of no runs."""
        if not self._ordered:
            return 0
        index = len(self._ordered) * percent // 100
        return int(self._ordered[min(index, len(self._ordered) - 1)])


def op_profile(op_types: tuple[str, ...], init_us: int, sample: Sample) -> tuple[str, str]:
    """Returns the two parts of an op profile's CSV, in the form of the recorded ones.

    The ops share the mean time equally: this is about the form.
    """
    start = _profile_tables(
        ["ModifyGraphWithDelegate", "AllocateTensors"], init_us, f"count=1 curr={init_us}"
    )
    statistics = sample.line(percentiles=False)
    runs = _profile_tables(list(op_types), sample.mean, statistics)
    return (
        f"Profiling Info for Benchmark Initialization:\n{start}",
        f"Operator-wise Profiling Info for Regular Benchmark Runs:\n{runs}",
    )


def _profile_tables(names: list[str], total_us: float, statistics: str) -> str:
    share = 100 / len(names)
    each_ms = total_us / 1000 / len(names)
    rows = "".join(
        f"{name}, {each_ms:g}, {each_ms:g}, {share:g}%, {share * (i + 1):g}%, 0, 1, {name}/{i}\n"
        for i, name in enumerate(names)
    )
    columns = "node type, first, avg_ms, %, cdf%, mem KB, times called, name\n"
    summary = ""
    done = 0
    for kind in dict.fromkeys(names):
        count = names.count(kind)
        done += count
        summary += (
            f"{kind}, {count}, {count * each_ms:g}, {count * share:g}%, {done * share:g}%, 0, "
            f"{count}\n"
        )
    line = "=" * 30
    return (
        f"{line} Run Order {line}\n{columns}{rows}\n"
        f"{line} Top by Computation Time {line}\n{columns}{rows}\n"
        f"Number of nodes executed: {len(names)}\n"
        f"{line} Summary by node type {line}\n"
        f"node type, count, avg_ms, avg %, cdf %, mem KB, times called\n{summary}\n"
        f"Timings (microseconds): {statistics}\nMemory (bytes): count=0\n"
        f"{len(names)} nodes observed\n\n\n"
    )


def result_proto(size: int, init_us: int, warmup: Sample, sample: Sample) -> bytes:
    """Returns the file of --result_file_path: a BenchmarkResult, encoded by hand."""
    times = sample.times_us
    latency_us = (
        sample.mean,
        min(times, default=0),
        max(times, default=0),
        int(sample.std),
        *(sample.percentile(q) for q in (50, 5, 95)),
        init_us,
        warmup.times_us[0] if warmup.times_us else 0,
        warmup.mean,
    )
    megabytes = size / 1e6
    latency = b"".join(_float_field(i, us / 1000) for i, us in enumerate(latency_us, 1))
    memory = _int_field(1, 26288) + _int_field(2, 29260)
    misc = (
        _float_field(1, megabytes)
        + _int_field(2, len(times))
        + _int_field(3, len(warmup.times_us))
        + _float_field(4, megabytes * 1e6 / sample.mean if times else 0)
    )
    return b"".join(
        bytes([number << 3 | 2, len(message)]) + message
        for number, message in ((2, latency), (3, memory), (4, misc))
    )


def _float_field(number: int, value: float) -> bytes:
    return bytes([number << 3 | 5]) + struct.pack("<f", value)


def _int_field(number: int, value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([number << 3, *digits, value])
