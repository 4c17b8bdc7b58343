"""From what a run on a phone printed to its record."""

import base64

import pytest
from bench_helpers import HOST, TOOL

from mobile_bench.errors import RunError
from mobile_bench.models import ModelFile
from mobile_bench.phone.batch import Run
from mobile_bench.phone.record import make_measurement
from mobile_bench.results import Affinity, Settings

FILE = ModelFile("a.tflite", "0" * 64, 10)
OUTPUT = """\
INFO: STARTING!
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the \
delegate.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if \
exceeding 60 seconds.
INFO: count=1 curr=2000 p5=2000 median=2000 p95=2000

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if \
exceeding 60 seconds.
INFO: count=50 first=1592 curr=1302 min=1145 max=4979 avg=1327.1 std=214 p5=1185 median=1298 \
p95=1515

INFO: Inference timings in us: Init: 11604, First inference: 2000, Warmup (avg): 2000, \
Inference (avg): 1327.1
INFO: Memory footprint delta from the start of the tool (MB): init=25.6719 overall=28.5742
"""


def make_run(**changes):
    lines = {"out": OUTPUT.splitlines()} | changes.pop("lines", {})
    return Run(
        **({"index": 0, "exit_code": 0, "cpus": "0-3", "started": "then"} | changes), lines=lines
    )


def record(run, **settings):
    delegate = settings.get("delegate", "xnnpack")
    return make_measurement(
        run,
        FILE,
        f"benchmark_model --use_{delegate}=true --num_runs=50",
        session="session",
        round_index=3,
        device=HOST,
        tool=TOOL,
        settings=Settings(**settings),
        cpus=(0, 1, 2, 3),
    )


def test_a_good_run():
    row = record(make_run())
    assert row.verdict.reasons == ()
    assert (row.session, row.round, row.model) == ("session", 3, "a.tflite")
    assert (row.timings.count, row.timings.mean_us, row.timings.median_us) == (50, 1327.1, 1298)
    assert (row.timings.init_us, row.timings.first_us, row.timings.p90_us) == (11604, 2000, None)
    assert (row.memory.init_mb, row.memory.peak_mb) == (25.6719, None)
    assert row.affinity == Affinity((0, 1, 2, 3), (0, 1, 2, 3))
    assert row.before.date == "then"
    assert row.profile is None


@pytest.mark.parametrize("code", [1, 126, 137, 139])
def test_an_exit_code_is_a_failure_whatever_was_printed(code):
    with pytest.raises(RunError, match=r"benchmark_model (ended with exit code|was ended by)"):
        record(make_run(exit_code=code))


@pytest.mark.parametrize(
    "lines", [[], ["INFO: STARTING!"], ["\x00\ufffd" * 1000], OUTPUT.splitlines()[-2:]]
)
def test_no_time_is_a_failure(lines):
    with pytest.raises(RunError, match="no whole line of "):
        record(make_run(lines={"out": lines}))


@pytest.mark.parametrize("cpus", [None, "0-9999", "0-", "5-4", ","])
def test_cores_that_cannot_be_read_are_not_granted(cpus):
    row = record(make_run(cpus=cpus))
    assert row.affinity.granted is None
    assert [reason.partition(":")[0] for reason in row.verdict.reasons] == ["affinity"]


@pytest.mark.parametrize(
    ("part", "lines", "reason"),
    [
        ("result", [base64.b64encode(b"\xff\xff damaged").decode()], "tool: result file"),
        ("profile", ["Run Order", "damaged"], "tool: op profile"),
        ("profile", [], "tool: op profile"),
    ],
)
def test_a_damaged_file_is_told_and_the_times_stay(part, lines, reason):
    row = record(make_run(lines={part: lines}), op_profile=part == "profile")
    assert row.timings.median_us == 1298
    assert [text.startswith(reason) for text in row.verdict.reasons] == [True]
    assert row.profile is None


def test_a_result_file_that_did_not_come_through_is_left_out():
    row = record(make_run(lines={"result": ["base64: not found"]}))
    assert row.verdict.reasons == ()


@pytest.mark.parametrize(
    ("delegate", "said", "reasons", "notes"),
    [
        (
            "gpu",
            ["ERROR: Can not open OpenCL library on this device", "ERROR: Falling back to OpenGL"],
            (),
            (
                "tool: the GPU delegate fell back to OpenGL: Can not open OpenCL library on this "
                "device",
            ),
        ),
        (
            "nnapi",
            ["INFO: NNAPI accelerators available: [nnapi-reference]"],
            ("fallback: nnapi had no accelerator but nnapi-reference: the CPU was timed",),
            (),
        ),
        (
            "hexagon",
            ["INFO: Use Hexagon: [1]", "WARN: Could not create Hexagon delegate: no libraries"],
            (
                "fallback: hexagon was asked for, and nothing says that it was applied (Could not "
                "create Hexagon delegate: no libraries)",
            ),
            (),
        ),
    ],
)
def test_what_is_said_of_a_delegate_is_in_the_verdict(delegate, said, reasons, notes):
    name = {"gpu": "GPU", "nnapi": "NNAPI"}.get(delegate, "XNNPACK")
    lines = [*said, *OUTPUT.replace("applied XNNPACK", f"applied {name}").splitlines()]
    row = record(make_run(lines={"out": lines}), delegate=delegate)
    assert (row.verdict.reasons, row.verdict.notes) == (reasons, notes)
