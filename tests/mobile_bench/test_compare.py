"""What changed between two results files: who is compared with whom, and what is claimed."""

from __future__ import annotations

import dataclasses

import pytest
from bench_helpers import HOST, TOOL, make_measurement

from mobile_bench.compare import compare
from mobile_bench.results import Settings, Verdict
from mobile_bench.summary import summarize

PHONE = dataclasses.replace(HOST, target="R58", serial="R58", model="Phone", os="Android 14")


def summary(*round_us: float, **changes: object):
    rows = [
        make_measurement(round=i, median_us=us, mean_us=us, **changes)
        for i, us in enumerate(round_us or (11.0, 10.9, 11.1))
    ]
    (made,) = summarize(rows)
    return made


@pytest.mark.parametrize(
    ("a", "b", "ratio", "changed"),
    [
        ((10.0, 11.0, 12.0), (20.0, 22.0, 21.0), 21 / 11, "slower"),
        ((20.0, 22.0, 21.0), (10.0, 11.0, 12.0), 11 / 21, "faster"),
        ((10.0, 11.0, 12.0), (12.0, 14.0, 13.0), 13 / 11, "same"),  # 12 was seen on both sides
        ((10.0, 11.0, 12.0), (11.0, 11.0, 11.0), 1.0, "same"),
        ((10.0,), (20.0, 21.0), 20.5 / 10.0, "unknown"),
        ((10.0, 11.0), (20.0,), 20 / 10.5, "unknown"),
        ((0.0, 0.0), (1.0, 1.0), None, "unknown"),
    ],
)
def test_a_change_is_claimed_where_the_interval_leaves_out_1(a, b, ratio, changed):
    (change,) = compare([summary(*a)], [summary(*b)])
    assert change.changed == changed
    assert change.ratio == (ratio if ratio is None else pytest.approx(ratio))
    assert (change.interval is None) == (changed == "unknown")
    if change.interval:
        assert change.interval[0] <= change.ratio <= change.interval[1]


def test_the_interval_of_few_rounds_is_that_of_their_extremes():
    (change,) = compare([summary(10.0, 11.0, 12.5)], [summary(20.0, 22.0, 25.0)])
    assert change.interval == pytest.approx((20 / 12.5, 25 / 10))


def test_a_file_against_itself_has_not_changed():
    noisy = [summary(*range(10, 20), model=f"{name}.tflite") for name in "abc"]
    assert [change.changed for change in compare(noisy, noisy)] == ["same"] * 3
    assert {change.ratio for change in compare(noisy, noisy)} == {1.0}


def test_models_are_told_in_order_of_a_then_those_only_in_b():
    a = [summary(model=f"{name}.tflite", sha256=name * 64) for name in "cab"]
    b = [summary(model=f"{name}.tflite", sha256=name * 64) for name in "dbce"]
    changes = compare(a, b)
    assert [(change.model[0], change.changed) for change in changes] == [
        ("c", "same"),
        ("a", "only in A"),
        ("b", "same"),
        ("d", "only in B"),
        ("e", "only in B"),
    ]
    assert (changes[1].b, changes[3].a) == (None, None)


def test_each_device_and_setting_is_compared_with_its_own():
    made = [
        summary(us, us, model="a.tflite", device=device, settings=Settings(threads=threads))
        for us, device, threads in [(10, HOST, 1), (6, HOST, 2), (30, PHONE, 1), (20, PHONE, 2)]
    ]
    changes = compare(made, made[::-1])
    assert [change.ratio for change in changes] == [1.0] * 4
    assert [change.notes for change in changes] == [()] * 4


def test_a_model_finds_itself_after_a_move_a_rebuild_or_on_another_device():
    before = summary(model="old/a.tflite")
    for changes, note in [
        ({"model": "new/b.tflite"}, "other path: was old/a.tflite"),  # the same bytes
        ({"sha256": "1" * 64, "size_bytes": 11}, "other file: 10 -> 11 bytes"),
        ({"device": PHONE}, "other device: target 'host' -> 'R58', serial '' -> 'R58'"),
        ({"tool": dataclasses.replace(TOOL, version="2.4")}, "other tool: version '2.3.0' -> '2.4"),
        ({"settings": Settings(threads=4, cpus="big")}, "other settings: threads 1 -> 4, cpus ''"),
    ]:
        (change,) = compare([before], [summary(**({"model": before.model} | changes))])
        assert change.changed == "same"
        assert len(change.notes) == 1
        assert change.notes[0].startswith(note)
    other = dataclasses.replace(TOOL, sha256="f" * 64)
    (change,) = compare([before], [summary(model=before.model, tool=other)])
    assert change.notes == (f"other tool: sha256 '' -> '{'f' * 36}...",)
    rebuilt = summary(model="new/a.tflite", sha256="1" * 64)  # only the name is the same
    (change,) = compare([before], [rebuilt])
    assert [note.split(":")[0] for note in change.notes] == ["other path", "other file"]


def test_no_pair_is_made_where_it_is_not_clear_which():
    one = [summary(model="a.tflite", settings=Settings(threads=n)) for n in (1, 2)]
    other = [summary(model="a.tflite", settings=Settings(threads=n)) for n in (4, 8)]
    changes = compare(one, other)
    assert [change.changed for change in changes] == ["only in A"] * 2 + ["only in B"] * 2
    notes = [(), ("measured with threads 2",), ("measured with threads 4",)]
    assert [change.notes for change in changes[:3]] == notes


def test_the_same_phone_by_wifi_is_the_same_device():
    wifi = dataclasses.replace(PHONE, target="phone.local:5555")
    others = [summary(device=HOST)]
    changes = compare([summary(device=PHONE), *others], [*others, summary(device=wifi)])
    assert [change.changed for change in changes] == ["same", "same"]
    assert changes[0].notes == ("other device: target 'R58' -> 'phone.local:5555'",)


def test_means_beside_medians_are_noted():
    (means,) = summarize([make_measurement(median_us=None, mean_us=11.0)])
    note = "A has means: its tool prints no medians"
    assert compare([means], [summary()])[0].notes == (note,)
    assert compare([summary()], [means])[0].notes == (note.replace("A", "B"),)
    assert compare([means], [means])[0].notes == ()


def test_invalid_sides_are_noted():
    hot = Verdict(False, ("hot: 39 C",))
    (change,) = compare([summary()], [summary(verdict=hot)])
    assert change.notes == ("B is invalid: hot: 39 C (3 of 3 rounds)",)


def test_notes_of_one_side_alone_are_told():
    both, one = "cores: mixed", "clocks: capped"
    (change,) = compare(
        [summary(verdict=Verdict.of([], [both]))], [summary(verdict=Verdict.of([], [both, one]))]
    )
    assert change.notes == ("B: clocks: capped (3 of 3 rounds)",)
