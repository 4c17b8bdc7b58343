"""keras-tuner on the predictor's fit: what it may see, what it finds, and that it goes on."""

import numpy as np
import pytest
from search_helpers import TINY, made_up_accuracy

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.search import AccuracyPredictor, accuracy_tuning
from ofa_tf.search.accuracy_fitting import split

ARCHS = TINY.decode(TINY.sample_codes(60, np.random.default_rng(0)))
ACCURACIES = made_up_accuracy(TINY)(TINY.encode(ARCHS))


@pytest.fixture
def fits(monkeypatch):
    """The calls of `AccuracyPredictor.fit`, whose error is made up: the rate, 0.005 by default."""
    calls = []

    def fit(space, archs, accuracies, **settings):
        calls.append((archs, accuracies, settings))
        if len(calls) == fit.interrupted_at:
            raise KeyboardInterrupt
        rmse = settings.get("learning_rate", fit.default)
        return AccuracyPredictor(space, (), {"rmse": rmse})

    fit.interrupted_at, fit.default, fit.calls = None, 0.005, calls
    monkeypatch.setattr(AccuracyPredictor, "fit", fit)
    return fit


def tune(folder, trials=4, **changes):
    return accuracy_tuning.tune_fit(TINY, ARCHS, ACCURACIES, folder, trials, **changes)


def test_it_finds_settings_and_never_sees_what_fit_holds_out(fits, tmp_path, capfd):
    steps = []
    found, scores = tune(tmp_path / "p", trials=8, progress=lambda *step: steps.append(step))
    assert set(found) == {"hidden", "learning_rate", "weight_decay"}
    tried = {settings.get("learning_rate") for _, _, settings in fits.calls} - {None}
    assert (len(tried), found["learning_rate"]) == (8, min(tried))
    assert scores == {"best": pytest.approx(min(tried)), "default": pytest.approx(0.005)}
    assert steps == [(done, 8) for done in range(9)]
    held_out = {ARCHS[index] for index in split(60, 0.2, 0)[1]}
    for archs, accuracies, _ in fits.calls:
        assert len(archs) == 48
        assert not held_out & set(archs)
        np.testing.assert_array_equal(accuracies, made_up_accuracy(TINY)(TINY.encode(archs)))
    assert capfd.readouterr().out == ""


def test_the_defaults_stay_where_no_trial_is_better(fits, tmp_path):
    fits.default = 1e-5
    found, scores = tune(tmp_path / "p")
    assert found == {}
    assert scores["default"] < scores["best"]


@pytest.mark.parametrize("name", ["p", "p[1]*"])
def test_interrupted_it_goes_on(fits, tmp_path, name):
    uninterrupted = tune(tmp_path / "other")
    num_fits = len(fits.calls)
    fits.calls.clear()
    fits.interrupted_at = 8  # in the third trial
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / name)
    fits.interrupted_at = None
    assert tune(tmp_path / name) == uninterrupted
    assert len(fits.calls) == num_fits + 2  # the third trial began anew
    fits.calls.clear()
    tune(tmp_path / name, trials=5)
    assert len(fits.calls) == 3 + 3  # one trial more, and the defaults


def test_too_few_archs(tmp_path):
    with pytest.raises(UsageError, match="takes 50 archs or more, not 49"):
        accuracy_tuning.tune_fit(TINY, ARCHS[:49], ACCURACIES[:49], tmp_path, 1)


def test_a_folder_that_cannot_be_made_is_not_called_damaged(tmp_path):
    (tmp_path / "p").write_text("")
    with pytest.raises(FailureError, match=r"p/q could not be made: Not a directory\."):
        tune(tmp_path / "p" / "q")


def test_a_damaged_project_is_named(fits, tmp_path):
    tune(tmp_path / "p", trials=1)
    (tmp_path / "p" / "oracle.json").write_text("{")
    with pytest.raises(FailureError, match=r"oracle\.json could not be .* Remove the folder"):
        tune(tmp_path / "p", trials=1)
