"""The file that current builds of benchmark_model write with --result_file_path: a BenchmarkResult
protocol buffer, with more digits than what they print."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

from mobile_bench.tool.output import ToolRun

_MAX_BYTES = 1_000_000

# Messages and their fields by number, all optional, as the files themselves show them.
_MESSAGES = {
    "LatencyMetrics": {
        1: ("avg_ms", "float"),
        2: ("min_ms", "float"),
        3: ("max_ms", "float"),
        4: ("stddev_ms", "float"),
        5: ("median_ms", "float"),
        6: ("p5_ms", "float"),
        7: ("p95_ms", "float"),
        8: ("init_ms", "float"),
        9: ("first_inference_ms", "float"),
        10: ("average_warm_up_ms", "float"),
    },
    "MemoryMetrics": {
        1: ("init_footprint_kb", "int64"),
        2: ("overall_footprint_kb", "int64"),
        3: ("peak_mem_mb", "float"),
    },
    "MiscMetrics": {
        1: ("model_size_mb", "float"),
        2: ("num_runs", "int32"),
        3: ("num_warmup_runs", "int32"),
    },
    "BenchmarkResult": {
        2: ("latency_metrics", "LatencyMetrics"),
        3: ("memory_metrics", "MemoryMetrics"),
        4: ("misc_metrics", "MiscMetrics"),
    },
}
# Of the times, the tool takes these from whole microseconds.
_WHOLE_TIMES = {
    "min_us": "min_ms",
    "max_us": "max_ms",
    "std_us": "stddev_ms",
    "median_us": "median_ms",
    "p5_us": "p5_ms",
    "p95_us": "p95_ms",
    "init_us": "init_ms",
    "first_us": "first_inference_ms",
}
_MEANS = {"mean_us": "avg_ms", "warmup_mean_us": "average_warm_up_ms"}


@dataclass(frozen=True)
class ToolResult:
    """The contents of a result file, named and in units as in `ToolRun`; None is not there."""

    mean_us: float
    init_us: float | None
    first_us: float | None
    warmup_mean_us: float | None
    std_us: float | None
    min_us: float | None
    max_us: float | None
    median_us: float | None
    p5_us: float | None
    p95_us: float | None
    count: int | None
    warmup_count: int | None
    init_memory_mb: float | None
    overall_memory_mb: float | None
    peak_memory_mb: float | None
    file_size_mb: float | None


def read_result(data: bytes) -> ToolResult:
    """Reads a result file.

    Raises:
        ValueError: The bytes are no BenchmarkResult, or its numbers cannot be.
    """
    from google.protobuf.message import DecodeError

    if not 0 < len(data) <= _MAX_BYTES:
        raise ValueError(f"result file: expected 1 to {_MAX_BYTES} bytes, got {len(data)}")
    try:
        message = _message_class()().FromString(data)
    except DecodeError as error:
        raise ValueError("result file: damaged, it is no BenchmarkResult") from error
    latency, memory = message.latency_metrics, message.memory_metrics
    fields: dict[str, Any] = {}
    for name, source in _WHOLE_TIMES.items():
        value = _value(latency, source)
        fields[name] = None if value is None else float(round(value * 1000))
    for name, source in _MEANS.items():
        value = _value(latency, source)
        fields[name] = None if value is None else _shortest(value * 1000)
    for name, source in (("init", "init_footprint_kb"), ("overall", "overall_footprint_kb")):
        value = _value(memory, source, low=-math.inf)  # memory may shrink
        fields[f"{name}_memory_mb"] = None if value is None else value / 1024
    for name, part, source in (
        ("peak_memory_mb", memory, "peak_mem_mb"),
        ("file_size_mb", message.misc_metrics, "model_size_mb"),
    ):
        value = _value(part, source)
        fields[name] = None if value is None else _shortest(value)
    fields["count"] = _value(message.misc_metrics, "num_runs")
    fields["warmup_count"] = _value(message.misc_metrics, "num_warmup_runs")
    if fields["mean_us"] is None:
        raise ValueError("result file: damaged, it has no mean time")
    return ToolResult(**fields)


def merge(run: ToolRun, result: ToolResult) -> ToolRun:
    """Returns the run with what the result file knows better.

    What the output did not tell is filled in, and means get the digits that the output rounds
    away. Where the two disagree by more than rounding, the run keeps the printed value and gets a
    problem: the file is then of another run.
    """
    changes: dict[str, Any] = {}
    disagreements = []
    for field in dataclasses.fields(result):
        printed, exact = getattr(run, field.name), getattr(result, field.name)
        if exact is None:
            continue
        # Six digits are printed; a float32 of the file has seven.
        slack = 0.0 if isinstance(exact, int) else 1e-5
        if printed is not None and not math.isclose(printed, exact, rel_tol=slack):
            disagreements.append(f"{field.name} is {exact:.10g} and {printed:.10g}")
        elif printed is None or field.name in _MEANS:
            changes[field.name] = exact
    if disagreements:
        shown = ", ".join(disagreements[:3])
        problem = f"the result file is not of this run: there and in the output, {shown}"
        return dataclasses.replace(run, problems=(*run.problems, problem))
    return dataclasses.replace(run, **changes)


def _value(message: Any, name: str, low: float = 0.0) -> Any:
    """A field, None where it is not set.

    Raises:
        ValueError: Its number cannot be.
    """
    if not message.HasField(name):
        return None
    value = getattr(message, name)
    if not (math.isfinite(value) and value >= low):
        raise ValueError(f"result file: {name} cannot be {value}")
    return value


def _shortest(value: float) -> float:
    """Takes off the digits that widening a float32 adds."""
    return float(f"{value:.8g}")


@functools.cache
def _message_class() -> Any:
    """The class of BenchmarkResult, built from `_MESSAGES`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = "mobile_bench"
    field_types = {
        "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
        "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
        "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="mobile_bench_result.proto", package=package, syntax="proto2"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for number, (name, kind) in fields.items():
            field = message.field.add(name=name, number=number)
            field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            if kind in field_types:
                field.type = field_types[kind]
            else:
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.BenchmarkResult"))
