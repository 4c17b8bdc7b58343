"""evolve: budgets are met, results are the best there are and the same again."""

import itertools
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from search_helpers import RESNET, SMALL, TINY, all_codes, made_up_accuracy

from ofa_tf.errors import UsageError
from ofa_tf.search import check_reachable, evolve, evolve_many
from ofa_tf.search.budgets import Budgets
from ofa_tf.search.evolution import SearchResult
from ofa_tf.search.population import Populations, first_generation
from ofa_tf.spaces import BlockCosts, get_space

SPACES = ["ofa_mbv3_tiny", "ofa_mbv3_w1.0", "ofa_resnet50"]
QUICK = {"effort": "low"}


LARGE = get_space("ofa_mbv3_w1.0")


def rugged_accuracy(space, seed=0):
    """An accuracy of codes in which choices depend on each other, as in a fitted predictor."""
    rng = np.random.default_rng(seed)
    width = space.one_hot(space.encode([space.max()])).shape[1]
    hidden, output = rng.normal(size=(width, 32)), rng.normal(size=32)
    return lambda codes: np.maximum(space.one_hot(codes) @ hidden, 0) @ output


def macs_of(space):
    return BlockCosts(space, lambda block, resolution: block.macs, num_classes=10)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), name=st.sampled_from(SPACES)
)
def test_every_reachable_budget_is_met_in_the_space(seed, share, name):
    space = get_space(name)
    macs = macs_of(space)
    least, most = macs.minimum()[0], macs(space.encode([space.max()]))[0]
    budget = least + share * (most - least)
    result = evolve(space, made_up_accuracy(space), {"macs": (macs, budget)}, seed=seed, **QUICK)
    assert result.measures["macs"] <= budget
    assert result.measures["macs"] == space.blueprint(result.arch, 10).macs
    found = made_up_accuracy(space)(space.encode([result.arch]))[0]
    assert result.accuracy == pytest.approx(found)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.8])
@pytest.mark.parametrize("space", [SMALL, RESNET], ids=lambda space: space.name)
def test_finds_the_best_of_all_archs_of_a_small_space(space, share):
    codes, accuracy, macs = all_codes(space), made_up_accuracy(space), macs_of(space)
    assert len(codes) == space.num_subnets
    costs = macs(codes)
    budget = costs.min() + share * np.ptp(costs)
    result = evolve(space, accuracy, {"macs": (macs, budget)})
    assert result.accuracy == pytest.approx(accuracy(codes[costs <= budget]).max())


def test_equal_seeds_give_equal_results():
    macs = macs_of(LARGE)
    constraints = {"macs": (macs, 1.7 * macs.minimum()[0])}
    results = [
        evolve(LARGE, rugged_accuracy(LARGE), constraints, seed=seed, num_candidates=4, **QUICK)
        for seed in (5, 5, 6)
    ]
    assert results[0] == results[1] != results[2]


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(SPACES))
def test_no_arch_is_twice_among_those_that_are_predicted_together(seed, name):
    space = get_space(name)
    macs, accuracy, seen = macs_of(space), made_up_accuracy(space), []
    budget = 1.2 * macs.minimum()[0]

    def watched(codes):
        seen.append(codes)
        return accuracy(codes)

    evolve(space, watched, {"macs": (macs, budget)}, seed=seed, **QUICK)
    assert len(seen) > 5
    for codes in seen:
        assert (codes == space.canonical(codes)).all()
        assert len(np.unique(codes, axis=0)) == len(codes)


def test_only_archs_within_the_budget_have_children():
    macs, accuracy = macs_of(LARGE), rugged_accuracy(LARGE)
    budget = 1.5 * macs.minimum()[0]
    budgets = Budgets(LARGE, {"macs": macs}, [{"macs": budget}])
    rng = np.random.default_rng(0)
    populations = Populations(budgets, accuracy, first_generation(budgets, 400, rng), 20)
    best = []
    for _ in populations.generations(10, 10, 60, rng):
        codes = populations.archs.codes
        assert len(codes) == 20 == len(np.unique(codes, axis=0))
        assert (macs(codes) <= budget).all()
        best.append(populations.best[0])
    assert best == sorted(best)
    assert best[0] < best[-1]


def test_without_a_constraint_the_best_of_the_space_is_found():
    accuracy = made_up_accuracy(SMALL)
    result = evolve(SMALL, accuracy, {})
    assert result.accuracy == pytest.approx(accuracy(all_codes(SMALL)).max())
    assert result.measures == {}


def test_several_budgets_are_met_together():
    macs, params = macs_of(TINY), BlockCosts(TINY, lambda block, resolution: block.params, 10)
    budgets = {
        "macs": (macs, 1.1 * macs.minimum()[0]),
        "params": (params, 1.1 * params.minimum()[0]),
    }
    result = evolve(TINY, made_up_accuracy(TINY), budgets, **QUICK)
    for name, (_, budget) in budgets.items():
        assert result.measures[name] <= budget


def test_a_budget_can_be_checked_before_the_search():
    macs = macs_of(SMALL)
    least, code = macs.minimum()
    assert (check_reachable(SMALL, "macs", macs, least) == code).all()
    with pytest.raises(UsageError, match="has macs <= "):
        check_reachable(SMALL, "macs", macs, least - 1)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999999])
def test_an_unreachable_budget_names_the_exact_minimum(share):
    macs = macs_of(SMALL)
    least = macs(all_codes(SMALL)).min()
    with pytest.raises(
        UsageError, match=r"ofa_mbv3_tiny has macs <=.*least that one can have is"
    ) as e:
        evolve(SMALL, made_up_accuracy(SMALL), {"macs": (macs, share * least)})
    named = float(str(e.value).split()[-1].rstrip("."))
    assert least <= named <= 1.002 * least
    assert evolve(SMALL, made_up_accuracy(SMALL), {"macs": (macs, named)}, **QUICK)


@pytest.mark.parametrize("budget", [0, -1.5, float("nan"), float("inf"), "25", None])
def test_a_budget_is_a_positive_finite_number(budget):
    macs = macs_of(SMALL)
    with pytest.raises(UsageError, match=f"budget of macs is a positive number, not {budget!r}"):
        evolve(SMALL, made_up_accuracy(SMALL), {"macs": (macs, budget)})
    with pytest.raises(UsageError, match="budget of macs is a positive number"):
        check_reachable(SMALL, "macs", macs, budget)


class Opposed:
    """A measure that is the lower the more computations an arch has: macs' opponent."""

    def __init__(self, space):
        self.space, self._negated = space, BlockCosts(space, lambda b, resolution: -b.macs, 10)
        self._most = 1.1 * -self._negated.minimum()[0]

    def __call__(self, codes):
        return self._most + self._negated(codes)

    def minimum(self):
        least, code = self._negated.minimum()
        return self._most + least, code


def test_budgets_that_exclude_each_other_name_the_least_that_was_found():
    macs, opposed, accuracy = macs_of(SMALL), Opposed(SMALL), made_up_accuracy(SMALL)
    codes = all_codes(SMALL)
    limits = {"macs": 1.3 * macs.minimum()[0], "opposed": 1.3 * opposed.minimum()[0]}
    constraints = {"macs": (macs, limits["macs"]), "opposed": (opposed, limits["opposed"])}
    with pytest.raises(UsageError, match=r"meets macs <= .* and opposed <= .* together") as error:
        evolve(SMALL, accuracy, constraints)
    least = re.search(r"met: macs (\S+), opposed (\S+)\. Raise", str(error.value))
    named = dict(zip(limits, map(float, least.groups()), strict=True))
    true = {
        "macs": macs(codes)[opposed(codes) <= limits["opposed"]].min(),
        "opposed": opposed(codes)[macs(codes) <= limits["macs"]].min(),
    }
    for name, measure in (("macs", macs), ("opposed", opposed)):
        assert true[name] <= named[name] <= 1.002 * true[name]
        raised = constraints | {name: (measure, named[name])}
        assert evolve(SMALL, accuracy, raised, **QUICK).measures[name] <= named[name]


def test_three_budgets_of_which_two_exclude_each_other():
    macs, opposed = macs_of(SMALL), Opposed(SMALL)
    params = BlockCosts(SMALL, lambda block, resolution: block.params, 10)
    constraints = {
        "macs": (macs, 1.1 * macs.minimum()[0]),
        "opposed": (opposed, 1.1 * opposed.minimum()[0]),
        "params": (params, 1e9),
    }
    with pytest.raises(UsageError, match=r"met: macs \S+, opposed \S+, params none\. Raise"):
        evolve(SMALL, made_up_accuracy(SMALL), constraints)


def test_a_largest_value_can_be_limited():
    peak = BlockCosts(TINY, lambda block, resolution: block.peak_activations, 10, largest=True)
    macs = macs_of(TINY)
    constraints = {
        "peak": (peak, 1.2 * peak.minimum()[0]),
        "macs": (macs, 1.5 * macs.minimum()[0]),
    }
    result = evolve(TINY, made_up_accuracy(TINY), constraints, **QUICK)
    for name, (measure, limit) in constraints.items():
        assert result.measures[name] == measure(TINY.encode([result.arch]))[0] <= limit


def test_a_measure_of_another_space_is_refused():
    with pytest.raises(UsageError, match="macs is of ofa_mbv3_tiny or of another restriction"):
        evolve(SMALL, made_up_accuracy(SMALL), {"macs": (macs_of(TINY), 1e9)})


# -- accuracies that are not known ---------------------------------------------------------------


def known_at(space, resolution):
    """An accuracy that is NaN at other resolutions."""
    index, accuracy = space.root.resolutions.index(resolution), made_up_accuracy(space)
    return lambda codes: np.where(codes[:, -1] == index, accuracy(codes), np.nan)


def test_archs_of_unknown_accuracy_are_left_out():
    macs, middle = macs_of(TINY), TINY.resolutions[len(TINY.resolutions) // 2]
    constraints = {"macs": (macs, 2 * macs.minimum()[0])}
    result = evolve(TINY, known_at(TINY, middle), constraints, num_candidates=5)
    assert {candidate.arch.resolution for candidate in result.candidates} == {middle}
    assert np.isfinite(result.accuracy)


def test_a_budget_within_which_no_accuracy_is_known_is_refused():
    macs = macs_of(TINY)
    constraints = {"macs": (macs, 1.001 * macs.minimum()[0])}
    with pytest.raises(UsageError, match="predictor knows none of the archs of ofa_mbv3_tiny that"):
        evolve(TINY, known_at(TINY, TINY.resolutions[-1]), constraints)


# -- several budgets -----------------------------------------------------------------------------


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    name=st.sampled_from(SPACES),
)
def test_each_of_many_budgets_is_met(seed, shares, name):
    space = get_space(name)
    macs, accuracy = macs_of(space), made_up_accuracy(space)
    least, most = macs.minimum()[0], macs(space.encode([space.max()]))[0]
    budgets = [{"macs": least + share * (most - least)} for share in shares]
    results = evolve_many(
        space, accuracy, {"macs": macs}, budgets, seed=seed, num_candidates=3, **QUICK
    )
    assert len(results) == len(budgets)
    for result, budget in zip(results, budgets, strict=True):
        check_candidates(space, result, {"macs": macs}, budget, accuracy)
    order = np.argsort([budget["macs"] for budget in budgets])
    found = np.array([results[index].accuracy for index in order])
    assert (np.diff(found) >= -1e-12).all()  # what a tight budget has, a looser one may take


def check_candidates(space, result: SearchResult, measures, budget, accuracy):
    first = result.candidates[0]
    assert (first.arch, first.accuracy, first.measures) == (
        result.arch,
        result.accuracy,
        result.measures,
    )
    values = [candidate.accuracy for candidate in result.candidates]
    assert values == sorted(values, reverse=True)
    codes = space.encode([candidate.arch for candidate in result.candidates])
    assert len(np.unique(codes, axis=0)) == len(codes)
    np.testing.assert_allclose(values, accuracy(codes))
    for name, limit in budget.items():
        costs = [candidate.measures[name] for candidate in result.candidates]
        np.testing.assert_allclose(costs, measures[name](codes))
        assert max(costs) <= limit
    assert all(candidate.measures.keys() == budget.keys() for candidate in result.candidates)


def test_budgets_may_be_on_different_measures():
    measures = {"macs": macs_of(TINY), "params": BlockCosts(TINY, lambda b, r: b.params, 10)}
    budgets = [
        {"macs": 1.5 * measures["macs"].minimum()[0]},
        {"params": 1.3 * measures["params"].minimum()[0]},
        {name: 2 * measure.minimum()[0] for name, measure in measures.items()},
        {},
    ]
    accuracy, progress = made_up_accuracy(TINY), []
    results = evolve_many(
        TINY, accuracy, measures, budgets, progress=lambda *p: progress.append(p), **QUICK
    )
    for result, budget in zip(results, budgets, strict=True):
        check_candidates(TINY, result, measures, budget, accuracy)
    assert results[-1].accuracy == max(result.accuracy for result in results)
    done, totals = zip(*progress, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}


def test_candidates_differ_in_several_choices():
    macs = macs_of(LARGE)
    constraints = {"macs": (macs, 2 * macs.minimum()[0])}
    result = evolve(LARGE, rugged_accuracy(LARGE), constraints, num_candidates=8, **QUICK)
    assert len(result.candidates) == 8
    for one, other in itertools.combinations([c.arch for c in result.candidates], 2):
        blocks = zip(
            zip(one.kernel_sizes, one.expand_ratios, strict=True),
            zip(other.kernel_sizes, other.expand_ratios, strict=True),
            strict=True,
        )
        assert sum(a != b for a, b in blocks) + (one.resolution != other.resolution) >= 3


def test_there_are_no_more_candidates_than_archs():
    macs = macs_of(SMALL)
    constraints = {"macs": (macs, macs.minimum()[0])}
    codes = all_codes(SMALL)
    within = codes[macs(codes) <= macs.minimum()[0]]
    result = evolve(SMALL, made_up_accuracy(SMALL), constraints, num_candidates=9, **QUICK)
    assert 1 <= len(result.candidates) <= len(within)


def test_wrong_arguments_are_refused():
    accuracy, measures = made_up_accuracy(SMALL), {"macs": macs_of(SMALL)}
    with pytest.raises(UsageError, match="effort is one of low, normal, high, not 'most'"):
        evolve_many(SMALL, accuracy, measures, [{"macs": 1e9}], effort="most")
    with pytest.raises(UsageError, match="num_candidates is 1 or more, not 0"):
        evolve_many(SMALL, accuracy, measures, [{"macs": 1e9}], num_candidates=0)
    with pytest.raises(UsageError, match="set on latency; known are macs"):
        evolve_many(SMALL, accuracy, measures, [{"latency": 1e9}])
    assert evolve_many(SMALL, accuracy, measures, []) == []
