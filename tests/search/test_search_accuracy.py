"""Collecting accuracies, and the predictor that is fitted on them."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from search_helpers import HIGH, LOW, MIDDLE, SMALL, TINY, made_up_accuracy

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.search import AccuracyPredictor, collect_accuracies
from ofa_tf.spaces import BlockCosts, get_space


def evaluator(space, calls=None, fail_at=None):
    """Evaluates archs by a made-up accuracy; raises at the given call."""

    def evaluate(arch):
        if calls is not None:
            calls.append(arch)
            if len(calls) == fail_at:
                raise KeyboardInterrupt
        return float(made_up_accuracy(space)(space.encode([arch]))[0])

    return evaluate


# -- collecting ----------------------------------------------------------------------------------


def test_an_arch_depends_on_seed_and_index_only(tmp_path):
    few, _ = collect_accuracies(TINY, evaluator(TINY), tmp_path / "few.jsonl", 5, seed=3)
    many, _ = collect_accuracies(TINY, evaluator(TINY), tmp_path / "many.jsonl", 20, seed=3)
    other, _ = collect_accuracies(TINY, evaluator(TINY), tmp_path / "other.jsonl", 20, seed=4)
    assert many[:5] == few
    assert many[:2] == other[:2] == [TINY.max(), TINY.min()]
    assert not set(many[2:]) & set(other[2:])


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_resnet50"])
def test_half_of_the_archs_are_spread_over_macs(tmp_path, name):
    space = get_space(name)
    archs, _ = collect_accuracies(space, lambda arch: 0.5, tmp_path / "rows.jsonl", 202)
    macs = BlockCosts(space, lambda block, resolution: block.macs)
    values = macs(space.encode(archs[2:]))
    low, high = macs(space.encode([space.min(), space.max()]))
    share = (values - low) / (high - low)
    counts = [np.histogram(part, 5, range=(0, 1))[0] for part in (share[::2], share[1::2])]
    assert counts[0].min() == 0  # uniform draws reach no end
    assert counts[1].min() >= 10


def test_an_interrupted_collection_goes_on_where_it_was(tmp_path):
    path, calls = tmp_path / "rows.jsonl", []
    with pytest.raises(KeyboardInterrupt):
        collect_accuracies(TINY, evaluator(TINY, calls, fail_at=5), path, 8)
    path.write_bytes(path.read_bytes() + b'{"space": "ofa_mb')  # killed while it wrote
    again, steps = [], []
    archs, accuracies = collect_accuracies(
        TINY, evaluator(TINY, again), path, 8, progress=lambda *step: steps.append(step)
    )
    assert steps == [(4, 8), (5, 8), (6, 8), (7, 8), (8, 8)]
    assert calls[:4] + again == archs
    np.testing.assert_allclose(accuracies, made_up_accuracy(TINY)(TINY.encode(archs)))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(8))
    collect_accuracies(TINY, evaluator(TINY, again), path, 8)
    assert len(again) == 4


@pytest.mark.parametrize("change", [{"fingerprint": "b"}, {"seed": 1}, {"space": SMALL}])
def test_rows_of_something_else_are_refused(tmp_path, change):
    asked = {"space": get_space("ofa_mbv3_cifar"), "fingerprint": "a", "seed": 0}
    path = tmp_path / "rows.jsonl"
    collect_accuracies(evaluate=lambda arch: 0.5, path=path, count=2, **asked)
    with pytest.raises(UsageError, match="line 1: this row belongs to"):
        collect_accuracies(evaluate=lambda arch: 0.5, path=path, count=2, **(asked | change))


def test_a_damaged_row_inside_the_file_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    collect_accuracies(TINY, lambda arch: 0.5, path, 2)
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(UsageError, match=r"rows\.jsonl, line 1: this is no row of ours"):
        collect_accuracies(TINY, lambda arch: 0.5, path, 2)


@pytest.mark.parametrize("accuracy", [float("nan"), -0.1, 75.0])
def test_an_accuracy_that_is_no_fraction_is_refused(tmp_path, accuracy):
    with pytest.raises(FailureError, match="not between 0 and 1"):
        collect_accuracies(TINY, lambda arch: accuracy, tmp_path / "rows.jsonl", 2)
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(FailureError, match=r"rows\.jsonl could not be"):
        collect_accuracies(TINY, lambda arch: 0.5, tmp_path / "plain" / "rows.jsonl", 2)


# -- the predictor -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    return collect_accuracies(TINY, evaluator(TINY), path, 200)


@pytest.fixture(scope="module")
def predictor(rows):
    return AccuracyPredictor.fit(TINY, *rows, hidden=(64, 64), epochs=40)


def test_predicts_archs_that_it_never_saw(predictor):
    codes = TINY.sample_codes(500, np.random.default_rng(9))
    truth, predicted = made_up_accuracy(TINY)(codes), predictor(codes)
    assert np.sqrt(((predicted - truth) ** 2).mean()) < 0.35 * truth.std()
    assert abs((predicted - truth).mean()) < 0.2 * truth.std()
    assert predicted.dtype == np.float64


def test_the_report_is_of_the_held_out_archs(predictor, rows):
    report = predictor.report
    assert (report["n_fitted"], report["n_held_out"]) == (160, 40)
    errors = np.array(report["predictions"]) - report["accuracies"]
    assert report["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert report["mae"] == pytest.approx(np.abs(errors).mean())
    assert report["kendall"] > 0.7
    assert report["spearman"] > report["kendall"]
    assert report["warning"] is None


def test_held_out_archs_do_not_enter_the_fit(rows, predictor):
    archs, accuracies = rows
    held_out = np.isin(accuracies, predictor.report["accuracies"])
    assert held_out.sum() == 40
    spoiled = np.where(held_out, 0.9, accuracies)
    again = AccuracyPredictor.fit(TINY, archs, spoiled, hidden=(64, 64), epochs=40)
    codes = TINY.encode(archs)
    np.testing.assert_allclose(again(codes), predictor(codes), atol=1e-6)


def test_many_archs_are_predicted_as_one_by_one(predictor):
    codes = TINY.sample_codes(9000, np.random.default_rng(1))
    one_by_one = [predictor(codes[i : i + 1])[0] for i in (0, 8191, 8192, 8999)]
    np.testing.assert_allclose(predictor(codes)[[0, 8191, 8192, 8999]], one_by_one, atol=1e-6)
    assert predictor(codes[:0]).shape == (0,)


def test_a_resolution_outside_the_space_has_no_accuracy(predictor):
    codes = TINY.sample_codes(50, np.random.default_rng(3))
    resolutions = np.array([arch.resolution for arch in TINY.decode(codes)])
    values = dataclasses.replace(predictor, space=TINY.restrict(resolutions=(LOW, HIGH)))(codes)
    np.testing.assert_array_equal(np.isnan(values), resolutions == MIDDLE)


def test_noise_is_said_plainly():
    archs = TINY.decode(TINY.sample_codes(60, np.random.default_rng(0)))
    accuracies = np.random.default_rng(1).random(60)
    report = AccuracyPredictor.fit(TINY, archs, accuracies, hidden=(8,), epochs=3).report
    assert "below 0.5" in report["warning"]
    report = AccuracyPredictor.fit(TINY, archs[:20], accuracies[:20], hidden=(8,), epochs=3).report
    assert "only 20 archs were evaluated" in report["warning"]


def test_equal_accuracies_give_that_accuracy(tmp_path):
    archs = TINY.decode(TINY.sample_codes(12, np.random.default_rng(0)))
    predictor = AccuracyPredictor.fit(TINY, archs, np.full(12, 0.25), hidden=(8,), epochs=5)
    np.testing.assert_allclose(predictor(TINY.encode(archs)), 0.25, rtol=1e-6)
    assert predictor.report["kendall"] is None
    assert "below 0.5" in predictor.report["warning"]
    predictor.save(tmp_path / "predictor.npz")
    assert AccuracyPredictor.load(tmp_path / "predictor.npz").report == predictor.report


@pytest.mark.parametrize(("archs", "accuracies"), [(9, 9), (20, 19), (20, float("nan"))])
def test_unfit_rows_are_refused(archs, accuracies):
    drawn = TINY.decode(TINY.sample_codes(archs, np.random.default_rng(0)))
    values = np.full(archs, accuracies) if accuracies != accuracies else np.ones(accuracies)
    with pytest.raises(UsageError, match="fitted on 10 archs or more with a finite"):
        AccuracyPredictor.fit(TINY, drawn, values)


def test_saved_and_loaded_it_predicts_the_same(predictor, tmp_path):
    path = tmp_path / "predictor.npz"
    predictor.save(path)
    codes = TINY.sample_codes(50, np.random.default_rng(2))
    loaded = AccuracyPredictor.load(path)
    np.testing.assert_array_equal(loaded(codes), predictor(codes))
    assert (loaded.space, loaded.report) == (TINY, predictor.report)
    assert AccuracyPredictor.load(path, SMALL).space == SMALL


def test_a_predictor_of_another_space_is_refused(predictor, tmp_path):
    predictor.save(tmp_path / "predictor.npz")
    with pytest.raises(UsageError, match="of ofa_mbv3_tiny, not of ofa_mbv3_cifar"):
        AccuracyPredictor.load(tmp_path / "predictor.npz", get_space("ofa_mbv3_cifar"))


def test_damaged_files_are_refused(predictor, tmp_path):
    path = tmp_path / "predictor.npz"
    predictor.save(path)
    whole = path.read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"predictor\.npz is no accuracy predictor"):
            AccuracyPredictor.load(path)
    with pytest.raises(UsageError, match=r"none\.npz is no accuracy predictor"):
        AccuracyPredictor.load(tmp_path / "none.npz")
    kernel, bias = predictor.layers[0]
    for layer in ((kernel[:-1], bias), (kernel * np.nan, bias)):
        AccuracyPredictor(TINY, (layer, *predictor.layers[1:]), {}).save(path)
        with pytest.raises(UsageError, match=r"predictor\.npz is damaged"):
            AccuracyPredictor.load(path)


def test_importing_the_search_imports_no_tensorflow():
    code = (
        "import sys, ofa_tf.search; print({'tensorflow', 'keras', 'mobile_bench'} & {*sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
