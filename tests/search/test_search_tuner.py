"""EvolutionOracle and SubnetTuner: what is proposed, and that nothing is lost on the way."""

from __future__ import annotations

import gc
import itertools
import json
import math
import pathlib
import subprocess
import sys
import weakref

import keras_tuner
import numpy as np
import pytest
from search_helpers import RESNET, SMALL, TINY, all_codes, made_up_accuracy

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.search import EvolutionOracle, SubnetTuner
from ofa_tf.search import tuner as tuner_module
from ofa_tf.spaces import BlockCosts, get_space

FEW = {"max_trials": 12, "population_size": 5, "sample_size": 2}


def macs_of(space):
    return BlockCosts(space, lambda block, resolution: block.macs, num_classes=10)


def params_of(space):
    return BlockCosts(space, lambda block, resolution: block.params, num_classes=10)


def budget_of(space, measure, share):
    least, most = measure.minimum()[0], measure(space.encode([space.max()]))[0]
    return least + share * (most - least)


def evaluation(space):
    accuracy = made_up_accuracy(space)
    return lambda arch: float(accuracy(space.encode([arch]))[0])


def searched(folder, space=TINY, constraints=None, evaluate=None, **settings):
    """A tuner that has run all of its trials."""
    oracle = EvolutionOracle(space, constraints, **(FEW | settings))
    tuner = SubnetTuner(oracle, evaluate or evaluation(space), directory=folder)
    tuner.search(verbose=0)
    return tuner


def archs_and_scores(tuner):
    return [(tuner.oracle.arch(trial), trial.score) for trial in tuner.oracle.trials.values()]


# -- what is proposed ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_finds_nearly_the_best_of_a_small_space(seed, tmp_path):
    accuracies = np.sort(made_up_accuracy(SMALL)(all_codes(SMALL)))
    tuner = searched(tmp_path, SMALL, seed=seed, max_trials=150, population_size=20, sample_size=5)
    best = tuner.oracle.get_best_trials()[0].score
    # 150 random archs of 16,000 miss the best ten nine times in ten.
    assert len(accuracies) == SMALL.num_subnets == 16_000
    assert best >= accuracies[-10]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.4])
@pytest.mark.parametrize("name", ["ofa_mbv3_tiny", "ofa_mbv3_w1.0", "ofa_resnet50"])
def test_no_arch_breaks_a_constraint_or_comes_twice(name, share, tmp_path):
    space = get_space(name)
    measures = {"macs": macs_of(space), "params": params_of(space)}
    constraints = {
        "macs": (measures["macs"], budget_of(space, measures["macs"], share)),
        "params": (measures["params"], budget_of(space, measures["params"], share + 0.1)),
    }
    tuner = searched(tmp_path, space, constraints, max_trials=25)
    trials = tuner.oracle.trials.values()
    archs = [tuner.oracle.arch(trial) for trial in trials]
    assert len(set(archs)) == len(archs) == (25 if share else len(archs))
    for arch, trial in zip(archs, trials, strict=True):
        plan = space.blueprint(arch, 10)
        assert plan.macs <= constraints["macs"][1]
        assert plan.params <= constraints["params"][1]
        assert trial.metrics.get_best_value("macs") == plan.macs
        assert tuner.oracle.measures(arch) == {"macs": plan.macs, "params": plan.params}


@pytest.mark.parametrize("space", [SMALL, RESNET], ids=lambda space: space.name)
def test_an_exhausted_space_ends_the_search_when_all_archs_were_tried(space, tmp_path):
    macs, codes = macs_of(space), all_codes(space)
    budget = np.sort(macs(codes))[15]
    within = codes[macs(codes) <= budget]
    tuner = searched(tmp_path, space, {"macs": (macs, budget)}, max_trials=100)
    assert {arch for arch, _ in archs_and_scores(tuner)} == set(space.decode(within))


def test_a_space_of_two_archs_is_exhausted_without_constraints(tmp_path):
    two = TINY.restrict([1], [3], [2], TINY.resolutions[:2])
    assert two.num_subnets == len(archs_and_scores(searched(tmp_path, two))) == 2


def test_equal_seeds_give_equal_trials(tmp_path):
    runs = [
        archs_and_scores(searched(tmp_path / str(number), seed=seed))
        for number, seed in enumerate((0, 0, 1))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_parents_are_the_best_of_the_trials_completed_last(tmp_path, monkeypatch):
    parents, draw = [], tuner_module._FreshArchs.draw

    def watched(self, parent, *args):
        parents.append(parent)
        return draw(self, parent, *args)

    monkeypatch.setattr(tuner_module._FreshArchs, "draw", watched)
    # The earlier the better: with as many competitors as there are, the oldest has offspring.
    ages = itertools.count()
    tuner = searched(tmp_path, evaluate=lambda arch: -next(ages), population_size=4, sample_size=4)
    codes = TINY.encode([arch for arch, _ in archs_and_scores(tuner)])
    assert parents[:4] == [None] * 4
    assert np.array_equal(parents[4:], codes[: len(codes) - 4])


def test_an_objective_may_be_minimized(tmp_path):
    tuner = searched(
        tmp_path, SMALL, objective=keras_tuner.Objective("error", "min"), max_trials=100
    )
    scores = [trial.score for trial in tuner.oracle.trials.values()]
    assert np.mean(scores[:10]) > np.mean(scores[-10:])
    assert tuner.oracle.get_best_trials()[0].score == min(scores)


@pytest.mark.parametrize("name", ["ofa_mbv3_tiny", "ofa_proxyless_w1.3", "ofa_resnet50"])
def test_an_arch_survives_json_and_the_way_to_a_worker(name, tmp_path):
    space = get_space(name)
    tuner = searched(tmp_path, space)
    for trial in tuner.oracle.trials.values():
        arch = tuner.oracle.arch(trial)
        assert tuner.oracle.arch(type(trial).from_proto(trial.to_proto())) == arch
        state = json.loads(json.dumps(trial.get_state()))
        assert tuner.oracle.arch(type(trial).from_state(state)) == arch
        for name, value in trial.hyperparameters.values.items():
            choices = {hp.name: hp for hp in tuner.oracle.get_space().space}
            assert value in choices[name].values
            assert type(value) is type(choices[name].default)


# -- going on -----------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a search as SIGKILL does: nothing of keras-tuner catches it."""


def test_a_search_that_is_killed_at_any_write_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    settings = {"max_trials": 4, "population_size": 2}
    expected = archs_and_scores(searched(tmp_path / "whole", **settings))
    write = tuner_module.write_bytes
    for number in itertools.count():
        written, evaluated = itertools.count(), []

        def write_or_die(path, content, written=written, number=number):
            if next(written) == number:
                raise Killed
            write(path, content)

        def evaluate(arch, evaluated=evaluated):
            evaluated.append(arch)
            return evaluation(TINY)(arch)

        monkeypatch.setattr(tuner_module, "write_bytes", write_or_die)
        folder = tmp_path / str(number)
        try:
            searched(folder, evaluate=evaluate, **settings)
        except Killed:
            monkeypatch.setattr(tuner_module, "write_bytes", write)
            tuner = searched(folder, evaluate=evaluate, **settings)
        else:
            break
        assert archs_and_scores(tuner) == expected
        assert len(evaluated) <= len(expected) + 1
        assert tuner.remaining_trials == 0
    assert number > 4 * len(expected)


def test_more_trials_go_on_with_a_finished_search(tmp_path):
    few = archs_and_scores(searched(tmp_path / "a", max_trials=9))
    more = archs_and_scores(searched(tmp_path / "a", max_trials=11))
    assert more == archs_and_scores(searched(tmp_path / "b", max_trials=11))
    assert more[:9] == few
    assert archs_and_scores(searched(tmp_path / "a", max_trials=2)) == more


def test_a_finished_search_evaluates_nothing(tmp_path):
    done = archs_and_scores(searched(tmp_path))
    assert archs_and_scores(searched(tmp_path, evaluate=lambda arch: 1 / 0)) == done


def test_a_folder_that_looks_like_a_pattern(tmp_path):
    searched(tmp_path / "job1", seed=1)  # of which the other is a pattern
    few = archs_and_scores(searched(tmp_path / "job[1]", max_trials=9))
    more = archs_and_scores(searched(tmp_path / "job[1]", max_trials=11))
    assert (more[:9], len(more)) == (few, 11)


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    macs = macs_of(TINY)
    searched(tmp_path, constraints={"macs": (macs, 9e5)})
    with pytest.raises(UsageError, match=r"holds another search: budgets was .*900000.*, is .*8e"):
        searched(tmp_path, constraints={"macs": (macs, 8e16)})
    with pytest.raises(UsageError, match=r"resolutions was \[24, 28, 32\], is \[24\].*overwrite"):
        searched(tmp_path, TINY.restrict(resolutions=[24]))


def test_overwrite_begins_anew(tmp_path):
    searched(tmp_path)
    oracle = EvolutionOracle(TINY, **FEW, seed=1)
    tuner = SubnetTuner(oracle, evaluation(TINY), directory=tmp_path, overwrite=True)
    assert tuner.remaining_trials == FEW["max_trials"]


# -- failures -----------------------------------------------------------------------------------


def test_failed_trials_are_passed_over(tmp_path):
    accuracy, number = evaluation(TINY), itertools.count()

    def evaluate(arch):
        return accuracy(arch) if next(number) % 3 else 1 / 0

    tuner = searched(tmp_path, evaluate=evaluate)
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["FAILED", "COMPLETED", "COMPLETED"] * 4
    assert len({arch for arch, _ in archs_and_scores(tuner)}) == 12
    assert len(tuner.best_archs(20)) == 8


@pytest.mark.filterwarnings("ignore:All-NaN axis")  # keras-tuner's own, of a trial's best value
def test_a_retry_counts_in_place_of_what_failed(tmp_path):
    values = itertools.chain.from_iterable((math.nan, 0.25 + i / 100) for i in range(12))
    tuner = searched(tmp_path, evaluate=lambda arch: next(values), max_retries_per_trial=1)
    assert [score for _, score in archs_and_scores(tuner)] == [0.25 + i / 100 for i in range(12)]


def test_too_many_failures_end_the_search_and_it_goes_on_when_they_are_mended(tmp_path):
    def broken(arch):
        raise OSError("the disk is gone")

    with pytest.raises(FailureError, match=r"3 trials in a row failed.*the disk is gone"):
        searched(tmp_path, evaluate=broken)
    tuner = searched(tmp_path)
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["FAILED"] * 3 + ["COMPLETED"] * 9


def test_an_unreachable_budget_is_refused_with_the_least_one():
    macs = macs_of(TINY)
    with pytest.raises(UsageError, match="No subnet of ofa_mbv3_tiny has macs <= 5"):
        EvolutionOracle(TINY, {"macs": (macs, 5.0)})


@pytest.mark.parametrize("sizes", [(5, 6), (0, 0), (5, 0)])
def test_a_sample_is_of_the_population(sizes):
    with pytest.raises(UsageError, match=r"population_size=[05], sample_size=[06]"):
        EvolutionOracle(TINY, population_size=sizes[0], sample_size=sizes[1])


# -- as any keras-tuner tuner -------------------------------------------------------------------


def test_the_oracle_serves_a_users_own_tuner(tmp_path):
    rates = []

    class Training(keras_tuner.Tuner):
        def run_trial(self, trial, **_):
            rates.append(trial.hyperparameters.Float("rate", 0.1, 0.9))
            return {"accuracy": self.oracle.arch(trial).resolution / 100}

    tuner = Training(oracle=EvolutionOracle(TINY, **FEW), directory=tmp_path)
    tuner.search(verbose=0)
    assert rates == [0.1] * 12
    assert tuner.oracle.get_best_trials()[0].score == 0.32


def test_the_summary_has_a_line_for_each_of_the_best(tmp_path, capsys):
    macs = macs_of(TINY)
    tuner = searched(tmp_path, constraints={"macs": (macs, 9e5)})
    best = tuner.oracle.get_best_trials(2)
    assert tuner.best_archs(2) == [tuner.oracle.arch(trial) for trial in best]
    capsys.readouterr()
    tuner.results_summary(2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    arch = tuner.best_archs()[0]
    assert lines[1].startswith(f"trial {best[0].trial_id}: accuracy {best[0].score:.6g}, macs ")
    assert lines[1].endswith(arch.to_json())


def test_models_of_trials_are_not_kept(tmp_path):
    class Model:
        pass

    alive, number = weakref.WeakSet(), itertools.count()

    def evaluate(arch):
        model = Model()
        alive.add(model)
        return 0.5 if next(number) % 2 else 1 / 0

    tuner = searched(tmp_path, evaluate=evaluate)
    gc.collect()
    assert len(tuner.oracle.trials) == 12
    assert not alive


def test_the_room_is_imported_without_keras_tuner():
    code = "import ofa_tf.search, sys; print(*sys.modules)"
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "ofa_tf" in loaded
    assert not loaded & {"keras_tuner", "tensorflow", "keras"}
