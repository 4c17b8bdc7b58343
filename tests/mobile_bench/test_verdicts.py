"""Every kind of reason why a run, or the rounds of a model, cannot be believed."""

from __future__ import annotations

import dataclasses

import pytest
from bench_helpers import make_measurement

from mobile_bench.results import Affinity, Delegation, DeviceState, Settings, Verdict
from mobile_bench.verdicts import judge_rounds, judge_run

WHOLE = Delegation("xnnpack", 1, 3, 3, {}, True)
PARTIAL = Delegation("xnnpack", 2, 3, 2, {"HARD_SWISH": 1}, False)
FREE = Affinity(None, None)


def verdict(
    settings=Settings(),  # noqa: B008, it is frozen
    affinity=FREE,
    delegation=WHOLE,
    count=100,
    before=None,
    after=None,
    problems=(),
    core_max_khz=(),
    notes=(),
):
    timings = dataclasses.replace(make_measurement().timings, count=count)
    before, after = (DeviceState("2025-01-01", **(state or {})) for state in (before, after))
    device = dataclasses.replace(make_measurement().device, core_max_khz=core_max_khz)
    return judge_run(
        settings, affinity, delegation, timings, before, after, device, problems, notes
    )


def reasons(*args, **changes):
    return verdict(*args, **changes).reasons


def test_a_run_that_is_as_asked_is_valid():
    cool = {"battery_celsius": 37.0, "thermal_status": 2, "core_limit_khz": (1, 2)}
    assert reasons(affinity=Affinity((0,), (0,)), before=cool, after=cool) == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"count": 49}, "too few runs: 49 of 50, ended by max_secs=60"),
        ({"problems": ["no flag x"]}, "tool: no flag x"),
        (
            {"affinity": Affinity((4, 5), (0, 1))},
            "affinity: cores 4,5 were asked for, 0,1 granted",
        ),
        (
            {"affinity": Affinity((4,), None)},
            "affinity: cores 4 were asked for, what was granted is not known",
        ),
        (
            {"after": {"battery_celsius": 37.1}},
            "hot: the battery was at 37.1 C, above 37 C",
        ),
        (
            {"before": {"battery_celsius": 40.0}, "after": {"battery_celsius": 30.0}},
            "hot: the battery was at 40.0 C, above 37 C",
        ),
        (
            {"before": {"thermal_status": 3}},
            "hot: thermal status 3, the system slows itself down from 3 on",
        ),
    ],
)
def test_each_reason_is_told(changes, expected):
    assert reasons(**changes) == (expected,)


def test_every_reason_is_told():
    hot = {"battery_celsius": 50.0}
    kinds = [
        reason.partition(":")[0]
        for reason in reasons(
            affinity=Affinity((0,), (1,)),
            delegation=Delegation("cpu"),
            count=1,
            before=hot | {"core_limit_khz": (2_000_000, 3_000_000)},
            after=hot | {"core_limit_khz": (2_000_000, 1_000_000)},
            problems=["x"],
        )
    ]
    assert kinds == ["too few runs", "fallback", "affinity", "throttled", "hot", "tool"]


def test_what_the_tool_tells_as_well_is_told_once():
    problems = ["too few runs: 1 of 50, the time was up before", "fallback: gpu", "no flag x"]
    assert [reason.partition(":")[0] for reason in reasons(count=1, problems=problems)] == [
        "too few runs",
        "fallback",
        "tool",
    ]
    assert reasons(problems=["fallback: gpu"]) == ("fallback: gpu",)
    # It may know why.
    why = "fallback: gpu was asked for, and nothing says that it was applied (no driver)"
    assert reasons(Settings(delegate="gpu"), delegation=Delegation("cpu"), problems=[why]) == (why,)


@pytest.mark.parametrize("max_celsius", [None, 45.0])
def test_the_bound_of_the_temperature_is_that_of_the_settings(max_celsius):
    settings = Settings(max_celsius=max_celsius)
    assert reasons(settings, before={"battery_celsius": 44.0}) == ()


@pytest.mark.parametrize(
    ("asked", "full", "delegation", "expected"),
    [
        ("xnnpack", False, PARTIAL, None),
        ("xnnpack", False, Delegation("xnnpack"), None),
        ("xnnpack", False, Delegation("cpu"), "xnnpack was asked for, cpu applied"),
        ("gpu", False, Delegation("gpu", complete=True), None),
        (
            "gpu",
            False,
            Delegation("gpu"),
            "the tool does not tell whether gpu took all of the model",
        ),
        (
            "nnapi",
            False,
            Delegation("nnapi", delegated_ops=64),
            "the tool does not tell whether nnapi took all of the model",
        ),
        (
            "gpu",
            False,
            Delegation("gpu", None, 212, 12, None, False),
            "gpu did not take all of the model: 12 of 212 ops",
        ),
        ("gpu", False, Delegation("xnnpack"), "gpu was asked for, xnnpack applied"),
        (
            "gpu",
            False,
            Delegation(None),
            "gpu was asked for, the tool does not tell what was applied",
        ),
        (
            "nnapi",
            False,
            Delegation("nnapi", 2, 66, 64, None, False),
            "nnapi did not take all of the model: 64 of 66 ops",
        ),
        (
            "hexagon",
            False,
            Delegation("hexagon", 10, complete=False),
            "hexagon did not take all of the model (10 partitions)",
        ),
        (
            "xnnpack",
            True,
            PARTIAL,
            "xnnpack did not take all of the model: HARD_SWISH x1 left outside",
        ),
        (
            "xnnpack",
            True,
            Delegation("xnnpack"),
            "the tool does not tell whether xnnpack took all of the model",
        ),
        ("cpu", True, Delegation("cpu", 0, 3, 0, {"ADD": 3}, False), None),
        ("cpu", False, Delegation(None), None),
        ("cpu", False, WHOLE, "cpu was asked for, xnnpack applied"),
    ],
)
def test_what_the_delegate_did_is_held_against_what_was_asked(asked, full, delegation, expected):
    settings = Settings(delegate=asked, require_full_delegation=full)
    told = () if expected is None else (f"fallback: {expected}",)
    assert reasons(settings, delegation=delegation) == told


@pytest.mark.parametrize(
    ("granted", "first", "last", "cores"),
    [
        ((6, 7), (1, 1, 1, 1, 1, 1, 5, 5), (1, 1, 1, 1, 1, 1, 4, 4), "6,7"),
        ((6, 7), (1, 1, 1, 1, 1, 1, 4, 5), (1, 1, 1, 1, 1, 1, 4, 6), "7"),  # it came back
        ((0, 1), (1, 1, 1, 1, 1, 1, 5, 5), (1, 1, 1, 1, 1, 1, 4, 4), None),  # not its cores
        (None, (1, 5), (1, 4), "1"),
        (None, (None, 5), (1, None), None),
        (None, (), (1, 4), None),
        (None, (4, 4), (4, 4), None),  # however low: its owner may hold the clocks there
    ],
)
def test_a_limit_of_the_clock_that_moves_is_throttling(granted, first, last, cores):
    scaled = (tuple(khz and khz * 1_000_000 for khz in limits) for limits in (first, last))
    before, after = ({"core_limit_khz": limits} for limits in scaled)
    told = reasons(affinity=Affinity(None, granted), before=before, after=after)
    if cores is None:
        assert told == ()
    else:
        (reason,) = told
        assert reason.startswith(f"throttled: cores {cores} were limited to ")
        assert reason.endswith(f"{first[-1]:.2f} GHz before and {last[-1]:.2f} GHz after")


@pytest.mark.parametrize(
    ("limit", "governor", "granted", "is_told"),
    [
        (3_000_000, "schedutil", None, False),
        (2_900_000, "schedutil", None, False),
        (1_500_000, "schedutil", None, True),
        (1_500_000, None, (1,), True),
        (1_500_000, "schedutil", (0,), False),
        (1_500_000, "userspace", None, True),
        (None, "schedutil", None, False),
    ],
)
def test_a_limit_that_stands_still_is_a_note(limit, governor, granted, is_told):
    """A battery saver, or whoever owns the phone, may have set it: the run was as any other."""
    state = {"core_limit_khz": (2_000_000, limit), "governors": ("schedutil", governor)}
    told = verdict(
        affinity=Affinity(granted, granted),
        before=state,
        after=state,
        core_max_khz=(2_000_000, 3_000_000, None),
    )
    assert told.reasons == ()
    note = "clocks: cores 1 were limited to 1.50 of 3.00 GHz from before the run on"
    assert told.notes == ((note,) if is_told else ())


def test_a_limit_that_moves_in_the_run_is_no_note():
    before, after = ({"core_limit_khz": (khz,)} for khz in (1_500_000, 1_200_000))
    told = verdict(before=before, after=after, core_max_khz=(3_000_000,))
    assert [reason.partition(":")[0] for reason in told.reasons] == ["throttled"]
    assert told.notes == ()


THREE_CLUSTERS = (1_800_000,) * 4 + (2_400_000,) * 3 + (2_800_000,)
MIXED = (
    "cores: the system chooses among 3x2.40 + 1x2.80 GHz for {}, so the times may mix their "
    "speeds; cpus=auto takes the fastest"
)


@pytest.mark.parametrize(
    ("threads", "asked", "granted", "expected"),
    [
        (1, (4, 5, 6, 7), (4, 5, 6, 7), MIXED.format("1 thread")),
        (2, (4, 5, 6, 7), None, MIXED.format("2 threads")),
        (4, (4, 5, 6, 7), (4, 5, 6, 7), None),  # each core has its thread
        (1, (4, 5, 6), (4, 5, 6), None),
        (1, None, tuple(range(8)), None),  # left to the system
        (1, (4, 9), None, None),
        (5, (4, 5, 6, 7), (4, 5, 6, 7), "threads: 5 of them share 4 cores"),
        (2, (7,), (7,), "threads: 2 of them share 1 core"),
        (9, None, None, "threads: 9 of them share 8 cores"),
        (8, None, None, None),
    ],
)
def test_cores_and_threads_that_do_not_fit_are_a_note(threads, asked, granted, expected):
    told = verdict(Settings(threads=threads), Affinity(asked, granted), core_max_khz=THREE_CLUSTERS)
    assert told.notes == (() if expected is None else (expected,))


def test_what_is_good_to_know_of_the_tools_run_is_a_note():
    told = verdict(notes=["it fell back to OpenGL"])
    assert (told.valid, told.notes) == (True, ("tool: it fell back to OpenGL",))


@pytest.mark.parametrize(
    ("asked", "first", "last", "expected"),
    [
        ((1, 2), (5, 6, 7), (5, 6, None), ("throttled: cores 2 were switched off in the run",)),
        ((0, 1), (5, 6, 7), (5, 6, None), ()),  # not its cores
        (None, (5, 6, 7), (5, 6, None), ()),  # the system rests cores that nothing needs
        ((1, 2), (5, 6, None), (5, 6, None), ()),  # not to be read
        ((1, 2), (5, 6, None), (5, 6, 7), ()),
        ((1, 2), (5, 6, 7), (), ()),
    ],
)
def test_cores_that_are_switched_off_are_throttling(asked, first, last, expected):
    before, after = ({"core_limit_khz": limits} for limits in (first, last))
    granted = asked or (0, 1, 2)
    assert reasons(affinity=Affinity(asked, granted), before=before, after=after) == expected


@pytest.mark.parametrize(
    ("screen", "first", "last", "expected"),
    [
        ("on", True, True, ()),
        ("on", None, None, ()),
        ("leave", True, False, ()),
        ("on", True, False, ("screen: on was asked for, it was off after",)),
        ("on", False, False, ("screen: on was asked for, it was off before",)),
        ("off", False, True, ("screen: off was asked for, it was on after",)),
    ],
)
def test_the_screen_is_held_against_what_was_asked(screen, first, last, expected):
    before, after = ({"screen_on": on} for on in (first, last))
    assert reasons(Settings(screen=screen), before=before, after=after) == expected


def rounds(*times, verdicts=None):
    verdicts = verdicts or [Verdict(True, ())] * len(times)
    return [
        make_measurement(round=index, median_us=time, verdict=verdict)
        for index, (time, verdict) in enumerate(zip(times, verdicts, strict=True))
    ]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([100.0], []),
        ([0.0, 0.0], []),
        ([100.0, 110.0], []),
        ([100.0, 104.0, 109.0], []),
        ([100.0, 112.0], ["unstable: rounds differ by 11.3%, more than max_spread=0.1"]),
        ([112.0, 100.0, 90.0], ["unstable: rounds differ by 22.0%, more than max_spread=0.1"]),
        (
            [100.0, 110.0, 125.0],
            [
                "unstable: rounds differ by 22.7%, more than max_spread=0.1",
                "throttled: each round was slower than the one before, the last by 25.0%",
            ],
        ),
    ],
)
def test_rounds_are_held_against_each_other(times, expected):
    rows = rounds(*times)
    assert list(judge_rounds(Settings(), rows).reasons) == expected
    assert judge_rounds(Settings(), rows[::-1]).reasons == tuple(expected)  # whatever their order


def test_a_tool_without_medians_is_judged_by_its_means():
    rows = [make_measurement(round=i, median_us=None, mean_us=us) for i, us in enumerate((1.0, 2))]
    assert judge_rounds(Settings(), rows).reasons[0].startswith("unstable: rounds differ by 66.7%")


def test_reasons_of_rounds_are_counted_by_kind():
    verdicts = [
        Verdict.of(["hot: 38 C", "tool: x"]),
        Verdict.of([]),
        Verdict.of(["hot: 39 C", "tool: y"]),
    ]
    assert judge_rounds(Settings(), rounds(1.0, 1.0, 1.0, verdicts=verdicts)).reasons == (
        "hot: 38 C (2 of 3 rounds)",
        "tool: x (1 of 3 rounds)",
        "tool: y (1 of 3 rounds)",
    )
    assert judge_rounds(Settings(), rounds(1.0, verdicts=verdicts[:1])).reasons == (
        "hot: 38 C",
        "tool: x",
    )


def test_notes_of_rounds_are_counted_by_kind():
    verdicts = [Verdict.of([], ["clocks: 1 GHz", "tool: x"]), Verdict.of([], ["clocks: 2 GHz"])]
    told = judge_rounds(Settings(), rounds(1.0, 1.0, verdicts=verdicts))
    assert told == Verdict(True, (), ("clocks: 1 GHz (2 of 2 rounds)", "tool: x (1 of 2 rounds)"))


BETWEEN = "limited to 1.50 GHz in one round and to 3.00 GHz in another"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([2.0, 2.0, 2.0], ()),
        ([2.0, None, 2.0], ()),
        (
            [3.0, 3.0, 1.5],
            (f"throttled: cores 1 were {BETWEEN}",),
        ),
    ],
)
def test_a_limit_that_moves_from_round_to_round_is_throttling(limits, expected):
    """It was lowered while the phone rested, and stood still in each run."""
    rows = rounds(1.0, 1.0, 1.0)
    for index, ghz in enumerate(limits):
        state = dataclasses.replace(
            rows[index].before, core_limit_khz=(1_000_000, ghz and int(ghz * 1e6))
        )
        rows[index] = dataclasses.replace(rows[index], before=state, after=state)
    assert judge_rounds(Settings(), rows).reasons == expected
    told = Verdict.of(["throttled: x"])  # in a run already
    rows[0] = dataclasses.replace(rows[0], verdict=told)
    assert judge_rounds(Settings(), rows).reasons == ("throttled: x (1 of 3 rounds)",)


def test_rows_of_before_the_rule_that_take_a_part_for_the_whole_are_no_longer_valid():
    row = make_measurement(settings=Settings(delegate="gpu"), delegation=Delegation("gpu"))
    assert row.verdict.valid  # as earlier versions had it
    assert judge_rounds(row.settings, [row, dataclasses.replace(row, round=1)]).reasons == (
        "fallback: the tool does not tell whether gpu took all of the model (2 of 2 rounds)",
    )
    told = dataclasses.replace(row, verdict=Verdict(False, ("fallback: in the tool's words",)))
    assert judge_rounds(row.settings, [told]).reasons == ("fallback: in the tool's words",)
