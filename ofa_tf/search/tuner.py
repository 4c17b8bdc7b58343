"""SubnetTuner: a keras-tuner tuner whose trials evaluate subnets of a trained supernet.

Importing this module imports keras_tuner, and with it TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus

from ofa_tf.names import printable
from ofa_tf.search.tuner_oracle import EvolutionOracle
from ofa_tf.spaces import Arch


class SubnetTuner(BaseTuner):
    """Searches archs by evaluating them, without a predictor and without training.

    A trial keeps its arch and a number, no model, so that many of them need little memory.
    `search`, the project directory, and chief and workers (by keras-tuner's own environment
    variables) are as in any keras-tuner tuner, with three differences: a search goes on whatever
    the id of the tuner that began it, so that a single process can follow on chief and workers;
    of those, only the chief heeds `overwrite`; and too many failures end chief and workers, not
    only the worker that met the last. A worker that died is started again with its id.

    After `search`, `results_summary`, `best_archs` and `oracle.get_best_trials` tell the results;
    on a worker too where it sees the project directory.

    Args:
        oracle: proposes the archs.
        evaluate: the objective of an arch, e.g. the method `accuracy` of a SubnetEvaluator. A
            trial in which it raises an error is a failed one.
        directory: local folder of projects; the present one by default.
        project_name: folder of this search in it.
        overwrite: begin anew, and remove what is in the project directory.
    """

    def __init__(
        self,
        oracle: EvolutionOracle,
        evaluate: Callable[[Arch], float],
        *,
        directory: str | os.PathLike | None = None,
        project_name: str | None = None,
        overwrite: bool = False,
    ):
        self._evaluate = evaluate
        # `self.oracle` of a worker is a client of the chief's, which only passes trials.
        self._own_oracle = oracle
        super().__init__(
            oracle,
            directory=directory,
            project_name=project_name,
            overwrite=overwrite and not self._is_worker(),
        )

    def run_trial(self, trial: Trial, **_: Any) -> dict[str, float]:
        """The objective of a trial's arch, and its constrained measures."""
        arch = self._own_oracle.arch(trial)
        measures = self._own_oracle.measures(arch)
        return measures | {self.oracle.objective.name: float(self._evaluate(arch))}

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Runs trials until there are `max_trials`, or no other arch is left.

        Args:
            *args: passed to `run_trial`, for those who write their own.
            **kwargs: the same; `verbose=0` is for silence.

        Raises:
            FailureError: too many trials in a row failed. A new tuner goes on with other trials.
        """
        super().search(*args, **kwargs)
        self._own_oracle.raise_if_failing()

    def on_search_end(self) -> None:
        """Leaves the chief, which ends as well: a question to it would wait for an hour."""
        if self._is_worker():
            self.oracle = self._own_oracle
            if os.path.exists(self._get_tuner_fname()):
                self.oracle.reload()

    def best_archs(self, num_archs: int = 1) -> list[Arch]:
        """Up to so many archs of completed trials, the best first."""
        return [self._own_oracle.arch(trial) for trial in self._best_trials(num_archs)]

    def results_summary(self, num_trials: int = 10) -> None:
        """Prints a line for each of the best trials: objective, measures and arch."""
        print(printable(f"Results in {self.project_dir}"))
        for trial in self._best_trials(num_trials):
            arch = self._own_oracle.arch(trial)
            numbers = {self.oracle.objective.name: trial.score} | self._own_oracle.measures(arch)
            text = ", ".join(f"{name} {number:.6g}" for name, number in numbers.items())
            print(printable(f"trial {trial.trial_id}: {text}, arch {arch.to_json()}"))

    def _best_trials(self, count: int) -> list[Trial]:
        # Where too few are completed, the oracle gives others as well.
        trials = self.oracle.get_best_trials(count)
        return [trial for trial in trials if trial.status == TrialStatus.COMPLETED]

    # -- all that there is to save is the oracle's ----------------------------------------------

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()

    def reload(self) -> None:
        if not self._is_worker():
            self.oracle.reload()

    def _get_tuner_fname(self) -> str:
        """The file by which BaseTuner knows that there is a search to go on with.

        Its own is of one tuner id, so that a run with another id would overwrite the results.
        """
        return os.path.join(self.project_dir, "oracle.json")
