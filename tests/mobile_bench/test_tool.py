"""The command line of benchmark_model, its help, and which of its builds runs on a device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_runs import recorded

from mobile_bench.errors import FailureError, UsageError
from mobile_bench.tool.command import ToolOptions, arguments, find_binary, read_flags, read_help

# The first lines of a recorded --help.
HELP = """\
INFO: STARTING!
ERROR: usage: /data/local/tmp/benchmark_model <flags>
Flags:
\t--num_runs=50                                  \tint32\toptional\texpected number of runs, see
\t--min_secs=1                                   \tfloat\toptional\tminimum number of seconds
\t--graph=                                       \tstring\toptional\tgraph file name
\t--input_layer_value_range=                     \tstring\toptional\t--use_gpu=true is no flag here
\t--enable_op_profiling=false                    \tbool\toptional\tenable op profiling

ERROR: Benchmarking failed.
"""


def elf(machine: int, more: bytes = b"") -> bytes:
    """The head of a 64-bit little-endian program."""
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + bytes([3, 0, machine, 0]) + bytes(44) + more


# --- The command line -------------------------------------------------------------------------


def test_every_option_has_its_argument():
    options = ToolOptions(
        threads=2,
        delegate="gpu",
        num_runs=20,
        min_secs=0.00001,
        max_secs=150.0,
        warmup_runs=0,
        warmup_min_secs=0.5,
        memory=True,
        op_profile_path="/d/p q.csv",
        result_path="/d/r.pb",
    )
    assert arguments("/d/m.tflite", options) == [
        "--graph=/d/m.tflite",
        "--num_threads=2",
        "--num_runs=20",
        "--warmup_runs=0",
        "--min_secs=0.00001",
        "--max_secs=150",
        "--warmup_min_secs=0.5",
        "--use_gpu=true",
        "--report_peak_memory_footprint=true",
        "--enable_op_profiling=true",
        "--op_profiling_output_mode=csv",
        "--op_profiling_output_file=/d/p q.csv",
        "--result_file_path=/d/r.pb",
    ]


@pytest.mark.parametrize(
    ("delegate", "argument"),
    [
        ("cpu", "--use_xnnpack=false"),
        ("xnnpack", "--use_xnnpack=true"),
        ("nnapi", "--use_nnapi=true"),
        ("hexagon", "--use_hexagon=true"),
    ],
)
def test_each_delegate_is_said_explicitly(delegate, argument):
    found = arguments("m", ToolOptions(delegate=delegate))
    assert [word for word in found if word.startswith("--use_")] == [argument]


def test_nnapi_may_not_use_the_cpu_in_place_of_an_accelerator():
    known = {"graph", "num_runs", "use_nnapi"}
    assert "--disable_nnapi_cpu=true" not in arguments("m", ToolOptions(delegate="nnapi"), known)
    known.add("disable_nnapi_cpu")
    assert "--disable_nnapi_cpu=true" in arguments("m", ToolOptions(delegate="nnapi"), known)


def test_the_recorded_build_knows_every_argument():
    recording = recorded("help")
    known = read_help(recording["stdout"] + recording["stderr"])
    options = ToolOptions(memory=True, op_profile_path="p", result_path="r")
    words = arguments("m", options, known.flags)
    assert words == arguments("m", options)
    assert set(read_flags(words)) <= known.flags


def test_old_builds_get_what_they_know():
    old = {"graph", "num_runs", "num_threads", "warmup_runs", "enable_op_profiling"}
    required = ["--graph=m", "--num_threads=1", "--num_runs=50", "--warmup_runs=1"]
    options = ToolOptions(delegate="cpu", memory=True, result_path="r")
    assert arguments("m", options, old) == required
    options = ToolOptions(delegate="cpu", op_profile_path="p")
    profiling = [*required, "--enable_op_profiling=true"]
    assert arguments("m", options, old) == profiling
    old.add("profiling_output_csv_file")
    assert arguments("m", options, old) == [*profiling, "--profiling_output_csv_file=p"]


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"delegate": "gpu"}, "the gpu delegate"),
        ({"delegate": "xnnpack"}, "the xnnpack delegate"),
        ({"delegate": "cpu", "op_profile_path": "p"}, "op profiling"),
    ],
)
def test_what_a_build_cannot_do_is_said_before_it_runs(options, missing):
    supported = {"graph", "num_runs", "use_nnapi"}
    with pytest.raises(FailureError, match=f"was built without {missing}: "):
        arguments("m", ToolOptions(**options), supported)


@pytest.mark.parametrize(
    "options",
    [
        {"delegate": "XNNPACK"},
        {"threads": 0},
        {"num_runs": 5.5},
        {"num_runs": 0},
        {"num_runs": 2**31},
        {"warmup_runs": -1},
        {"min_secs": -1.0},
        {"max_secs": float("nan")},
        {"warmup_min_secs": float("inf")},
    ],
)
def test_values_that_the_tool_would_take_silently_are_refused(options):
    with pytest.raises(UsageError, match=rf"^({'|'.join(options)}): expected "):
        ToolOptions(**options)


@given(st.floats(0, 1e9))
def test_seconds_are_printed_plainly_and_exactly(seconds):
    flags = read_flags(arguments("m", ToolOptions(min_secs=seconds)))
    assert "e" not in flags["min_secs"].lower()
    assert float(flags["min_secs"]) == seconds


def test_flags_are_read_as_the_tool_reads_them():
    words = [
        "taskset",
        "f0",
        "./b",
        "--a=1",
        "--a=2",
        "--bare",
        "--n",
        "5",
        "--graph=x y=z",
        "-c=3",
    ]
    assert read_flags(words) == {"a": "1", "graph": "x y=z"}
    assert read_flags("./b --a=1 '--graph=x y=z' --a=2") == {"a": "1", "graph": "x y=z"}
    assert read_flags("./b --a='1") == {"a": "'1"}
    assert read_flags(None) == {}


# --- The help ---------------------------------------------------------------------------------


def test_help_lists_the_flags():
    known = read_help(HELP)
    assert known.flags == {
        *("num_runs", "min_secs", "graph", "input_layer_value_range", "enable_op_profiling")
    }
    assert known.generation == "2019"


def test_generation_by_the_flags():
    xnnpack = HELP.replace("--min_secs=1", "--use_xnnpack=false")
    assert read_help(xnnpack).generation == "2020"
    recording = recorded("help")
    known = read_help(recording["stderr"])
    assert known.generation == "current"
    assert len(known.flags) == 58
    assert {"op_profiling_output_mode", "use_xnnpack"} <= known.flags
    assert "use_gpu" not in known.flags


def test_what_is_no_help_is_refused():
    with pytest.raises(FailureError, match="expected its list of flags, got 'sh: no such tool'"):
        read_help("sh: no such tool\n")


# --- The build for a device -------------------------------------------------------------------

PHONE = ("arm64-v8a", "armeabi-v7a", "armeabi")


def test_a_file_that_fits(tmp_path):
    for machine, abis in ((183, PHONE), (40, PHONE), (62, ("x86_64",)), (3, ("x86",))):
        path = tmp_path / f"tool of {machine}"
        path.write_bytes(elf(machine))
        assert find_binary(str(path), abis) == str(path)


def test_a_folder_gives_the_best_build(tmp_path):
    small, large = (tmp_path / f"android_{name}_benchmark_model" for name in ("arm", "aarch64"))
    small.write_bytes(elf(40))
    assert find_binary(str(tmp_path), PHONE) == str(small)
    large.write_bytes(elf(183))
    assert find_binary(str(tmp_path), PHONE) == str(large)
    assert find_binary(str(tmp_path), ("armeabi-v7a",)) == str(small)


def test_a_build_for_another_device(tmp_path):
    path = tmp_path / "android_aarch64_benchmark_model"
    path.write_bytes(elf(183))
    expected = f"{path} is built for arm64-v8a, and the device runs x86_64, x86: "
    with pytest.raises(FailureError, match=f"^benchmark_binary: {expected}") as caught:
        find_binary(str(path), ("x86_64", "x86"))
    assert "docs/PHONES.md" in str(caught.value)
    with pytest.raises(FailureError, match="has no android_x86-64_benchmark_model for a device of"):
        find_binary(str(tmp_path), ("x86_64",))
    path.write_bytes(elf(40))  # under a wrong name
    with pytest.raises(FailureError, match="is built for armeabi-v7a, and the device runs arm64"):
        find_binary(str(tmp_path), ("arm64-v8a",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*No such file"),
        (b"", "expected an Android program"),
        (b"#!/bin/sh\nexit 0 # a script of some length\n", "expected an Android program"),
        (elf(183)[:12], "expected an Android program"),
        (elf(8), "is built for ELF machine 8, expected one of arm64-v8a, armeabi-v7a, x86_64, x86"),
        (
            elf(183, b"/lib/ld-linux-aarch64.so.1\0"),
            "is built for Linux, expected a build for Android .android_aarch64_benchmark_model",
        ),
    ],
)
def test_what_is_no_android_program_is_refused(tmp_path, content, message):
    path = tmp_path / "benchmark_model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        find_binary(str(path), PHONE)
    assert "docs/PHONES.md" in str(caught.value)
