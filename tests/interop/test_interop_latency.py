"""Published latency tables: their keys, what is refused, and the reference's sums."""

import subprocess
import sys

import numpy as np
import pytest
import yaml
from interop_helpers import published, stub_torchvision

from ofa_tf.errors import UsageError
from ofa_tf.interop import to_net_config
from ofa_tf.search import LatencyTable
from ofa_tf.spaces import Arch, SearchSpace, get_space
from ofa_tf.spaces.blueprint import Blueprint, InvertedResidual

TINY = get_space("ofa_mbv3_tiny")
SIDES = TINY.resolutions
NAMES = {
    "stem": "Conv",
    "final_expand": "Conv_1",
    "pool": "AvgPool2D",
    "feature_mix": "Conv_2",
    "classifier": "Logits",
}


def spelled(plan: Blueprint) -> list[str]:
    """The published keys of a MobileNetV3, by its documented pattern."""
    keys = []
    for b in plan.blocks:
        shapes = (
            f"input:{b.in_size}x{b.in_size}x{b.in_channels}-output:"
            f"{b.out_size}x{b.out_size}x{b.out_channels}"
        )
        if b.name == "classifier":
            keys.append(f"Logits-input:1x1x{b.in_channels}-output:{b.out_channels}")
        elif isinstance(b, InvertedResidual):
            se, hard_swish = int(bool(b.se_channels)), int(b.activation == "hard_swish")
            keys.append(
                f"expanded_conv-{shapes}-expand:{b.mid_channels}-kernel:{b.kernel_size}"
                f"-stride:{b.stride}-idskip:{int(b.shortcut)}-se:{se}-hs:{hard_swish}"
            )
        else:
            keys.append(f"{NAMES[b.name]}-{shapes}")
    return keys


def made_up_entries(space: SearchSpace, side: int, num_classes: int = 10) -> dict:
    """An entry for each block at a resolution, another one at each resolution."""
    rng = np.random.default_rng(side)
    keys = {key for _, plan in space.covering_plans(num_classes, [side]) for key in spelled(plan)}
    return {
        key: {"count": 500, "mean": float(rng.uniform(0.01, 2)), "std": 0.01}
        for key in sorted(keys)
    }


def write(folder, side, entries):
    path = folder / f"{side}_lookup_table.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


@pytest.fixture
def folder(tmp_path):
    for side in SIDES:
        write(tmp_path, side, made_up_entries(TINY, side))
    (tmp_path / "notes.txt").write_text("not a table")
    return tmp_path


def expected_sums(archs: list[Arch]) -> list[float]:
    entries = {side: made_up_entries(TINY, side) for side in SIDES}
    return [
        sum(entries[arch.resolution][key]["mean"] for key in spelled(TINY.blueprint(arch, 10)))
        for arch in archs
    ]


def test_a_folder_gives_the_sums_at_each_resolution(folder):
    table = LatencyTable.load(folder)
    assert (table.space, table.num_classes) == (TINY.restrict(resolutions=SIDES), 10)
    codes = TINY.sample_codes(100, np.random.default_rng(0))
    np.testing.assert_allclose(table(codes), expected_sums(TINY.decode(codes)), rtol=1e-12)


def test_one_file_answers_for_its_resolution_only(folder):
    table = LatencyTable.load(folder / f"{SIDES[1]}_lookup_table.yaml")
    assert table.space == TINY.restrict(resolutions=SIDES[1:2])
    codes = table.space.sample_codes(20, np.random.default_rng(0))
    np.testing.assert_allclose(table(codes), expected_sums(TINY.decode(codes)), rtol=1e-12)
    assert LatencyTable.load(folder / f"{SIDES[1]}_lookup_table.yaml", TINY).space == table.space


def test_a_resolution_between_the_files_is_interpolated(folder):
    (folder / f"{SIDES[1]}_lookup_table.yaml").unlink()
    table = LatencyTable.load(folder, TINY)
    assert table.space.resolutions == SIDES
    assert np.isfinite(table(TINY.sample_codes(50, np.random.default_rng(0)))).all()


def test_saved_as_json_it_is_the_same(folder, tmp_path):
    table = LatencyTable.load(folder)
    table.save(tmp_path / "table.json")
    codes = TINY.sample_codes(50, np.random.default_rng(0))
    again = LatencyTable.load(tmp_path / "table.json", table.space)
    assert again == table
    np.testing.assert_array_equal(again(codes), table(codes))


# -- what is refused -----------------------------------------------------------------------------


def test_other_spaces_and_resolutions_are_refused(folder):
    with pytest.raises(UsageError, match=r"for \[24, 28, 32\] pixels, which are not all in ofa_mb"):
        LatencyTable.load(folder, get_space("ofa_mbv3_w1.0"))
    cifar = get_space("ofa_mbv3_cifar")
    with pytest.raises(UsageError, match=r"of ofa_mbv3_cifar: \d+ blocks are missing: Conv-"):
        LatencyTable.load(folder, cifar)
    with pytest.raises(UsageError, match=r"of ofa_resnet_tiny: \d+ blocks are missing: conv"):
        LatencyTable.load(folder, get_space("ofa_resnet_tiny"))
    with pytest.raises(UsageError, match=r"of ofa_mbv3_tiny-swish: .* missing: .*-hs:0"):
        LatencyTable.load(folder, get_space("ofa_mbv3_tiny-swish"))
    with pytest.raises(UsageError, match=r"for 24 to 24 pixels, not for \[32\]"):
        LatencyTable.load(folder / "24_lookup_table.yaml", TINY.restrict(resolutions=(32,)))


def change(entries, damage):
    damage(entries)
    return entries


LOGITS = "Logits-input:1x1x160-output:10"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda e: e[LOGITS].pop("mean"), f"at '{LOGITS}', not None"),
        (lambda e: e[LOGITS].update(mean="fast"), f"at '{LOGITS}', not 'fast'"),
        (lambda e: e[LOGITS].update(mean=0.0), f"at '{LOGITS}', not 0.0"),
        (lambda e: e[LOGITS].update(mean=-1), f"at '{LOGITS}', not -1"),
        (lambda e: e[LOGITS].update(mean=float("nan")), f"at '{LOGITS}', not nan"),
        (lambda e: e.update({LOGITS: 3.5}), f"at '{LOGITS}', not None"),
        (lambda e: e.pop(LOGITS), "it has no key like Logits-"),
        (lambda e: e.update({f"{LOGITS}0": {"mean": 1.0}}), "it has 2 keys like Logits-"),
        (lambda e: e.pop("Conv-input:28x28x3-output:14x14x8"), "it has no key like Conv-input:"),
        (
            lambda e: e.pop("AvgPool2D-input:4x4x128-output:1x1x128"),
            "the nearest is ofa_mbv3_tiny: 1 blocks are missing: "
            "AvgPool2D-input:4x4x128-output:1x1x128 in 28_lookup_table.yaml.",
        ),
    ],
)
def test_a_damaged_file_is_refused_and_the_key_named(tmp_path, damage, said):
    path = write(tmp_path, 28, change(made_up_entries(TINY, 28), damage))
    with pytest.raises(UsageError, match="28_lookup_table") as error:
        LatencyTable.load(path)
    assert said in str(error.value)


def test_a_block_of_another_resolution_is_refused(tmp_path):
    entries = made_up_entries(TINY, 28)
    here, other = (
        next(key for key in made_up_entries(TINY, side) if key.startswith("AvgPool2D"))
        for side in (28, 24)
    )
    assert other not in entries
    path = write(tmp_path, 28, entries | {other: {"mean": 1.0}})
    with pytest.raises(UsageError, match=r"28_lookup_table\.yaml mixes two resolutions: ") as error:
        LatencyTable.load(path)
    assert here in str(error.value)
    assert other in str(error.value)


def test_two_resolutions_in_one_file_are_refused(tmp_path):
    path = write(tmp_path, 28, made_up_entries(TINY, 28) | made_up_entries(TINY, 24))
    with pytest.raises(UsageError, match="it has 2 keys like Conv-input:224x224x3, for 24 and 28"):
        LatencyTable.load(path)


@pytest.mark.parametrize("mean", [3.5, 1e-9])
def test_a_block_that_is_there_twice_is_refused(tmp_path, mean):
    path = write(tmp_path, 28, made_up_entries(TINY, 28))
    lines = path.read_text().count("\n")
    path.write_text(f"{path.read_text()}{LOGITS}: {{mean: {mean}}}\n")
    with pytest.raises(UsageError, match=f"line {lines + 1}: {LOGITS} is there twice"):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "cannot be read"),
        ("? [1, 2]\n: {mean: 1}\n", "cannot be read"),
        ("- 1\n- 2\n", "it has no entries by block"),
        ("", "it has no entries by block"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content, said):
    path = tmp_path / "table.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"table\.yaml") as error:
        LatencyTable.load(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "line 1: it is nested too deeply"),
        ("- " * 100_000 + "a", "line 1: it is nested too deeply"),
        ("{a: " * 100_000, "line 1: it is nested too deeply"),
        ("Conv: {mean: 1\a}", "control characters are not allowed"),
        ("a: &a [1]\nb: [*a, *a]", "line 2: there is an alias, *a, of another value"),
        ("a: !!timestamp x", "line 1: there is a tag, tag:yaml.org,2002:timestamp"),
        ("a: {mean: 1e300}", "a mean that is a positive number of ms, up to 1e+07, at 'a', not"),
        ("#" * 10_000_001, "it has more than 10,000,000 bytes"),
    ],
)
def test_yaml_that_ends_a_parser_is_refused(tmp_path, content, said):
    """In a process of its own, which the compiled parser would end with a signal."""
    path = tmp_path / "a.yaml"
    path.write_text(content)
    code = (
        "import sys; from ofa_tf.search import LatencyTable\n"
        "from ofa_tf.errors import UsageError\n"
        "try: LatencyTable.load(sys.argv[1])\n"
        "except UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"The latency table {path} ")
    assert said in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_files_that_are_missing_or_not_one_table_are_refused(folder):
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read"):
        LatencyTable.load(folder / "none.yaml")
    write(folder, 28, made_up_entries(TINY, 28, num_classes=5))
    with pytest.raises(UsageError, match=r"28_lookup_table\.yaml for 28 and 5"):
        LatencyTable.load(folder)
    write(folder, 28, made_up_entries(TINY, 24))
    with pytest.raises(UsageError, match="not one table"):
        LatencyTable.load(folder)
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"empty has no file that is called \*_lookup_table\.yaml"):
        LatencyTable.load(empty)


# -- the reference -------------------------------------------------------------------------------


def worst_deviation(found, expected) -> float:
    return float(np.max(np.abs(np.asarray(found) / np.asarray(expected) - 1)))


@pytest.fixture
def load_yaml(monkeypatch):
    """Lets the reference call `yaml.load` without a loader, as it could when it was written."""
    load = yaml.load
    monkeypatch.setattr(yaml, "load", lambda stream, loader=yaml.SafeLoader: load(stream, loader))


@pytest.mark.reference
def test_the_published_tables_are_the_references(record_property, load_yaml):
    pytest.importorskip("torch")
    pytest.importorskip("ofa")
    stub_torchvision()
    from ofa.tutorial.latency_table import LatencyEstimator

    folder = published() / "note10"
    sides = (160, 176, 192, 208, 224)
    reference = {
        side: LatencyEstimator(url=str(folder / f"{side}_lookup_table.yaml")) for side in sides
    }
    ours = LatencyTable.load(folder)
    assert (ours.space.name, ours.num_classes) == ("ofa_mbv3_w1.2", 1000)
    space = ours.space.restrict(resolutions=sides)
    codes = space.sample_codes(1000, np.random.default_rng(0))
    expected = [
        reference[choices["r"]].predict_network_latency_given_spec(choices | {"r": [choices["r"]]})
        for choices in (arch.to_dict() for arch in space.decode(codes))
    ]
    assert np.ptp(expected) > 10
    worst = worst_deviation(ours(codes), expected)
    record_property("worst_relative_deviation", worst)
    assert worst < 1e-5


class Recorded(dict):
    """Makes up a latency for every key that is looked up, and keeps it."""

    def __missing__(self, key):
        rng = np.random.default_rng(list(key.encode()))
        self[key] = {"mean": float(rng.uniform(0.01, 2))}
        return self[key]


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "table", "side"),
    [
        ("ofa_proxyless_w1.3", "ProxylessNASLatencyTable", 160),
        ("ofa_proxyless_w1.3", "ProxylessNASLatencyTable", 172),
        ("ofa_mbv3_w1.0", "MBv3LatencyTable", 132),
    ],
)
def test_both_forms_are_the_references(name, table, side, tmp_path, record_property):
    pytest.importorskip("torch")
    pytest.importorskip("ofa")
    stub_torchvision()
    from ofa.nas.efficiency_predictor import latency_lookup_table

    reference = object.__new__(getattr(latency_lookup_table, table))
    reference.lut = Recorded()

    def predict(plan: Blueprint) -> float:
        return reference.predict_network_latency_given_config(to_net_config(plan), side)

    space = get_space(name).restrict(resolutions=(side,))
    for _, plan in space.covering_plans(1000, [side]):
        predict(plan)  # so that the table has every block
    ours = LatencyTable.load(write(tmp_path, side, dict(reference.lut)))
    assert ours.space == space
    codes = space.sample_codes(200, np.random.default_rng(0))
    expected = [predict(space.blueprint(arch)) for arch in space.decode(codes)]
    worst = worst_deviation(ours(codes), expected)
    record_property("worst_relative_deviation", worst)
    assert worst < 1e-5
