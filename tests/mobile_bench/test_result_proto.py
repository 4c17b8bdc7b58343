"""The result file of benchmark_model, and what it adds to the printed output."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_runs import folder, recorded

from mobile_bench.tool.output import ToolRun, read_run
from mobile_bench.tool.result_proto import ToolResult, merge, read_result

# A recorded file; its decoded text is what RESULT says.
DATA = bytes.fromhex(
    "12320d534d124015986e02401d128338402558"
    "39b43d2de7fb1140354a0c0a403d48e11a40"
    "456abc2c414d5c8f4a40554c9c10401a08"
    "08b0cd01108ce50122100df19f224110a90318d7012553317b43"
)
RESULT = ToolResult(
    mean_us=2285.9695,
    init_us=10796,
    first_us=3165,
    warmup_mean_us=2259.5396,
    std_us=88,
    min_us=2038,
    max_us=2883,
    median_us=2281,
    p5_us=2157,
    p95_us=2420,
    count=425,
    warmup_count=215,
    init_memory_mb=26288 / 1024,
    overall_memory_mb=29324 / 1024,
    peak_memory_mb=None,
    file_size_mb=10.164048,
)


def encoded(latency: bytes) -> bytes:
    """A result with latency metrics only, written without protobuf."""
    return b"\x12" + bytes([len(latency)]) + latency


def number(field: int, value: float) -> bytes:
    return bytes([field << 3 | 5]) + struct.pack("<f", value)


def test_a_result_file():
    assert read_result(DATA) == RESULT


def test_the_recorded_file_is_the_one_of_these_tests():
    assert (folder() / "float_result.pb").read_bytes() == DATA


def test_what_is_not_there_is_none():
    result = read_result(encoded(number(1, 4541.6234) + number(5, 0)))
    assert (result.mean_us, result.median_us) == (4541623.5, 0)  # float32 has no more digits
    rest = dataclasses.replace(result, mean_us=0, median_us=None)
    assert set(dataclasses.astuple(rest)) == {0, None}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected 1 to 1000000 bytes, got 0"),
        (b"\0" * 1_000_001, "expected 1 to 1000000 bytes"),
        (DATA[:-1], "it is no BenchmarkResult"),
        (b"node type, first", "it is no BenchmarkResult"),
        (DATA[52:], "it has no mean time"),
        (encoded(number(1, float("nan"))), "avg_ms cannot be nan"),
        (encoded(number(1, 1.0) + number(2, -1.0)), "min_ms cannot be -1.0"),
    ],
)
def test_damage_is_refused(data, message):
    with pytest.raises(ValueError, match=r"^result file: ") as caught:
        read_result(data)
    assert message in str(caught.value)


@given(st.binary(max_size=100) | st.integers(0, 79).map(lambda end: DATA[:end]))
def test_any_bytes_are_read_or_refused(data):
    try:
        result = read_result(data)
    except ValueError:
        return
    assert result.mean_us >= 0


def test_merging_gives_the_means_their_digits():
    run = ToolRun(mean_us=2285.97, warmup_mean_us=2259.54, count=425, file_size_mb=10.164)
    merged = merge(run, RESULT)
    assert merged.ok
    assert (merged.mean_us, merged.warmup_mean_us) == (2285.9695, 2259.5396)
    assert (merged.median_us, merged.p95_us, merged.init_us) == (2281, 2420, 10796)  # were None
    assert (merged.count, merged.file_size_mb) == (425, 10.164)  # were there


def test_merging_the_recorded_run():
    recording = recorded("float_result_file")
    run = read_run(recording["stdout"], recording["stderr"], 0, recording["command"])
    exact = dataclasses.replace(run, mean_us=2285.9695, warmup_mean_us=2259.5396)
    assert merge(run, RESULT) == exact


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_us": 2286.1}, "mean_us is 2285.9695 and 2286.1"),
        ({"count": 426}, "count is 425 and 426"),
        ({"median_us": 2280.0}, "median_us is 2281 and 2280"),
    ],
)
def test_a_file_of_another_run_is_a_problem(change, message):
    run = ToolRun(**({"mean_us": 2285.97} | change))
    merged = merge(run, RESULT)
    assert merged == dataclasses.replace(run, problems=merged.problems)
    (problem,) = merged.problems
    assert problem == f"the result file is not of this run: there and in the output, {message}"
