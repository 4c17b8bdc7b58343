"""Collecting accuracies, and the predictor that is fitted on them."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from search_helpers import HIGH, LOW, MIDDLE, SMALL, TINY, made_up_accuracy

from ofa_tf.errors import UsageError
from ofa_tf.search import AccuracyPredictor
from ofa_tf.search.accuracy_fitting import fit_linear, split
from ofa_tf.search.codes import ArchSampler
from ofa_tf.spaces import get_space


def curved_accuracy(codes):
    """An accuracy of codes that is no linear function of their features."""
    linear = made_up_accuracy(TINY)(codes)
    return linear + 20 * (linear - 0.56) ** 2


def draw(count: int, seed: int = 0):
    """Archs and their accuracies."""
    codes = ArchSampler(TINY, seed).codes(count)
    return TINY.decode(codes), curved_accuracy(codes)


@pytest.fixture(scope="module")
def rows():
    return draw(400)


@pytest.fixture(scope="module")
def predictor(rows):
    return AccuracyPredictor.fit(TINY, *rows, hidden=(64, 64), epochs=40)


def test_predicts_archs_that_it_never_saw(predictor):
    """Better than a linear predictor can, whose error is 0.4 of the deviation."""
    codes = TINY.sample_codes(500, np.random.default_rng(9))
    truth, predicted = curved_accuracy(codes), predictor(codes)
    assert np.sqrt(((predicted - truth) ** 2).mean()) < 0.35 * truth.std()
    assert abs((predicted - truth).mean()) < 0.2 * truth.std()
    assert predicted.dtype == np.float64


def test_a_network_is_never_worse_than_the_linear_part_where_it_is_stopped():
    """Accuracies that are linear in the features are predicted exactly."""
    archs, _ = draw(100)
    accuracies = made_up_accuracy(TINY)(TINY.encode(archs))
    predictor = AccuracyPredictor.fit(TINY, archs, accuracies, hidden=(16, 16, 16), epochs=2)
    codes = TINY.sample_codes(300, np.random.default_rng(5))
    truth = made_up_accuracy(TINY)(codes)
    assert np.sqrt(((predictor(codes) - truth) ** 2).mean()) < 0.1 * truth.std()
    (layers,) = predictor.members
    assert [kernel.shape[1] for kernel, _ in layers] == [17, 17, 17, 1]


def test_keras_settings_change_no_fit():
    import keras

    archs, accuracies = draw(100)
    codes = TINY.sample_codes(50, np.random.default_rng(5))
    before = keras.config.dtype_policy()
    found = []
    for set_up in (lambda: None, lambda: keras.config.set_dtype_policy("mixed_float16")):
        try:
            set_up()
            predictor = AccuracyPredictor.fit(TINY, archs, accuracies, hidden=(16,), epochs=3)
        finally:
            keras.config.set_dtype_policy(before)
        found.append(predictor(codes))
    np.testing.assert_array_equal(*found)


def test_the_linear_part_has_the_best_penalty_by_leaving_one_out():
    rng = np.random.default_rng(0)
    features = rng.integers(0, 2, (30, 12)).astype(np.float32)
    targets = features @ rng.normal(size=12) + rng.normal(size=30)

    def ridge(x, y, penalty):
        centered = x - x.mean(axis=0)
        gram = centered.T @ centered + penalty * np.eye(12)
        weights = np.linalg.solve(gram, centered.T @ (y - y.mean()))
        return weights, y.mean() - x.mean(axis=0) @ weights

    def left_out(penalty):
        errors = []
        for i in range(30):
            weights, constant = ridge(np.delete(features, i, 0), np.delete(targets, i), penalty)
            errors.append(features[i] @ weights + constant - targets[i])
        return np.square(errors).mean()

    expected = ridge(features, targets, min(np.geomspace(0.1, 100, 31), key=left_out))
    weights, constant = fit_linear(features, targets)
    np.testing.assert_allclose(weights, expected[0], rtol=1e-5)
    assert constant == pytest.approx(expected[1], rel=1e-5)


def test_the_report_is_of_the_held_out_archs(predictor, rows):
    report = predictor.report
    assert (report["n_fitted"], report["n_held_out"]) == (320, 80)
    errors = np.array(report["predictions"]) - report["accuracies"]
    assert report["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert report["mae"] == pytest.approx(np.abs(errors).mean())
    assert report["kendall"] > 0.7
    assert report["spearman"] > report["kendall"]
    assert report["warning"] is None


def test_held_out_archs_do_not_enter_the_fit(rows, predictor):
    archs, accuracies = rows
    _, held_out = split(len(archs), 0.2, 0)
    assert predictor.report["accuracies"] == accuracies[held_out].tolist()
    spoiled = accuracies.copy()
    spoiled[held_out] = 0.9
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


@pytest.fixture(scope="module")
def ensemble(rows):
    archs, accuracies = rows
    return AccuracyPredictor.fit(
        TINY, archs[:60], accuracies[:60], ensemble=3, hidden=(8,), epochs=5
    )


def test_an_ensemble_is_the_mean_of_its_members_and_tells_their_spread(ensemble):
    codes = TINY.sample_codes(40, np.random.default_rng(6))
    each = [AccuracyPredictor(TINY, (member,), {})(codes) for member in ensemble.members]
    assert len(each) == 3
    np.testing.assert_allclose(ensemble(codes), np.mean(each, axis=0))
    np.testing.assert_allclose(ensemble.spread(codes), np.std(each, axis=0))
    assert ensemble.spread(codes).min() > 0
    report = ensemble.report
    assert (len(report["spreads"]), report["n_held_out"]) == (12, 12)
    assert min(report["spreads"]) > 0


def test_one_network_has_no_spread(predictor):
    codes = TINY.sample_codes(40, np.random.default_rng(6))
    np.testing.assert_array_equal(predictor.spread(codes), 0)
    assert predictor.report["spreads"] is None


def test_an_ensemble_is_saved_in_one_file(ensemble, tmp_path):
    ensemble.save(tmp_path / "ensemble.npz")
    loaded = AccuracyPredictor.load(tmp_path / "ensemble.npz")
    codes = TINY.sample_codes(40, np.random.default_rng(6))
    np.testing.assert_array_equal(loaded(codes), ensemble(codes))
    np.testing.assert_array_equal(loaded.spread(codes), ensemble.spread(codes))
    assert loaded.report == ensemble.report


def test_a_file_of_the_first_format_is_read(predictor, tmp_path):
    (layers,) = predictor.members
    head = {"format": "ofa_tf accuracy predictor 1", "space": TINY.name, "report": {"rmse": 0.01}}
    arrays = {"head": np.array(json.dumps(head))}
    for index, (kernel, bias) in enumerate(layers):
        arrays |= {f"kernel{index}": kernel, f"bias{index}": bias}
    np.savez(tmp_path / "old.npz", **arrays)
    loaded = AccuracyPredictor.load(tmp_path / "old.npz")
    codes = TINY.sample_codes(40, np.random.default_rng(6))
    np.testing.assert_array_equal(loaded(codes), predictor(codes))
    assert loaded.report == {"rmse": 0.01}


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda head: None,
        lambda head: [head],
        lambda head: head | {"report": []},
        lambda head: head | {"report": {"rmse": "small"}},
        lambda head: head | {"report": {"warning": 5}},
        lambda head: head | {"report": {"made_from": {}, "rmse": None, "mae": 1, "n_held_out": 5}},
        lambda head: head | {"layers": [-1]},
        lambda head: head | {"layers": "many"},
        lambda head: head | {"space": 5},
        lambda head: head | {"format": ["ofa_tf accuracy predictor 2"]},
        lambda head: {key: value for key, value in head.items() if key != "report"},
    ],
)
def test_a_damaged_head_is_refused(predictor, tmp_path, damage):
    path = tmp_path / "predictor.npz"
    predictor.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["head"] = np.array(json.dumps(damage(json.loads(str(arrays["head"])))))
    np.savez(path, **arrays)
    said = r"predictor\.npz is no accuracy predictor: .*\. Make it anew with ofa-predictor, or"
    with pytest.raises(UsageError, match=said):
        AccuracyPredictor.load(path)


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
    (((kernel, bias), *others),) = predictor.members
    for layer in ((kernel[:-1], bias), (kernel * np.nan, bias)):
        AccuracyPredictor(TINY, ((layer, *others),), {}).save(path)
        with pytest.raises(UsageError, match=r"predictor\.npz is damaged"):
            AccuracyPredictor.load(path)


def test_importing_the_search_imports_no_tensorflow():
    code = (
        "import sys, ofa_tf.search; print({'tensorflow', 'keras', 'mobile_bench'} & {*sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
