"""Op profiles: the recorded ones against their own sums, short ones by hand, and damage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_runs import folder, recorded

from mobile_bench.tool.op_profile import OpProfile, OpTime, TypeTime, read_op_profile

# Recorded, with the ops that matter.
CSV = """\
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
ModifyGraphWithDelegate, 7.631, 7.631, 100%, 100%, 19072, 1, ModifyGraphWithDelegate/0

============================== Summary by node type ==============================
node type, count, avg_ms, avg %, cdf %, mem KB, times called
ModifyGraphWithDelegate, 1, 7.631, 100%, 100%, 19072, 1

Timings (microseconds): count=1 curr=7631
Memory (bytes): count=0
1 nodes observed


Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
Convolution (NHWC, F32) IGEMM, 0.183, 0.16199, 98.9%, 98.9%, 0, 1, Delegate/Convolution (NHWC\t F32) IGEMM:2
Multiply (ND), 0, 7.19424e-06, -nan%, 100%, 0, 2, Delegate/Multiply (ND):8

============================== Top by Computation Time ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
Convolution (NHWC, F32) IGEMM, 0.183, 0.16199, 98.9%, 98.9%, 0, 1, Delegate/Convolution (NHWC\t F32) IGEMM:2

Number of nodes executed: 2
============================== Summary by node type ==============================
node type, count, avg_ms, avg %, cdf %, mem KB, times called
Convolution (NHWC, F32) IGEMM, 1, 0.161, 99%, 99%, 0, 1
Multiply (ND), 1, 0, 1%, 100%, 0, 2

Timings (microseconds): count=417 first=2186 curr=2073 min=1682 max=2863 avg=2064.18 std=206
Memory (bytes): count=0
2 nodes observed


"""  # noqa: E501
CONVOLUTION = "Convolution (NHWC, F32) IGEMM"
PROFILE = OpProfile(
    init_ops=(
        OpTime("ModifyGraphWithDelegate/0", "ModifyGraphWithDelegate", 7.631, 7.631, 100, 19072, 1),
    ),
    ops=(
        OpTime(f"Delegate/{CONVOLUTION}:2", CONVOLUTION, 0.183, 0.16199, 98.9, 0, 1),
        OpTime("Delegate/Multiply (ND):8", "Multiply (ND)", 0, 7.19424e-06, None, 0, 2),
    ),
    types=(
        TypeTime(CONVOLUTION, 1, 0.161, 99, 0, 1),
        TypeTime("Multiply (ND)", 1, 0, 1, 0, 2),
    ),
    runs=417,
    run_us=2064.18,
)
# The table of 2019 and 2020: a column more, one part, no title of it (README of that time).
STDOUT_2019 = """\
Average inference timings in us: Warmup: 83235, Init: 38467, no stats: 79760.9
============================== Run Order ==============================
\t             [node type]\t  [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t\
[times called]\t[Name]
\t                 CONV_2D\t    0.000\t    4.269\t    4.269\t  0.107%\t  0.107%\t     0.000\t\
        1\t[MobilenetV1/Conv2d_0/Relu6]

============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t\
[times called]
\t                 CONV_2D\t        1\t     4.270\t    89.500%\t    89.500%\t     0.000\t        1

Timings (microseconds): count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732 std=1929
Memory (bytes): count=0
1 nodes observed
"""


def test_csv():
    assert read_op_profile(CSV) == PROFILE
    assert PROFILE.ops[1].total_ms == 2 * 7.19424e-06


def test_line_ends_of_a_pty_and_prefixes():
    text = CSV.replace("Profiling Info for B", "INFO: Profiling Info for B")
    text = text.replace("Operator-wise", "INFO: Operator-wise").replace("\n", "\r\n")
    assert read_op_profile(text) == PROFILE


def test_stdout_of_2019():
    profile = read_op_profile(STDOUT_2019)
    assert profile.init_ops == ()
    assert profile.ops == (
        OpTime("[MobilenetV1/Conv2d_0/Relu6]", "CONV_2D", 4.269, 4.269, 0.107, 0, 1),
    )
    assert profile.types == (TypeTime("CONV_2D", 1, 4.27, 89.5, 0, 1),)
    assert (profile.runs, profile.run_us) == (50, 79732)


@pytest.mark.parametrize(
    ("name", "ops", "types", "runs", "run_us", "init_ops"),
    [
        ("float_op_profile", 114, 12, 417, 2064.18, 2),
        ("dynamic_range_op_profile_no_xnnpack", 114, 11, 47, 21134.9, 1),
    ],
)
def test_recorded_csv_agrees_with_its_own_sums(name, ops, types, runs, run_us, init_ops):
    profile = read_op_profile((folder() / f"{name}.csv").read_text(encoding="utf-8"))
    assert (len(profile.ops), len(profile.types), len(profile.init_ops)) == (ops, types, init_ops)
    assert (profile.runs, profile.run_us) == (runs, run_us)
    check_sums(profile, digits=1e-5)


@pytest.mark.parametrize("name", ["float_op_profile_stdout", "csv_unwritable"])
def test_recorded_stdout_agrees_with_its_own_sums(name):
    profile = read_op_profile(recorded(name)["stdout"])
    assert (len(profile.ops), len(profile.types), len(profile.init_ops)) == (114, 12, 2)
    assert all("\t" not in op.name for op in profile.ops)
    check_sums(profile, digits=1e-3)


def check_sums(profile: OpProfile, digits: float) -> None:
    total = sum(op.total_ms for op in profile.ops)
    assert total == pytest.approx(profile.run_us / 1000, rel=digits)
    assert sum(op.percent for op in profile.ops) == pytest.approx(100, abs=0.1)
    assert sum(of_type.count for of_type in profile.types) == len(profile.ops)
    for of_type in profile.types:
        times = [op.total_ms for op in profile.ops if op.node_type == of_type.node_type]
        assert len(times) == of_type.count
        # Each op is cut to whole microseconds here; those on stdout are rounded to them.
        assert -0.0005 <= sum(times) - of_type.avg_ms <= 0.0015 * len(times)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (CSV, "", "ends before the table of types"),
        ("2 nodes observed", "", "ends before the table of types"),
        ("Timings (microseconds): count=417", "Timings: count=417", "ends before the table"),
        ("count=417 first=2186", "count=417", "line 31: values are missing"),
        ("node type, count, avg_ms, avg %", "node type, avg_ms", "line 7: expected the names of"),
        (", 0.183, 0.16199, 98.9%, 98.9%, 0, 1, Del", ", Del", "line 18: expected 8 values"),
        ("0.16199", "-0.16199", "line 18: expected a number as avg ms, got '-0.16199'"),
        ("7.19424e-06", "inf", "line 19: expected a number as avg ms, got 'inf'"),
        ("-nan%", "many%", "line 19: expected a number as %, got 'many'"),
        ("100%, 0, 2, Del", "100%, 0, 2.5, Del", "line 19: expected a whole number as times call"),
    ],
)
def test_damage_is_told_with_its_line(old, new, message):
    assert old in CSV
    with pytest.raises(ValueError, match=r"^op profile") as caught:
        read_op_profile(CSV.replace(old, new))
    assert message in str(caught.value)


def test_a_profile_of_any_size_is_bounded():
    with pytest.raises(ValueError, match="expected at most 16000000 characters"):
        read_op_profile("x" * 16_000_001)
    with pytest.raises(ValueError, match="op profile, line 3") as caught:
        read_op_profile("== Run Order ==\n\n== Run Order ==\n".replace("\n\n", "\n") + "y" * 9999)
    assert len(str(caught.value)) < 200


@settings(max_examples=200, deadline=None)
@given(data=st.data(), sample=st.sampled_from([CSV, STDOUT_2019]))
def test_cut_or_changed_profiles_are_read_or_refused(data, sample):
    characters = list(sample)
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(characters) - 1))
        characters[place] = data.draw(st.characters() | st.sampled_from("0123456789.,\t\n"))
    text = "".join(characters)[: data.draw(st.integers(0, len(sample)))]
    try:
        profile = read_op_profile(text)
    except ValueError:
        return
    assert profile.types
