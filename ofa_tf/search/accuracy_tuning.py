"""keras-tuner on the fit of the accuracy predictor: width, depth, learning rate, weight decay.

Importing this module imports keras_tuner, and with it TensorFlow.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import no_pattern
from ofa_tf.search.accuracy import AccuracyPredictor
from ofa_tf.search.accuracy_fitting import ENOUGH, split
from ofa_tf.search.tuner import damage_told
from ofa_tf.spaces import Arch, SearchSpace

_VALIDATION = 0.25  # of the archs that are fitted on, in each of several splits
_NUM_SPLITS = 3


def tune_fit(
    space: SearchSpace,
    archs: Sequence[Arch],
    accuracies: np.ndarray,
    folder: str | os.PathLike,
    trials: int,
    *,
    held_out: float = 0.2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Looks for better settings of `AccuracyPredictor.fit` by random search; goes on where it was.

    A trial's score is the RMSE on a quarter of the archs that `fit` would fit on, the mean over
    three splits. The archs that `fit` holds out with the same `held_out` and `seed` are never
    seen.

    Args:
        space: the space.
        archs: the archs, as for `fit`.
        accuracies: theirs, (n,), as fractions.
        folder: keras-tuner's project; of these archs, accuracies and seed only.
        trials: how many, those that the folder has included.
        held_out: as for `fit`.
        seed: as for `fit`, and of the trials.
        progress: called as (trials done, trials in all) before each trial and at the end.

    Returns: what to give to `fit` (empty where no trial is better than its defaults), and the RMSE
        of the `best` trial and of the `default` settings.

    Raises:
        UsageError: fewer than 50 archs.
        FailureError: what is in the folder is damaged, or it cannot be made.
    """
    if len(archs) < ENOUGH:
        raise UsageError(
            f"Tuning the accuracy predictor takes {ENOUGH} archs or more, not {len(archs)}."
        )
    fitted, _ = split(len(archs), held_out, seed)
    archs, accuracies = [archs[i] for i in fitted], np.asarray(accuracies)[fitted]
    seeds = np.random.default_rng((seed, 1)).integers(2**31, size=_NUM_SPLITS).tolist()

    def score(settings: dict[str, Any]) -> float:
        fits = [
            AccuracyPredictor.fit(
                space, archs, accuracies, held_out=_VALIDATION, seed=each, **settings
            )
            for each in seeds
        ]
        return float(np.mean([fit.report["rmse"] for fit in fits]))

    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise FailureError(f"{folder} could not be made: {error.strerror}.") from error
    # keras-tuner takes its folder for a pattern, and prints what it does: here is `progress`.
    with no_pattern(folder) as project, contextlib.redirect_stdout(io.StringIO()):
        tuner = _tuner(folder, project, trials, seed)
        tuner.score, tuner.progress = score, progress
        tuner.search(verbose=0)
    if progress is not None:
        progress(trials, trials)
    best = tuner.oracle.get_best_trials(1)[0]
    scores = {"best": best.score, "default": score({})}
    return (_settings(best.hyperparameters) if best.score < scores["default"] else {}), scores


def _tuner(folder: str | os.PathLike, project: pathlib.Path, trials: int, seed: int) -> _Tuner:
    """The tuner of a folder, which goes on if there is one; `project` is a path to it."""
    space = keras_tuner.HyperParameters()
    _settings(space)
    remedy = f"Remove the folder {folder} to tune anew."
    with damage_told(folder, remedy, lambda trial: _settings(trial.hyperparameters)):
        return _Tuner(
            hyperparameters=space,
            objective=keras_tuner.Objective("rmse", "min"),
            max_trials=trials,
            seed=seed + 1,  # keras-tuner takes 0 for none
            directory=str(project.parent),
            project_name=project.name,
        )


class _Tuner(keras_tuner.RandomSearch):
    """Random trials, each of which fits predictors."""

    score: Callable[[dict[str, Any]], float]
    progress: Callable[[int, int], None] | None

    def run_trial(self, trial: Trial, **_: Any) -> dict[str, float]:
        if self.progress is not None:
            self.progress(len(self.oracle.end_order), self.oracle.max_trials)
        return {"rmse": self.score(_settings(trial.hyperparameters))}


def _settings(hp: keras_tuner.HyperParameters) -> dict[str, Any]:
    """What a trial tries, as `AccuracyPredictor.fit` takes it."""
    width = hp.Choice("width", [64, 128, 256, 400, 512])
    return {
        "hidden": (width,) * hp.Int("depth", 1, 4),
        "learning_rate": hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"),
        "weight_decay": hp.Float("weight_decay", 1e-5, 1.0, sampling="log"),
    }
