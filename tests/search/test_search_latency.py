"""LatencyTable on a device that is made up, and once on this host."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
from search_helpers import (
    HIGH,
    LOW,
    MIDDLE,
    RESNET,
    SMALL,
    TINY,
    FakeDevice,
    all_codes,
    measurement,
)

from mobile_bench.results import Verdict
from ofa_tf.errors import UsageError
from ofa_tf.search import LatencyTable, build_latency_table
from ofa_tf.search.latency import GROUPINGS, distinct_blocks
from ofa_tf.search.latency_building import _subnet_name
from ofa_tf.search.latency_measuring import measure_all
from ofa_tf.search.rows import RowFile
from ofa_tf.spaces import Arch, get_space

KEY = "classifier-160-10"


def known_ms(block) -> float:
    """A made-up latency that is linear in the pixels of the block's input."""
    return 1e-3 * (3 + 1e-6 * block.params * block.in_size**2) + 0.002


def make_table(space=TINY, resolutions=(LOW, HIGH), **changes) -> LatencyTable:
    blocks = distinct_blocks(space, 10, resolutions)
    fields = {
        "space": space,
        "num_classes": 10,
        "resolutions": resolutions,
        "block_ms": {key: known_ms(block) for key, block in blocks.items()},
        "overhead_ms": 0.002,
        "slope": 1.25,
        "constant_ms": 0.5,
    }
    return LatencyTable(**(fields | changes))


# -- prediction ----------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [TINY, RESNET], ids=lambda space: space.name)
def test_predicts_the_corrected_sum_over_blocks_at_any_resolution(space):
    table = make_table(space)
    codes = space.sample_codes(100, np.random.default_rng(0))
    expected = [
        1.25 * sum(known_ms(b) - 0.002 for b in space.blueprint(arch, 10).blocks) + 0.5
        for arch in space.decode(codes)
    ]
    assert {arch.resolution for arch in space.decode(codes)} == set(space.resolutions)
    np.testing.assert_allclose(table(codes), expected, rtol=1e-9)


def test_a_block_no_slower_than_nothing_counts_nothing():
    table = make_table()
    key = next(key for key in table.block_ms if key.startswith("classifier"))
    free = dataclasses.replace(table, block_ms={**table.block_ms, key: 0.0015})
    least = dataclasses.replace(table, block_ms={**table.block_ms, key: 0.002})
    codes = TINY.sample_codes(10, np.random.default_rng(0))
    np.testing.assert_allclose(free(codes), least(codes))


@pytest.mark.parametrize("space", [SMALL, RESNET], ids=lambda space: space.name)
def test_the_minimum_is_that_of_all_archs(space):
    table = make_table(space, (LOW, space.resolutions[-1]))
    codes = all_codes(space)
    least, code = table.minimum()
    assert least == pytest.approx(table(codes).min())
    assert table(code[None])[0] == pytest.approx(least)


@pytest.mark.parametrize("space", [SMALL, RESNET], ids=lambda space: space.name)
def test_distinct_blocks_are_those_of_all_archs(space):
    everything = [space.blueprint(arch, 10) for arch in space.decode(all_codes(space))]
    expected = {block.key for plan in everything for block in plan.blocks}
    assert set(distinct_blocks(space, 10, space.resolutions)) == expected


def test_kinds_of_block_have_their_own_slopes():
    table = make_table(grouping="weights", slopes={"weights": 2.0})  # the others have `slope`
    archs = TINY.decode(TINY.sample_codes(50, np.random.default_rng(0)))
    expected = [
        sum(
            (2.0 if GROUPINGS["weights"](block) == "weights" else 1.25) * (known_ms(block) - 0.002)
            for block in TINY.blueprint(arch, 10).blocks
        )
        + 0.5
        for arch in archs
    ]
    np.testing.assert_allclose(table(TINY.encode(archs)), expected, rtol=1e-9)


@pytest.mark.parametrize("space", [SMALL, RESNET], ids=lambda space: space.name)
def test_the_minimum_is_exact_with_several_slopes(space):
    codes, least = all_codes(space), []
    for slopes in ({"weights": 2.0, "activations": 0.5}, {"weights": 0.0, "activations": 3}):
        table = make_table(space, (LOW, space.resolutions[-1]), grouping="weights", slopes=slopes)
        value, code = table.minimum()
        assert value == pytest.approx(table(codes).min())
        assert table(code[None])[0] == pytest.approx(value)
        least.append(value)
    assert least[0] != least[1]


# -- latencies that hold at one resolution --------------------------------------------------------


def own_latencies(resolutions) -> dict[int, dict[str, float]]:
    """Latencies of the blocks at each resolution that differ even where the blocks are equal."""
    return {
        side: {
            key: known_ms(block) * (1 + index)
            for key, block in distinct_blocks(TINY, 10, [side]).items()
        }
        for index, side in enumerate(resolutions)
    }


def test_latencies_of_a_resolution_are_exact_there():
    latencies = own_latencies(TINY.resolutions)
    table = make_table(resolutions=TINY.resolutions, block_ms={}, by_resolution=latencies)
    archs = TINY.decode(TINY.sample_codes(50, np.random.default_rng(0)))
    expected = [
        1.25 * sum(latencies[arch.resolution][b.key] - 0.002 for b in plan.blocks) + 0.5
        for arch, plan in ((arch, TINY.blueprint(arch, 10)) for arch in archs)
    ]
    np.testing.assert_allclose(table(TINY.encode(archs)), expected, rtol=1e-12)


def test_between_resolutions_they_are_interpolated():
    """Blocks that are equal at both ends count with their mean."""
    table = make_table(block_ms={}, by_resolution=own_latencies((LOW, HIGH)))
    arch = dataclasses.replace(TINY.min(), resolution=MIDDLE)
    codes = TINY.encode(dataclasses.replace(arch, resolution=side) for side in (LOW, MIDDLE, HIGH))
    low, middle, high = table(codes)
    assert low < middle < high
    only_classifier = {
        side: {key: ms if key.startswith("classifier") else 0.0 for key, ms in latencies.items()}
        for side, latencies in own_latencies((LOW, HIGH)).items()
    }
    table = make_table(block_ms={}, by_resolution=only_classifier, overhead_ms=0.0)
    low, middle, high = table(codes) - 0.5
    assert middle == pytest.approx((low + high) / 2)
    assert high == pytest.approx(2 * low)


def test_they_go_before_the_others_and_into_the_file(tmp_path):
    table = make_table(by_resolution={LOW: {KEY: 7.0}})
    codes = TINY.encode([dataclasses.replace(TINY.min(), resolution=r) for r in (LOW, HIGH)])
    more = table(codes) - make_table()(codes)
    assert more == pytest.approx([1.25 * (7.0 - table.block_ms[KEY]), 0.0])
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table


# -- the file ------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(tmp_path):
    table = make_table(setup={"device": {"cpu": "x"}}, report={"mape": 0.1}, rows=({"round": 0},))
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table
    restricted = LatencyTable.load(tmp_path / "table.json", SMALL)
    codes = SMALL.sample_codes(10, np.random.default_rng(0))
    np.testing.assert_array_equal(restricted(codes), table(codes))
    assert restricted.minimum()[0] >= table.minimum()[0]


def test_a_table_of_some_resolutions_is_loaded_as_one(tmp_path):
    part = TINY.restrict(resolutions=(LOW, MIDDLE))
    table = make_table(part, (LOW, MIDDLE))
    table.save(tmp_path / "table.json")
    for asked in (None, TINY, part):
        assert LatencyTable.load(tmp_path / "table.json", asked) == table
    low = TINY.restrict(resolutions=(LOW,))
    assert LatencyTable.load(tmp_path / "table.json", low).space == low
    high = TINY.restrict(resolutions=(HIGH,))
    with pytest.raises(UsageError, match=rf"it is for \[{LOW}, {MIDDLE}\] pixels, not for"):
        LatencyTable.load(tmp_path / "table.json", high)


def test_a_table_of_another_precision_is_refused(tmp_path):
    table = make_table(precision="int8")
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json", TINY, "int8") == table
    with pytest.raises(UsageError, match=r"it is of int8 models, not of float32\. Measure it"):
        LatencyTable.load(tmp_path / "table.json", TINY, "float32")


@pytest.mark.parametrize("ms", ["0.25", "NaN"])
def test_a_block_that_is_there_twice_is_refused(tmp_path, ms):
    path = tmp_path / "table.json"
    make_table().save(path)
    text = path.read_text()
    path.write_text(text.replace(f'"{KEY}":', f'"{KEY}": {ms}, "{KEY}":', 1))
    with pytest.raises(UsageError, match=f"'{KEY}' is there twice"):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t["block_ms"].pop(KEY), f"lacks the block {KEY}"),
        (lambda t: t["block_ms"].update({KEY: math.nan}), f"{KEY} is no number but nan"),
        (lambda t: t["block_ms"].update({KEY: 0}), f"{KEY} is 0"),
        (lambda t: t["block_ms"].update({KEY: -1.5}), f"{KEY} is -1.5"),
        (lambda t: t["block_ms"].update({KEY: "fast"}), f"{KEY} is no number but 'fast'"),
        (lambda t: t["by_resolution"].update({LOW: {KEY: -1}}), f"{KEY} at {LOW} pixels is -1"),
        (lambda t: t["by_resolution"].update({"low": {}}), "'low'"),
        (lambda t: t.update(slope=-1.0), "slope is -1.0"),
        (lambda t: t.update(slopes={"all": -1.0}), "that of all is -1.0"),
        (lambda t: t.update(grouping="age"), "not 'age'"),
        (lambda t: t.update(space_resolutions=[33]), "it is for [33] pixels"),
        (lambda t: t.update(constant_ms=math.inf), "constant_ms is no number but inf"),
        (lambda t: t.update(resolutions=[LOW, MIDDLE]), f"not only {LOW} to {MIDDLE}"),
        (lambda t: t.update(resolutions=[LOW, 33]), "not to [33]"),
        (lambda t: t.update(space="ofa_mbv3_huge"), "ofa_mbv3_huge"),
        (lambda t: t.update(format="other"), "it is no latency table"),
        (lambda t: t.pop("overhead_ms"), "overhead_ms"),
        (lambda t: t.pop("space"), "space is missing"),
        # Numbers that no device gives, and predictions that are no latencies.
        (lambda t: t.update(overhead_ms=1e300), "overhead_ms is 1e+300"),
        (lambda t: t.update(overhead_ms=-1), "overhead_ms is -1"),
        (lambda t: t.update(overhead_ms=1e6), "a model that does next to nothing, is 1e+06, but"),
        (lambda t: t.update(constant_ms=-1e6), "constant_ms is -1000000.0"),
        (lambda t: t.update(constant_ms=1e6), "besides its blocks, is 1e+06, but the slowest blo"),
        (lambda t: t["block_ms"].update({KEY: 1e300}), f"{KEY} is 1e+300"),
        (lambda t: t.update(slope=1e300), "slope is 1e+300"),
        (lambda t: (t["block_ms"].update({KEY: 9e3}), t.update(slope=1e7)), "and up to 1e+07 ms"),
        (
            lambda t: t.update(constant_ms=0, overhead_ms=0.99 * max(t["block_ms"].values())),
            'it predicts from 0 ms, for {"ks"',
        ),
    ],
)
def test_a_damaged_table_is_refused_and_the_thing_named(tmp_path, damage, said):
    path = tmp_path / "table.json"
    make_table().save(path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"table\.json cannot be used") as error:
        LatencyTable.load(path)
    assert said in str(error.value)


def test_other_files_and_other_spaces_are_refused(tmp_path):
    path = tmp_path / "table.json"
    make_table().save(path)
    with pytest.raises(UsageError, match="it is of ofa_mbv3_tiny, not of ofa_mbv3_cifar"):
        LatencyTable.load(path, get_space("ofa_mbv3_cifar"))
    for content in ('{"format": ', "[1, 2]", "{}"):
        path.write_text(content)
        with pytest.raises(UsageError, match=r"table\.json cannot be used"):
            LatencyTable.load(path)
    with pytest.raises(UsageError, match=r"none\.json cannot be used"):
        LatencyTable.load(tmp_path / "none.json")


# -- building ------------------------------------------------------------------------------------

# A few dozen models: they are built for real, whatever the device is.
NARROW = TINY.restrict(kernel_sizes=(3, 5), expand_ratios=(2,), resolutions=(LOW, MIDDLE))


def build(device, path, **changes):
    settings = {"num_fit": 4, "num_check": 5, "rounds": 2} | changes
    return build_latency_table(
        NARROW, 10, convert=device.convert, measure=device.measure, path=path, **settings
    )


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A device without noise, and the table of it."""
    device, folder = FakeDevice(slope=1.4, overhead_us=5.0), tmp_path_factory.mktemp("quiet")
    return device, folder, build(device, folder / "table.json")


def test_recovers_an_additive_device(quiet):
    _, _, table = quiet
    assert table.overhead_ms == pytest.approx(0.005)
    assert table.slope == pytest.approx(1.4)
    assert table.constant_ms == pytest.approx(0.005)
    assert table.report["mape"] < 1e-6
    assert table.report["kendall"] == pytest.approx(1)
    assert table.report["n"] == len(table.report["subnets"]) == 5
    assert table.report["worst"] < 1e-6
    assert table.report["worst_arch"] in [row["arch"] for row in table.report["subnets"]]
    assert table.report["fitted"]["n"] == 4
    assert table.report["interpolation"]["n"] == 0  # all resolutions were measured
    assert table.report["round_spread"] == 0


def test_every_second_subnet_has_the_smallest_kernels_and_none_is_there_twice(quiet):
    _, _, table = quiet
    subnets = [row["arch"] for row in table.report["fitted"]["subnets"] + table.report["subnets"]]
    assert len({str(arch) for arch in subnets}) == 9
    small = [max(arch["ks"]) == 3 for arch in subnets]
    assert sum(small) >= 4
    assert not all(small)


def test_models_are_told_whether_they_take_images(tmp_path):
    device, told = FakeDevice(), {True: set(), False: set()}
    convert = device.convert

    def record(plan, takes_images):
        told[takes_images].add(plan.blocks[0].name == "stem")
        return convert(plan, takes_images)

    device.convert = record
    build(device, tmp_path / "table.json")
    assert told == {True: {True}, False: {False}}


def test_everything_is_in_the_file_and_nothing_else_is_left(quiet):
    device, folder, table = quiet
    assert [path.name for path in folder.iterdir()] == ["table.json"]
    assert LatencyTable.load(folder / "table.json", NARROW) == table
    assert device.converted == len(table.block_ms) + 1 + 9
    assert len(table.rows) == len(device.measured) == 2 * device.converted
    assert table.setup["device"]["target"] == "host"
    assert table.setup["settings"]["threads"] == 1
    assert table.setup["date"]
    assert {"ofa_tf", "tensorflow", "python", "ai-edge-litert"} <= set(table.setup["versions"])


def test_every_round_measures_everything_in_turn(quiet):
    device, _, _ = quiet
    half = len(device.measured) // 2
    assert device.measured[:half] == device.measured[half:]
    assert len(set(device.measured[:half])) == half


def test_the_check_decides_nothing(quiet, tmp_path):
    """Slower subnets that are only checked change the report, not the table."""

    class Slower(FakeDevice):
        def _time(self, path):
            slow = pathlib.Path(path).stem in checked
            found = super()._time(path)
            return measurement(path, found.timings.median_us * (1.2 if slow else 1))

    _, _, table = quiet
    archs = [Arch.from_dict(row["arch"]) for row in table.report["subnets"]]
    checked = {_subnet_name(arch) for arch in archs}
    again = build(Slower(slope=1.4, overhead_us=5.0), tmp_path / "table.json")
    codes = NARROW.sample_codes(20, np.random.default_rng(0))
    np.testing.assert_array_equal(table(codes), again(codes))
    assert again.report["mape"] == pytest.approx(1 - 1 / 1.2)
    assert again.report["fitted"] == table.report["fitted"]


def test_between_resolutions_the_error_is_told(tmp_path):
    """The device is linear in the pixels of a block's output, not quite in those of its input."""
    device = FakeDevice()
    space = NARROW.root.restrict(kernel_sizes=(3,), expand_ratios=(2,), depths=(1, 2))
    table = build_latency_table(
        space,
        10,
        convert=device.convert,
        measure=device.measure,
        path=tmp_path / "table.json",
        resolutions=(LOW, HIGH),
        num_fit=4,
        num_check=4,
        rounds=1,
    )
    errors = table.report["interpolation"]
    assert errors["n"] == len(errors["blocks"]) > 3
    assert 0 < errors["mape"] < errors["worst"] < 0.5
    assert not {row["key"] for row in errors["blocks"]} & set(table.block_ms)
    for row in errors["blocks"]:
        assert 0.5 < row["predicted_ms"] / row["measured_ms"] < 1.5
    assert table.space == space  # the resolution between is one of the table's


def test_a_part_of_the_resolutions_makes_a_table_of_that_part(tmp_path):
    table = build(FakeDevice(), tmp_path / "table.json", resolutions=(MIDDLE,))
    assert table.space == NARROW.restrict(resolutions=(MIDDLE,))
    subnets = table.report["fitted"]["subnets"] + table.report["subnets"]
    assert {row["arch"]["r"] for row in subnets} == {MIDDLE}
    assert LatencyTable.load(tmp_path / "table.json", NARROW) == table


def test_models_that_were_disturbed_are_measured_again(tmp_path):
    class Disturbed(FakeDevice):
        """Some models take three times as long in the first round."""

        def _time(self, path):
            name = pathlib.Path(path).name
            seen = self.measured.count(name)
            found = super()._time(path)
            slow = len(name) % 2 == 0 and seen <= 1
            return measurement(path, found.timings.median_us * (3 if slow else 1))

    device = Disturbed()
    table = build(device, tmp_path / "table.json")
    disturbed = {name for name in device.measured if len(name) % 2 == 0}
    assert disturbed
    for name in set(device.measured):
        assert device.measured.count(name) == (3 if name in disturbed else 2)
    assert table.report["mape"] < 1e-6


def test_a_round_in_which_the_phone_was_hot_does_not_count(tmp_path):
    class Hot(FakeDevice):
        """In the first round all models take half as long, one model does so in all rounds."""

        def _time(self, path):
            found = super()._time(path)
            name = pathlib.Path(path).name
            if self.measured.count(name) > 1 and name != self.measured[0]:
                return found
            hot = Verdict(False, ("hot: 45 C",))
            return measurement(path, found.timings.median_us / 2, verdict=hot)

    device = Hot()
    table = build(device, tmp_path / "table.json")
    assert table.report["doubtful"] == {pathlib.Path(device.measured[0]).stem: ["hot: 45 C"]}
    for name in set(device.measured):
        assert device.measured.count(name) == (4 if name == device.measured[0] else 2)
    assert table.overhead_ms == pytest.approx(0.001)  # of the empty model, the first one
    assert min(table.block_ms.values()) >= 0.002


def test_noise_of_others_hardly_matters(tmp_path):
    table = build(FakeDevice(slope=1.4, noise=0.05), tmp_path / "table.json", rounds=4)
    assert 0 < table.report["mape"] < 0.08
    assert 0 < table.report["round_spread"] < 0.5


def test_interrupted_it_goes_on_where_it_was(tmp_path):
    class Interrupted(FakeDevice):
        def _time(self, path):
            if len(self.measured) > 35:
                raise KeyboardInterrupt
            return super()._time(path)

    first, second = Interrupted(), FakeDevice()
    with pytest.raises(KeyboardInterrupt):
        build(first, tmp_path / "table.json")
    assert not (tmp_path / "table.json").exists()
    table = build(second, tmp_path / "table.json")
    assert second.converted == 0
    assert len(first.measured) - 1 + len(second.measured) == len(table.rows)  # none was lost
    assert table.report["mape"] < 1e-6


def test_rows_of_another_table_or_device_are_refused(tmp_path):
    class Other(FakeDevice):
        def _time(self, path):
            cpu = dataclasses.replace(measurement("a", 1.0).device, cpu="another")
            return dataclasses.replace(super()._time(path), device=cpu)

    class Interrupted(FakeDevice):
        def _time(self, path):
            if len(self.measured) > 1:
                raise KeyboardInterrupt
            return super()._time(path)

    class Reconnected(FakeDevice):
        """The same phone, by Wi-Fi and with a core switched off."""

        def _time(self, path):
            changes = {"target": "phone:5555", "core_max_khz": (None,)}
            device = dataclasses.replace(measurement("a", 1.0).device, **changes)
            return dataclasses.replace(super()._time(path), device=device)

    path = tmp_path / "table.json"
    with pytest.raises(KeyboardInterrupt):
        build(Interrupted(), path)
    with pytest.raises(UsageError, match=r"this row belongs to .*float32.*, not to .*int8"):
        build(FakeDevice(), path, precision="int8")
    other = Other()
    with pytest.raises(UsageError, match="another"):
        build(other, path)
    assert len(other.measured) == 1  # told at once
    assert build(Reconnected(), path).report["mape"] < 1e-6


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row.pop("p5_us"),
        lambda row: row.update(p5_us=math.nan),
        lambda row: row.update(p5_us=0),
        lambda row: row.update(median_us="1"),
        lambda row: row.pop("round"),
        lambda row: row.pop("setup"),
        lambda row: row.update(setup=[]),
        lambda row: row.update(setup={"device": "phone"}),
        lambda row: row.pop("reasons_invalid"),
    ],
)
def test_damaged_rows_are_refused(tmp_path, damage):
    device = FakeDevice()
    identity = {"space": NARROW.name, "num_classes": 10, "precision": "float32"}
    rows = [
        {
            **identity,
            "round": 0,
            "model": f"model{i}",
            "p5_us": 1.0,
            "median_us": 1.1,
            "setup": {},
            "date": "today",
            "reasons_invalid": [],
        }
        for i in range(3)
    ]
    damage(rows[1])
    (tmp_path / "model.tflite").write_text("1 1")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    file = RowFile(path, identity)
    with pytest.raises(UsageError, match=r"rows\.jsonl is damaged: line 2\..* Remove the line\.$"):
        measure_all(["model"], tmp_path, file, device.measure, 1, lambda *_: None)
    assert device.measured == []


def test_a_resolution_outside_the_space_is_refused(tmp_path):
    with pytest.raises(UsageError, match="resolutions of ofa_mbv3_tiny"):
        build(FakeDevice(), tmp_path / "table.json", resolutions=(LOW, 33))


@pytest.mark.parametrize("too_few", [{"num_fit": 1}, {"num_check": 0}, {"rounds": 0}])
def test_too_few_subnets_or_rounds_are_refused(tmp_path, too_few):
    with pytest.raises(UsageError, match="two whole subnets or more to fit"):
        build(FakeDevice(), tmp_path / "table.json", **too_few)


def test_the_real_thing_on_this_host(tmp_path):
    """No time is asserted: another process may take the machine at any moment."""
    import mobile_bench
    from ofa_tf.export import convert
    from ofa_tf.models import build_subnet

    space = TINY.restrict(depths=(1,), kernel_sizes=(3, 5), expand_ratios=(2,), resolutions=(LOW,))
    table = build_latency_table(
        space,
        10,
        convert=lambda plan, takes_images: convert(build_subnet(plan), "float32"),
        measure=lambda paths, on_result: mobile_bench.measure(
            paths, rounds=1, num_runs=20, min_secs=0, warmup_min_secs=0, on_result=on_result
        ),
        path=tmp_path / "table.json",
        num_fit=2,
        num_check=1,
        rounds=2,
    )
    latencies = table(all_codes(space))
    assert np.isfinite(latencies).all()
    assert np.ptp(latencies) > 0
    assert len(table.setup["device"]["core_max_khz"]) >= 1
    assert [row for row in table.rows if row["reasons_invalid"]] == []
    assert LatencyTable.load(tmp_path / "table.json", space) == table
