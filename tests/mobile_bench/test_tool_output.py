"""Reading what benchmark_model prints: recorded runs, other generations, damage of all kinds."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_runs import folder, recorded

from mobile_bench.tool.lines import MAX_CHARS
from mobile_bench.tool.output import ToolRun, read_run

# What a current build prints (recorded, with the lines that matter).
CURRENT = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [20]
INFO: Graph: [/data/local/tmp/a.tflite]
INFO: Use xnnpack: [1]
INFO: Loaded model /data/local/tmp/a.tflite
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the \
delegate w/ 10 delegate kernels.
INFO: The input model file size (MB): 2.72408
INFO: Initialized session in 10.479ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if \
exceeding 150 seconds.
INFO: count=47 first=11503 curr=10511 min=10159 max=11503 avg=10722 std=294 p5=10343 median=10703 \
p95=11238

INFO: Running benchmark for at least 20 iterations and at least 1 seconds but terminate if \
exceeding 150 seconds.
INFO: count=93 first=10606 curr=11129 min=10239 max=11568 avg=10750.6 std=247 p5=10320 \
median=10753 p95=11198

INFO: Inference timings in us: Init: 10479, First inference: 11503, Warmup (avg): 10722, \
Inference (avg): 10750.6
INFO: Memory footprint delta from the start of the tool (MB): init=11.457 overall=13.582
"""
RUNS_LINE = CURRENT.splitlines()[14].removeprefix("INFO: ")
CURRENT_STDERR = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
CURRENT_COMMAND = ["benchmark_model", "--graph=a.tflite", "--num_runs=20", "--use_xnnpack=true"]
CURRENT_RUN = ToolRun(
    generation="current",
    init_us=10479,
    first_us=11503,
    warmup_count=47,
    warmup_mean_us=10722,
    count=93,
    mean_us=10750.6,
    std_us=247,
    min_us=10239,
    max_us=11568,
    median_us=10753,
    p5_us=10320,
    p95_us=11198,
    asked_runs=20,
    init_memory_mb=11.457,
    overall_memory_mb=13.582,
    file_size_mb=2.72408,
    delegate="xnnpack",
    delegate_partitions=10,
    fully_delegated=False,
)

# The shape of 2020 to 2022: no prefixes, no median. As in tensorflow issue 43541 and the README.
GPU_2020 = """\
STARTING!
Log parameter values verbosely: [0]
Min num runs: [50]
Num threads: [4]
Graph: [/data/local/tmp/b.tflite]
Use gpu: [1]
Loaded model /data/local/tmp/b.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite delegate for GPU.
INFO: Created 1 GPU delegate kernels.
Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
The input model file size (MB): 7.07479
Initialized session in 870.557ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding \
150 seconds.
count=4 first=130565 curr=120829 min=117370 max=130565 avg=122373 std=4930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding \
150 seconds.
count=50 first=119212 curr=118055 min=113737 max=124776 avg=119375 std=1948

Inference timings in us: Init: 870557, First inference: 130565, Warmup (avg): 122373, \
Inference (avg): 119375
Peak memory footprint (MB): init=63.4883 overall=64.5
"""
# The shape of 2018 and 2019, as in issue 77 of yuenshome/yuenshome.github.io.
CPU_2019 = """\
STARTING!
Min num runs: [10]
Num threads: [1]
Use nnapi : [0]
Loaded model /data/local/tmp/c.tflite
resolved reporter
Initialized session in 9.933ms
Running benchmark for at least 4 iterations and at least 0.5 seconds
count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944

Running benchmark for at least 10 iterations and at least 1 seconds
count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
"""
# The Android app of 2019 logs only this (benchmark_model_jni.cc of that time).
APP_2019 = (
    "03-01 10:00:00.123  4242  4260 E tflite  : Average inference timings in us: Warmup: 91471, "
    "Init: 4108, Inference: 80660.1Overall max resident set size = 48 MB\n"
)


def current(*changes: tuple[str, str]) -> str:
    """The current output with some text replaced, all of which must be in it."""
    text = CURRENT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def run_of(stdout: str, exit_code: int = 0, command=None, stderr: str = "") -> ToolRun:
    return read_run(stdout, stderr, exit_code, command)


# --- The recorded runs ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Expected:
    """What to read: problems as fragments, mean and median in us, count and so on."""

    problems: tuple[str, ...] = ()
    generation: str | None = "current"
    count: int | None = None
    mean: float | None = None
    median: float | None = None
    init: float | None = None
    first: float | None = None
    delegate: str | None = "xnnpack"
    partitions: int | None = None
    size: float | None = 10.164
    peak: float | None = None


def refused(*problems: str, **fields) -> Expected:
    """A run that ended before it measured anything."""
    return Expected(problems, **({"generation": None, "delegate": None, "size": None} | fields))


RECORDED = {
    "bad_flag_value": refused("exit code 1: Failed to parse flag 'num_runs'"),
    "csv_unwritable": Expected(
        ("op profile /nonexistent_dir/x.csv was not written",),
        "current",
        5,
        2539,
        2448,
        12613,
        3013,
    ),
    "dynamic_range_default": Expected(
        (), "current", 92, 10814.1, 10553, 14445, 11199, "xnnpack", None, 2.72408
    ),
    "dynamic_range_op_profile_no_xnnpack_csv": Expected(
        (), "current", 47, 21346.7, 21414, 1084, 24826, "cpu", None, 2.72408
    ),
    "dynamic_range_require_full_delegation": refused(
        "exit code 1: Disallowed CPU fallback detected.", delegate="xnnpack"
    ),
    "dynamic_range_xnnpack_partial": Expected(
        (), "current", 93, 10750.6, 10753, 10479, 11503, "xnnpack", 10, 2.72408
    ),
    "empty_model": refused("exit code 1: mmap of size 0 requested."),
    "float_op_profile_csv": Expected((), "current", 417, 2281.07, 2338, 10586, 3049),
    "float_op_profile_stdout": Expected((), "current", 428, 2242.7, 2115, 11592, 3524),
    "float_peak_memory": Expected((), "current", 407, 2382.24, 2380, 11625, 3321, peak=33.6367),
    "float_require_full_delegation": refused(
        "exit code 1: Disallowed CPU fallback detected.", delegate="xnnpack"
    ),
    "float_result_file": Expected((), "current", 425, 2285.97, 2281, 10796, 3165),
    "float_two_threads": Expected((), "current", 727, 1327.1, 1298, 11604, 3177),
    "float_xnnpack_explicit": Expected(
        (), "current", 426, 2293.77, 2270, 12203, 3327, "xnnpack", 2
    ),
    "gpu_flag_not_compiled_in": Expected(
        ("ignored --use_gpu=true", "gpu was asked for, and nothing says"),
        *("current", 5, 2501.8, 2494, 10756, 3130),
    ),
    "help": refused("exit code 1: it printed its usage"),
    "int8_default": Expected(
        (), "current", 72, 13750.1, 15074, 11057, 11849, "xnnpack", None, 2.7603
    ),
    "killed_in_run": Expected(("ended by SIGTERM",), first=2667),
    "max_secs_cut": Expected(
        ("too few runs: 215 of 100000",), "current", 215, 2263.39, 2264, 11663, 3048
    ),
    "missing_model": refused("exit code 1: Could not open '/data/local/tmp/nope.tflite'."),
    "no_graph_flag": refused("exit code 1: Please specify the name of your TF Lite input file"),
    "slow_model": Expected(
        (), "current", 3, 4541620, 4617328, 436, 4449107, "cpu", None, 9.4403, 178.523
    ),
    "sub_microsecond_model": Expected(
        (), "current", 4393866, 0.125945, 0, 987, 14, "xnnpack", None, 0.000976
    ),
    "truncated_model": refused("exit code 1: The model is not a valid Flatbuffer buffer"),
    "unknown_flag": Expected(("ignored --no_such_flag=1",), "current", 5, 2454, 2434, 24739, 3306),
    "zero_threads": Expected((), "current", 5, 2710.8, 2640, 11954, 3442),
}


def check(run: ToolRun, expected: Expected) -> None:
    assert len(run.problems) == len(expected.problems), run.problems
    for problem, fragment in zip(run.problems, expected.problems, strict=True):
        assert fragment in problem
    assert run.ok == (not expected.problems)
    read = Expected(
        expected.problems,
        run.generation,
        run.count,
        run.mean_us,
        run.median_us,
        run.init_us,
        run.first_us,
        run.delegate,
        run.delegate_partitions,
        run.file_size_mb,
        run.peak_memory_mb,
    )
    assert read == expected


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_run_is_read(name):
    run = recorded(name)
    check(read_run(run["stdout"], run["stderr"], run["exit_code"], run["command"]), RECORDED[name])


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_runs_read_the_same_through_a_pty(name):
    run = recorded(name)
    both = (run["stderr"] + run["stdout"]).replace("\n", "\r\n")
    check(read_run(both, "", run["exit_code"], run["command"]), RECORDED[name])


def test_no_recorded_run_is_left_out():
    assert {path.stem for path in folder().glob("*.json")} == set(RECORDED)


# --- Generations and forms --------------------------------------------------------------------


def test_every_field_of_a_current_run():
    assert run_of(CURRENT, 0, CURRENT_COMMAND, CURRENT_STDERR) == CURRENT_RUN


def test_a_logcat_is_read_like_stdout():
    app = "".join(
        f"07-14 13:14:52.113 22838 22838 I tflite  : {line.removeprefix('INFO: ')}\n"
        for line in CURRENT.splitlines()
        if line
    )
    assert run_of(app, 0, CURRENT_COMMAND) == CURRENT_RUN
    brief = "".join(f"I/tflite  (22838): {line}\n" for line in CURRENT.splitlines() if line)
    assert run_of(brief, 0, CURRENT_COMMAND) == CURRENT_RUN


def test_2020_output_has_no_median():
    run = run_of(GPU_2020, 0, "taskset f0 ./benchmark_model --use_gpu=true --num_runs=50")
    assert run == ToolRun(
        generation="2020",
        init_us=870557,
        first_us=130565,
        warmup_count=4,
        warmup_mean_us=122373,
        count=50,
        mean_us=119375,
        std_us=1948,
        min_us=113737,
        max_us=124776,
        asked_runs=50,
        init_memory_mb=63.4883,
        overall_memory_mb=64.5,
        file_size_mb=7.07479,
        delegate="gpu",
        delegate_partitions=1,
        fully_delegated=True,
    )


def test_2019_output():
    run = run_of(CPU_2019, 0, "./benchmark_model --num_runs=10 --warmup_runs=4")
    assert run == ToolRun(
        generation="2019",
        init_us=9933,
        first_us=127425,
        warmup_count=7,
        warmup_mean_us=76605.9,
        count=15,
        mean_us=66767.6,
        std_us=39,
        min_us=66699,
        max_us=66838,
        asked_runs=10,
        delegate="cpu",
    )


def test_the_app_of_2019_gives_means_only():
    run = run_of(APP_2019)
    assert (run.ok, run.generation, run.count) == (True, "2019", None)
    assert (run.mean_us, run.init_us, run.warmup_mean_us) == (80660.1, 4108, 91471)


def test_a_single_run_and_equal_runs_have_their_short_form():
    lines = CURRENT.split("INFO: count=")
    single = lines[0] + (
        "INFO: count=1 curr=637079\n\nINFO: Running benchmark for at least 2 iterations\n"
        "INFO: count=2 curr=1900(all same) p5=1900 median=1900 p95=1900\n"
        "INFO: Inference timings in us: Init: 66002, First inference: 637079, "
        "Warmup (avg): 637079, Inference (avg): 1900\n"
    )
    run = run_of(single)
    assert run.problems == ("too few runs: 2 of 20, the time was up before",)
    assert (run.warmup_count, run.warmup_mean_us, run.first_us) == (1, 637079, 637079)
    assert (run.count, run.mean_us, run.std_us, run.min_us, run.max_us) == (2, 1900, 0, 1900, 1900)
    assert run.median_us == 1900
    old = single.replace(" p5=1900 median=1900 p95=1900", "")
    assert run_of(old).median_us is None  # nothing is made up
    assert run_of(old).mean_us == 1900


@pytest.mark.parametrize(
    ("exact", "printed", "is_equal"),
    [
        ("4204739", "4.20474e+06", True),  # as on a slow phone
        ("4204735", "4.20474e+06", True),
        ("999999", "999999", True),
        ("9999995", "1e+07", True),
        ("4204739", "4.20473e+06", False),
        ("4204739", "4.20475e+06", False),
        ("420473", "420474", False),
    ],
)
@pytest.mark.parametrize("sample", ["count=1 curr={}", "count=3 curr={}(all same)"])
def test_six_digits_of_a_number_are_that_number(exact, printed, is_equal, sample):
    """A single slow run has all digits in one line and six in the other."""
    line = sample.format(exact)
    text = current((RUNS_LINE, line), ("(avg): 10750.6", f"(avg): {printed}"), ("[20]", "[1]"))
    run = run_of(text.replace(" p5=10320 median=10753 p95=11198", ""))
    assert run.mean_us == float(exact)
    damaged = [problem for problem in run.problems if "damaged" in problem]
    assert (damaged == []) == is_equal


# --- Delegates --------------------------------------------------------------------------------

APPLIED = "Explicitly applied XNNPACK delegate, and the model graph will be partially executed by "
APPLIED += "the delegate w/ 10 delegate kernels."


REPLACING = "Replacing {} node(s) with delegate ({}) node, yielding {} partitions{}."
GPU_REFUSES = "ERROR: Next operations are not supported by GPU delegate:\nMEAN: No.\n"
TOOK_NOTHING = "Though NNAPI delegate is explicitly applied, the model graph will not be executed"
APPLIED_WHOLLY = "pplied {} delegate, and the model graph will be completely executed"


@pytest.mark.parametrize(
    ("lines", "delegate", "partitions", "full", "ops", "total"),
    [
        (f"A{APPLIED_WHOLLY.format('GPU')} w/ the delegate.", "gpu", 1, True, None, None),
        (f"Explicitly a{APPLIED_WHOLLY.format('EXTERNAL')} by", "external", 1, True, None, None),
        (APPLIED.replace("XNNPACK", "Hexagon"), "hexagon", 10, False, None, None),
        (
            "VERBOSE: " + REPLACING.format("31 out of 31", "TfLiteNnapiDelegate", 1, " for all"),
            *("nnapi", 1, True, 31, 31),
        ),
        (REPLACING.format(64, "TfLiteGpuDelegateV2", 2, ""), "gpu", None, None, 64, None),
        (
            # XNNPACK takes what the GPU leaves; each graph is counted once, by its last line.
            REPLACING.format("50 out of 559", "TfLiteGpuDelegateV2", 3, " for subgraph 0")
            + "\n"
            + REPLACING.format("54 out of 559", "TfLiteGpuDelegateV2", 3, " for subgraph 0")
            + "\n"
            + REPLACING.format("4 out of 5", "TfLiteGpuDelegateV2", 2, " for subgraph 1")
            + "\n"
            + REPLACING.format("456 out of 506", "TfLiteXNNPackDelegate", 13, " for subgraph 0"),
            *("gpu", None, False, 58, 564),
        ),
        (
            # The runtime may even count the ops before a delegate gives them back.
            f"{REPLACING.format('31 out of 31', 'TfLiteNnapiDelegate', 1, '')}\n{TOOK_NOTHING}",
            *("cpu", None, None, None, None),
        ),
        (
            f"{CURRENT_STDERR}{TOOK_NOTHING.replace('NNAPI', 'XNNPACK')}",
            *("cpu", None, None, None, None),
        ),
        (f"{APPLIED}\n{TOOK_NOTHING}", "xnnpack", 10, False, None, None),
        (REPLACING.format("0 out of 9", "TfLiteGpuDelegateV2", 1, ""), "cpu", *[None] * 4),
        ("Created TensorFlow Lite XNNPACK delegate for CPU.", "xnnpack", *[None] * 4),
        ("Created TensorFlow Lite delegate for GPU.", "cpu", *[None] * 4),
        # What delegates say of themselves: since 2019, 2020 and 2021.
        ("Applied GPU delegate.", "gpu", *[None] * 4),
        (
            f"{GPU_REFUSES}First 12 operations will run on the GPU, and the remaining 200 on the "
            "CPU.\nApplied GPU delegate.",
            *("gpu", None, False, 12, 212),
        ),
        (
            f"{GPU_REFUSES}First 0 operations will run on the GPU, and the remaining 81 on the CPU."
            "\nApplied GPU delegate.",
            *("cpu", None, None, None, None),
        ),
        (
            f"{GPU_REFUSES}31 operations will run on the GPU, and the remaining 16 operations will "
            f"run on the CPU.\n{REPLACING.format(31, 'TfLiteGpuDelegateV2', 3, '')}\nExplicitly "
            "applied GPU delegate, and the model graph will be partially executed by the delegate "
            "w/ 2 delegate kernels.",
            *("gpu", 2, False, 31, 47),
        ),
        (
            f"{GPU_REFUSES}No operations will run on the GPU, and all 65 operations will run on the"
            " CPU.\nINFO: Created 0 GPU delegate kernels.\nApplied GPU delegate.",
            *("cpu", None, None, None, None),
        ),
        ("Created 0 GPU delegate kernels.\nApplied GPU delegate.", "cpu", *[None] * 4),
        (
            "Hexagon delegate: 71 nodes delegated out of 71 nodes.\nApplied Hexagon delegate.",
            *("hexagon", None, True, 71, 71),
        ),
        (
            "INFO: TfLiteHexagonDelegate delegate: 64 nodes delegated out of 66 nodes with 2 "
            "partitions.\nApplied Hexagon delegate.",
            *("hexagon", None, False, 64, 66),
        ),
    ],
)
def test_what_the_tool_says_of_delegates(lines, delegate, partitions, full, ops, total):
    run = run_of(current((f"INFO: {APPLIED}", lines)))
    assert run.ok
    assert (run.delegate, run.fully_delegated) == (delegate, full)
    assert run.delegate_partitions == partitions
    assert (run.delegated_ops, run.total_ops) == (ops, total)


@pytest.mark.parametrize(
    ("lines", "flag", "fragment"),
    [
        ("Created TensorFlow Lite delegate for GPU.", "use_gpu=true", "fallback: gpu was asked"),
        (TOOK_NOTHING, "use_nnapi=true", "fallback: nnapi took nothing"),
        (
            "WARN: Could not create Hexagon delegate: platform may not support delegate",
            *("use_hexagon=true", "(Could not create Hexagon delegate: platform may not"),
        ),
        (APPLIED.replace("XNNPACK", "GPU"), "use_gpu=true", "gpu took a part of the graph"),
        ("Applied GPU delegate.", "use_gpu=true", "gpu may have taken a part of the graph"),
        (CURRENT_STDERR, "use_xnnpack=false", "was switched off"),
        (APPLIED, "require_full_delegation=true", "full delegation was required"),
        ("", "use_xnnpack=true", "fallback: xnnpack was asked for"),
    ],
)
def test_a_delegate_that_was_not_applied_is_a_problem(lines, flag, fragment):
    (problem,) = run_of(
        current((f"INFO: {APPLIED}", lines)), 0, ["benchmark_model", f"--{flag}"]
    ).problems
    assert fragment in problem


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("", ""),
        ("GPU acceleration is unsupported on this platform.\n", "GPU acceleration is unsupported"),
        ("TfLiteGpuDelegate Init: No EGL error\n", "TfLiteGpuDelegate Init: No EGL error"),
    ],
)
def test_a_reason_quotes_a_complaint_and_no_echo(said, complaint):
    """Builds before levels echo `Use gpu: [1]`, and paths may have the delegate's name in them."""
    start = GPU_2020.index("INFO: Initialized")
    text = GPU_2020[:start] + said + GPU_2020[GPU_2020.index("The input") :]
    text = text.replace("/b.tflite", "/not_for_gpu.tflite")
    (problem,) = run_of(text, 0, "./benchmark_model --use_gpu=true").problems
    whole = "fallback: gpu was asked for, and nothing says that it was applied"
    assert problem.startswith(f"{whole} ({complaint}" if complaint else whole)
    assert problem.endswith(")" if complaint else "applied")
    (problem,) = run_of(text[: text.index("Inference timings")]).problems
    assert ("the last complaint is" in problem) == bool(said)


@pytest.mark.parametrize(
    ("accelerators", "flags", "is_on_cpu"),
    [
        ("NNAPI accelerators available: [nnapi-reference]", "", True),
        ("nnapi accelerator name: [] (Available: nnapi-reference)", "", True),
        ("NNAPI accelerators available: [qti-dsp,nnapi-reference]", "", False),
        ("nnapi accelerator name: [] (Available: qti-dsp,nnapi-reference)", "", False),
        ("", "", False),
        (
            "NNAPI accelerators available: [qti-dsp,nnapi-reference]",
            *("--nnapi_accelerator_name=nnapi-reference", True),
        ),
    ],
)
def test_the_reference_of_nnapi_is_the_cpu(accelerators, flags, is_on_cpu):
    text = current((f"INFO: {APPLIED}", f"{accelerators}\nA{APPLIED_WHOLLY.format('NNAPI')} by"))
    run = run_of(text, 0, f"./benchmark_model --use_nnapi=true {flags}")
    assert run.delegate == "nnapi"
    assert any("no accelerator but nnapi-reference" in text for text in run.problems) == is_on_cpu
    assert run.ok != is_on_cpu


def test_opengl_by_the_words_of_litert():
    why = "OpenCL not supported on this platform."
    text = f"ERROR: {why} Using OpenGL instead.\nA{APPLIED_WHOLLY.format('GPU')} by"
    run = run_of(current((f"INFO: {APPLIED}", text)), 0, "./benchmark_model --use_gpu=true")
    assert (run.problems, run.notes) == ((), (f"the GPU delegate fell back to OpenGL: {why}",))


@pytest.mark.parametrize(
    "why",
    [
        'Can not open OpenCL library on this device - dlopen failed: library "libOpenCL.so" not '
        "found",
        "OpenCL library not loaded - dlopen failed",
        "Failed to build program executable - Build program failure\n<source>:12: no such thing",
    ],
)
@pytest.mark.parametrize("prefix", ["ERROR: ", ""])
def test_opengl_in_place_of_opencl_is_a_note(why, prefix):
    text = f"{prefix}{why}\n{prefix}Falling back to OpenGL\nA{APPLIED_WHOLLY.format('GPU')} by"
    run = run_of(current((f"INFO: {APPLIED}", text)), 0, "./benchmark_model --use_gpu=true")
    assert (run.problems, run.delegate, run.fully_delegated) == ((), "gpu", True)
    (note,) = run.notes
    assert note.startswith("the GPU delegate fell back to OpenGL: ")
    # An error of something else is told all the same.
    text = text.replace(
        f"{prefix}{why}", "ERROR: disk on fire\nINFO: Created 1 GPU delegate kernels"
    )
    run = run_of(current((f"INFO: {APPLIED}", text)), 0, "./benchmark_model --use_gpu=true")
    assert run.problems == ("the tool reports: disk on fire",)


def test_ops_that_the_gpu_leaves_are_no_error():
    text = "ERROR: Following operations are not supported by GPU delegate:\nUNPACK: no\n"
    assert run_of(current((APPLIED, f"{APPLIED}\n{text}"))).ok


# --- Exit code 0 is not believed --------------------------------------------------------------


@pytest.mark.parametrize(
    ("stdout", "fragment"),
    [
        ("", "no whole line of results"),
        (CURRENT[: CURRENT.index("INFO: Inference timings")], "no whole line of results"),
        (CURRENT + CURRENT, "results of several runs"),
        (current((RUNS_LINE, "")), "no whole line of statistics"),
        (current((RUNS_LINE, RUNS_LINE[: RUNS_LINE.index(" avg=")])), "is damaged"),
        (current((RUNS_LINE, RUNS_LINE.replace("p95=11198", "p95=11"))), "ascending order"),
        (current((RUNS_LINE, RUNS_LINE.replace("avg=10750.6", "avg=107506"))), "between"),
        (current((RUNS_LINE, RUNS_LINE.replace("avg=10750.6", "avg=1075"))), "between"),
        (current((RUNS_LINE, f"{RUNS_LINE} min=10240")), "'min=10240' is no value of it"),
        (current((RUNS_LINE, RUNS_LINE.replace("avg=10750.6", "avg=nan"))), "cannot be"),
        (current((RUNS_LINE, RUNS_LINE.replace("min=10239", "min=-10239"))), "cannot be"),
        (current(("Inference (avg): 10750.6", "Inference (avg): 10750")), "the mean is 10750.6 us"),
        (current(("Inference (avg): 10750.6", "Inference (avg): 10750.7")), "10750.7 us in the re"),
        (current(("Init: 10479", "Init: -10479")), "numbers that cannot be"),
        (current((RUNS_LINE, "count=0 p5=0 median=0 p95=0")), "no timed run"),
        (
            current((RUNS_LINE, "count=20 curr=0(all same) p5=0 median=0 p95=0")),
            "below the resolution",
        ),
        (current(("INFO: Loaded", "ERROR: Oh no \x1b[31m\nINFO: Loaded")), "reports: Oh no \\x1b"),
        (current(("INFO: STARTING!", "WARN: Unconsumed cmdline flags: --x=1 5")), "--x=1 5"),
        (current(("(MB): 2.72408", "(MB): nan")), "file size mb cannot be nan"),
    ],
)
def test_what_is_wrong_with_a_run_of_exit_code_0(stdout, fragment):
    run = run_of(stdout)
    assert not run.ok
    assert any(fragment in problem for problem in run.problems), run.problems


def test_fewer_runs_than_asked():
    too_few = "too few runs: 93 of 100, the time was up before"
    assert run_of(CURRENT, 0, "./b --num_runs=100 --use_xnnpack=true").problems == (too_few,)
    # The first of two equal flags wins, 5.5 is read as 5, and --num_runs 100 is nothing.
    assert run_of(CURRENT, 0, "./b --num_runs=5.5 --num_runs=100").ok
    assert run_of(CURRENT, 0, "./b --num_runs 100").ok
    # Without a command, what the tool repeats counts, and else what it announces.
    assert not run_of(current(("[20]", "[100]"))).ok
    announced = current(("INFO: Min num runs: [20]\n", ""), ("least 20 iter", "least 100 iter"))
    assert run_of(announced).problems == (too_few,)


def test_files_that_were_not_written():
    profile = "--op_profiling_output_mode=csv --op_profiling_output_file=/full/p.csv"
    on_stdout = CURRENT + "node type, first, avg_ms, %, cdf%, mem KB, times called, name\n"
    assert run_of(CURRENT, 0, f"./b {profile}").ok
    (problem,) = run_of(on_stdout, 0, f"./b {profile}").problems
    assert problem.startswith("the op profile /full/p.csv was not written")
    (problem,) = run_of(CURRENT, 0, "./b --result_file_path=/full/r.pb").problems
    assert problem == "the result file /full/r.pb was not written"
    saved = CURRENT + "INFO: Saved benchmark result to: /full/r.pb\n"
    assert run_of(saved, 0, "./b --result_file_path=/full/r.pb").ok


@pytest.mark.parametrize(
    ("exit_code", "stderr", "message"),
    [
        (139, "Segmentation fault\n", "was ended by SIGSEGV: its last line was 'Segmentation"),
        (-9, "", "was ended by SIGKILL: its last line was 'STARTING!'"),
        (134, "terminating with uncaught exception\n", "was ended by SIGABRT: its last line was"),
        (162, "", "was ended by signal 34"),
        (127, "/system/bin/sh: x: inaccessible or not found\n", "exit code 127 (it was not found)"),
        (255, "", "ended with exit code 255: its last line was 'STARTING!'"),
        (
            1,  # without levels, as in 2019
            "Failed to apply GPU delegate.\nBenchmarking failed.\n",
            "exit code 1: its last line was 'Failed to apply GPU delegate.'",
        ),
        (1, "ERROR: a\nERROR: b\nERROR: a\nERROR: Benchmarking failed.\n", "exit code 1: a; b"),
    ],
)
def test_how_the_tool_ended(exit_code, stderr, message):
    run = run_of("INFO: STARTING!\n", exit_code, None, CURRENT_STDERR + stderr)
    assert len(run.problems) == 1
    assert message in run.problems[0]
    assert run_of("", exit_code).problems[0].endswith("it said nothing")


@pytest.mark.parametrize(
    ("text", "times"),
    [("count=" + "9" * 5000 + "\n", 50), ("ERROR: \x00\n", 5000), ("\x00", MAX_CHARS + 1)],
)
def test_what_is_told_of_output_of_any_size_is_bounded(text, times):
    run = run_of(text * times)
    assert ("characters: the rest was not read" in " ".join(run.problems)) == (times > MAX_CHARS)
    assert len(run.problems) < 6
    assert all(len(problem) < 600 and problem.isprintable() for problem in run.problems)


def test_unconsumed_flags_are_bounded():
    flags = run_of("Unconsumed cmdline flags: " + "--a=1 " * 600).unconsumed_flags
    assert flags == ("--a=1",) * 20


# --- Properties -------------------------------------------------------------------------------

SAMPLES = (CURRENT, GPU_2020, CPU_2019, APP_2019)
ANY_TEXT = st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace"))


def numbers_are_sound(run: ToolRun) -> bool:
    values = [value for value in dataclasses.astuple(run) if isinstance(value, float)]
    return all(math.isfinite(value) and value >= 0 for value in values)


@settings(max_examples=200, deadline=None)
@given(stdout=ANY_TEXT, stderr=ANY_TEXT, exit_code=st.integers(-300, 300), command=ANY_TEXT)
def test_rubbish_never_raises_and_is_never_a_good_run(stdout, stderr, exit_code, command):
    run = read_run(stdout, stderr, exit_code, command)
    assert not run.ok
    assert all(problem.isprintable() for problem in run.problems)


@settings(max_examples=200, deadline=None)
@given(sample=st.sampled_from(SAMPLES), data=st.data())
def test_lines_dropped_doubled_and_mixed_never_raise(sample, data):
    lines = sample.splitlines(keepends=True)
    order = data.draw(st.lists(st.sampled_from(range(len(lines))), max_size=2 * len(lines)))
    run = run_of("".join(lines[index] for index in order))
    assert numbers_are_sound(run)
    if not any("inference timings in us" in lines[index].lower() for index in order):
        assert not run.ok


@settings(max_examples=200, deadline=None)
@given(sample=st.sampled_from(SAMPLES), data=st.data())
def test_output_that_is_cut_before_its_results_is_never_a_good_run(sample, data):
    last = "Inference: " if sample is APP_2019 else ", no stats: "
    last = last if last in sample else "Inference (avg): "
    end = sample.index(last) + len(last)
    assert not run_of(sample[: data.draw(st.integers(0, end))]).ok
    assert run_of(sample[: sample.index("\n", end)]).ok


@settings(max_examples=200, deadline=None)
@given(sample=st.sampled_from(SAMPLES), data=st.data())
def test_changed_characters_never_raise(sample, data):
    characters = list(sample)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(characters) - 1))
        characters[place] = data.draw(st.characters() | st.sampled_from("0123456789.e\r\n"))
    assert numbers_are_sound(run_of("".join(characters)))
