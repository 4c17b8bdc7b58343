"""SubnetTuner: a keras-tuner tuner whose trials evaluate subnets of a trained supernet.

Importing this module imports keras_tuner, and with it TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus

from ofa_tf.errors import FailureError, UsageError, first_line
from ofa_tf.fields import Fields, read_fields
from ofa_tf.files import no_pattern, write_bytes
from ofa_tf.names import printable
from ofa_tf.search.evolution import Measure, evolve
from ofa_tf.spaces import Arch, SearchSpace
from ofa_tf.spaces.search_space import OFF


@contextlib.contextmanager
def damage_told(
    project: str | os.PathLike, remedy: str, check: Callable[[Trial], object]
) -> Iterator[None]:
    """Around what goes on with a project.

    Args:
        project: its folder, in which there may be nothing yet.
        remedy: what to do about damage, as a sentence.
        check: called with each trial; raises an error where it is none of this search.

    Raises:
        FailureError: a file is damaged, or keras-tuner gives up in the block.
    """
    oracle = pathlib.Path(project) / "oracle.json"
    try:
        paths = sorted(oracle.parent.glob("trial_*/trial.json"))
        trials = {_check_trial(path, read_fields(path, remedy), check) for path in paths}
        if oracle.exists():
            _check_oracle(read_fields(oracle, remedy), trials)
        yield
    except (UsageError, FailureError):
        raise
    except Exception as error:  # whatever a wrong value makes keras-tuner do
        raise FailureError(f"{oracle} is damaged: {_said(error)}. {remedy}") from error


def _check_trial(path: pathlib.Path, fields: Fields, check: Callable[[Trial], object]) -> str:
    """The id of a trial. Raises FailureError where keras-tuner or `check` refuses it."""
    state = dict(fields.items())
    try:
        trial = Trial.from_state(state)
        check(trial)
    except Exception as error:
        raise fields.error(_said(error)) from error
    if not isinstance(trial.score, (int, float, type(None))):  # NaN where it failed
        fields.number("score")
    if path.parent.name != f"trial_{fields.text('trial_id')}":
        raise fields.error(f"trial_id is {fields.text('trial_id')!r:.80}")
    return fields.text("trial_id")


def _check_oracle(fields: Fields, trials: set[str]) -> None:
    """Raises FailureError where what is used long after it was read is of another type."""
    for key in ("seed", "seed_state"):
        fields.whole(key)
    fields.named_numbers("run_times")
    for key in ("start_order", "end_order", "retry_queue"):
        unknown = set(fields.texts(key)) - trials
        if unknown:
            raise fields.error(f"{key} has {min(unknown)!r:.80}, of which there is no trial")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error).rstrip('.'):.300}"


_MUTATION_PROB = 0.1  # of each block, width and stage's depth; as published in arXiv 1908.09791
_RESOLUTION_PROB = 0.5
_DRAWN = 256  # archs drawn at once when a new one is looked for
_CHILD_ROUNDS = 4  # of draws from one parent, before the parent does not matter any more
_ANY_ROUNDS = 40  # of draws from the whole space, before it counts as exhausted
_PULLS = (*[0.2] * 10, 1.0)  # shares of an arch that are replaced until it is within the budgets

_LISTS = ("depths", "kernel_sizes", "expand_ratios", "widths")  # the fields of an Arch with several
_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class EvolutionOracle(keras_tuner.Oracle):
    """Regularized (aging) evolution (arXiv 1802.01548) over the archs of a space.

    The first `population_size` trials are random archs. Each later one is a mutation of the best
    of `sample_size` trials, drawn from the `population_size` that were completed last: an arch
    has offspring until it is too old, however good it is. Every proposed arch meets every
    constraint, and none is proposed twice; when there is no other, the search ends.

    A trial's hyperparameters are the choices of its arch, one `Choice` for each, named as in
    `Arch`: `depths[0]`, `kernel_sizes[3]`, `resolution`; a kernel size or an expand ratio of 0
    stands for a position that is off. `arch` makes an Arch of them again, also for a tuner of
    your own, whose `oracle` in a worker is only keras-tuner's client of this one. What a
    hypermodel asks for besides keeps its default.

    Run by one worker, equal arguments give equal trials, also when the search was interrupted
    and goes on from its project directory. A trial that was interrupted is run again from its
    start. The project directory is a local folder.

    Args:
        space: where to search; a restriction of a space is searched on its own.
        constraints: by name, a measure of codes and the most that it may be:
            `{"latency_ms": (table, 5.0)}`, as for `evolve`.
        objective: as in any Oracle; the direction of "accuracy" is known.
        max_trials: how many archs are evaluated at most.
        population_size: how many trials can have offspring.
        sample_size: how many of them compete to have it; the more, the greedier.
        seed: of everything random.
        max_retries_per_trial: how often a trial that raised an error or gave NaN is run again.
        max_consecutive_failed_trials: so many failed trials in a row end the search.

    Raises:
        UsageError: no arch meets the constraints, said with the least value that one can have;
            a measure is of another space, or a size is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        constraints: Mapping[str, tuple[Measure, float]] | None = None,
        *,
        objective: str | keras_tuner.Objective = "accuracy",
        max_trials: int = 100,
        population_size: int = 20,
        sample_size: int = 5,
        seed: int = 0,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
    ):
        if not 1 <= sample_size <= population_size:
            raise UsageError(
                "A population has at least as many trials as compete to have offspring, and they "
                f"are at least 1; not population_size={population_size}, sample_size={sample_size}."
            )
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=_hyperparameters(space),
            tune_new_entries=False,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self.seed = seed  # the base class takes 0 for none
        self.space = space
        self.population_size = population_size
        self.sample_size = sample_size
        self._constraints = dict(constraints or {})
        self._fresh = _FreshArchs(space, self._constraints)
        self._codes: dict[str, np.ndarray] = {}  # of trials, by id
        self._failed_in_a_row = 0

    def arch(self, trial: Trial) -> Arch:
        """The arch that a trial is about. Raises UsageError if it is not in the space."""
        values = trial.hyperparameters.values
        fields = {
            field: tuple(values[name] for name in names)
            for field, names in _names(self.space).items()
        }
        return self.space.arch(Arch(resolution=values["resolution"], **fields))

    def measures(self, arch: Arch) -> dict[str, float]:
        """An arch's value of each constrained measure, by name."""
        codes = self.space.encode([arch])
        return {name: float(measure(codes)[0]) for name, (measure, _) in self._constraints.items()}

    def raise_if_failing(self) -> None:
        """Raises FailureError if the search ended because too many trials in a row failed."""
        if self._is_failing():
            last = self.trials[self.end_order[-1]]
            # keras-tuner prints the error where the trial ran, and does not tell it to a chief.
            reason = (last.message or "its worker printed why").strip().splitlines()[-1]
            raise FailureError(
                f"{self._failed_in_a_row} trials in a row failed, so the search ended; the last "
                f"one, {last.trial_id}: {reason}"
            )

    # -- what keras-tuner asks for --------------------------------------------------------------

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of a new trial, or that there is none; keras-tuner calls it."""
        code = None
        if not self._is_failing():
            # Of its own for each trial, so that an interruption makes no difference.
            rng = np.random.default_rng([self.seed, len(self.trials)])
            code = self._fresh.draw(self._parent(rng), self._tried(), rng)
        if code is None:
            return {"status": TrialStatus.STOPPED}
        return {"status": TrialStatus.RUNNING, "values": _values(self.space, code)}

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Records a result. One that is run again starts without what was measured before."""
        super().end_trial(trial)
        if trial.trial_id in self._retry_queue:
            # Its old metrics, NaN say, would be kept in place of the new ones.
            self.trials[trial.trial_id].metrics.metrics.clear()

    def _check_consecutive_failures(self) -> None:
        """Counts the failures in a row.

        The base class raises an error here, under a lock that it then never releases, so that a
        chief would hang. Instead no more trials are given out: workers and chief end by
        themselves. The count is of this run, so that one can go on when the cause is mended.
        """
        failed = self.trials[self.end_order[-1]].status == TrialStatus.FAILED
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0

    def _is_failing(self) -> bool:
        return self._failed_in_a_row >= self.max_consecutive_failed_trials

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"search": self._settings()}

    def _check_search(self, there: Mapping[str, Any]) -> None:
        """Raises UsageError if these are settings of another space or with other budgets."""
        here = self._settings()
        different = [
            f"{name} was {there.get(name)!s:.200}, is {value}"
            for name, value in here.items()
            if there.get(name) != value
        ]
        if different:
            raise UsageError(
                f"{self._project_dir} holds another search: {'; '.join(different)}. Give another "
                "project_name, or overwrite=True to begin anew."
            )

    def _settings(self) -> dict[str, Any]:
        """What must be the same when a search goes on: each of its trials is a valid result."""
        space = self.space
        choices = (*_LISTS, "resolutions")
        return {
            "space": space.name,
            **{field: list(getattr(space, field)) for field in choices},
            "budgets": {name: float(budget) for name, (_, budget) in self._constraints.items()},
        }

    # -- files: whole or not there, so that a kill at any moment leaves a search to go on with ---

    def save(self) -> None:
        # In one line, which json writes much faster: there are several files a trial.
        write_bytes(self._get_oracle_fname(), json.dumps(self.get_state()).encode())

    def _save_trial(self, trial: Trial) -> None:
        path = os.path.join(self._get_trial_dir(trial.trial_id), "trial.json")
        write_bytes(path, json.dumps(trial.get_state()).encode())

    def reload(self) -> None:
        """Goes on from the project directory; each trial that had begun is run again first.

        Raises:
            UsageError: it is of a search in another space or with other budgets.
            FailureError: a file there is damaged.
        """
        remedy = "Restore it from a copy, or give overwrite=True to begin anew."
        oracle = read_fields(pathlib.Path(self._get_oracle_fname()), remedy)
        self._check_search(dict(oracle.fields_or_empty("search").items()))
        place = self._directory, self._project_name
        told = damage_told(self._project_dir, remedy, self.arch)
        with told, no_pattern(self._project_dir) as project:  # keras-tuner takes it for one
            self._set_project_dir(project.parent, project.name)
            super().reload()
        self._set_project_dir(*place)
        # A trial's file is written before the oracle's, and a kill may have come in between.
        self.trials = dict(sorted(self.trials.items(), key=lambda item: int(item[0])))
        self.start_order += [each for each in self.trials if each not in self.start_order]
        ended = [each for each, trial in self.trials.items() if trial.status in _ENDED]
        self.end_order += [each for each in ended if each not in self.end_order]
        self._retry_queue = [each for each in reversed(self.trials) if each not in ended]
        for each in self._retry_queue:
            self.trials[each].metrics.metrics.clear()

    # -- evolution ------------------------------------------------------------------------------

    def _parent(self, rng: np.random.Generator) -> np.ndarray | None:
        """The code of the best of a sample of the population; None while that is being drawn."""
        completed = [
            self.trials[each]
            for each in self.end_order
            if self.trials[each].status == TrialStatus.COMPLETED
        ]
        if len(self.trials) < self.population_size or not completed:
            return None
        population = completed[-self.population_size :]
        count = min(self.sample_size, len(population))
        sample = [population[i] for i in rng.choice(len(population), count, replace=False)]
        choose = max if self.objective.direction == "max" else min
        return self._code(choose(sample, key=lambda trial: trial.score))

    def _tried(self) -> list[np.ndarray]:
        """The codes of all trials, whatever became of them."""
        return [self._code(trial) for trial in self.trials.values()]

    def _code(self, trial: Trial) -> np.ndarray:
        if trial.trial_id not in self._codes:
            self._codes[trial.trial_id] = self.space.encode([self.arch(trial)])[0]
        return self._codes[trial.trial_id]


class _FreshArchs:
    """Draws archs that meet the constraints and were not tried."""

    def __init__(self, space: SearchSpace, constraints: Mapping[str, tuple[Measure, float]]):
        self._space = space
        self._constraints = constraints
        # Any arch within the budgets will do: what is over them is pulled toward it.
        within = evolve(space, lambda codes: np.zeros(len(codes)), constraints).arch
        self._within = space.encode([within])[0]

    def draw(
        self, parent: np.ndarray | None, tried: list[np.ndarray], rng: np.random.Generator
    ) -> np.ndarray | None:
        """A code that is not among the tried ones: a mutation of the parent where possible.

        Random without a parent. None when none was found, so that the space counts as exhausted.
        """
        known = {code.tobytes() for code in tried}
        if len(known) == self._space.num_subnets:
            return None

        def mutations() -> np.ndarray:
            return self._mutations(np.repeat(parent[None], _DRAWN, axis=0), rng)

        def anything() -> np.ndarray:
            # Where few archs are within the budgets, they are rather near those that are known.
            sources = np.stack([*tried, self._within])
            near = self._mutations(sources[rng.integers(len(sources), size=_DRAWN)], rng)
            return np.concatenate([self._space.sample_codes(_DRAWN, rng), near])

        found = None
        if parent is not None:
            found = self._first_fresh(mutations, known, _CHILD_ROUNDS, rng)
        if found is None:
            found = self._first_fresh(anything, known, _ANY_ROUNDS, rng)
        return found

    def _first_fresh(
        self,
        drawn: Callable[[], np.ndarray],
        known: set[bytes],
        rounds: int,
        rng: np.random.Generator,
    ) -> np.ndarray | None:
        for _ in range(rounds):
            for code in self._pulled_within(drawn(), rng):
                if code.tobytes() not in known:
                    return code
        return None

    def _mutations(self, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._space.mutate(codes, rng, _MUTATION_PROB, _RESOLUTION_PROB)

    def _pulled_within(self, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The codes; those over a budget with as many choices of an arch within as it takes."""
        codes = codes.astype(np.int32)
        for share in _PULLS:
            over = self._over(codes)
            far = codes[over]
            pulled = np.where(rng.random(far.shape) < share, self._within, far)
            # Where the one that was drawn has the position off, the other's choice counts.
            pulled = np.where(pulled == OFF, np.maximum(self._within, far), pulled)
            codes[over] = self._space.canonical(pulled)
        return codes

    def _over(self, codes: np.ndarray) -> np.ndarray:
        """Which codes break a constraint: bool (n,)."""
        over = np.zeros(len(codes), bool)
        for measure, budget in self._constraints.values():
            over |= ~(measure(codes) <= budget)
        return over


# -- archs as hyperparameters -------------------------------------------------------------------


def _names(space: SearchSpace) -> dict[str, list[str]]:
    """The names of the hyperparameters of each field of an Arch that holds several values."""
    largest = space.max()
    return {
        field: [f"{field}[{place}]" for place in range(len(getattr(largest, field)))]
        for field in _LISTS
    }


def _values(space: SearchSpace, code: np.ndarray) -> dict[str, float]:
    """The values of an arch's hyperparameters, by their names."""
    arch = space.decode(code[None])[0]
    values = {}
    for field, names in _names(space).items():
        kind = _kind(space, field)
        values |= zip(names, map(kind, getattr(arch, field)), strict=True)
    return values | {"resolution": arch.resolution}


def _kind(space: SearchSpace, field: str) -> type:
    """keras-tuner wants the values of a choice to be of one type."""
    return float if any(isinstance(value, float) for value in getattr(space, field)) else int


def _hyperparameters(space: SearchSpace) -> keras_tuner.HyperParameters:
    """A Choice for each choice of an arch; the defaults are those of the largest arch.

    They have no conditions: keras-tuner prints a line for each condition that it sends.
    """
    found = keras_tuner.HyperParameters()
    least, most = (_values(space, space.encode([arch])[0]) for arch in (space.min(), space.max()))
    for field, names in _names(space).items():
        for place, name in enumerate(names):
            if field == "depths":
                choices = [space.depth_choices[place][i] for i in space.allowed("depth", place)]
            else:
                off = [0] if field != "widths" and least[name] == 0 else []
                choices = off + list(getattr(space, field))
            kind = _kind(space, field)
            found.Choice(name, [kind(choice) for choice in choices], default=most[name])
    found.Choice("resolution", list(space.resolutions), default=most["resolution"])
    return found


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
