"""evolve: budgets are met, results are the best there are and the same again."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from search_helpers import RESNET, SMALL, TINY, all_codes, made_up_accuracy

from ofa_tf.errors import UsageError
from ofa_tf.search import check_reachable, evolve
from ofa_tf.spaces import BlockCosts, get_space

SPACES = ["ofa_mbv3_tiny", "ofa_mbv3_w1.0", "ofa_resnet50"]
QUICK = {"population": 40, "generations": 30, "patience": 10}


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
    result = evolve(space, accuracy, {"macs": (macs, budget)}, population=100)
    assert result.accuracy == pytest.approx(accuracy(codes[costs <= budget]).max())


def test_equal_seeds_give_equal_results():
    macs = macs_of(TINY)
    constraints = {"macs": (macs, 1.7 * macs.minimum()[0])}
    results = [
        evolve(TINY, made_up_accuracy(TINY), constraints, seed=seed, generations=3)
        for seed in (5, 5, 6)
    ]
    assert results[0] == results[1] != results[2]


def test_a_generation_has_no_arch_twice_and_none_over_the_budget():
    macs, accuracy, seen = macs_of(TINY), made_up_accuracy(TINY), []
    budget = 1.2 * macs.minimum()[0]

    def watched(codes):
        seen.append(codes)
        return accuracy(codes)

    evolve(TINY, watched, {"macs": (macs, budget)}, **QUICK)
    assert len(seen) > 5
    for codes in seen:
        assert len(np.unique(codes, axis=0)) == len(codes)
        assert (macs(codes) <= budget).all()
        assert (codes == TINY.canonical(codes)).all()


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


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.5, 0.999999, float("nan")])
def test_an_unreachable_budget_names_the_exact_minimum(share):
    macs = macs_of(SMALL)
    least = macs(all_codes(SMALL)).min()
    with pytest.raises(
        UsageError, match=r"ofa_mbv3_tiny has macs <=.*least that one can have is"
    ) as e:
        evolve(SMALL, made_up_accuracy(SMALL), {"macs": (macs, share * least)})
    named = float(str(e.value).split()[-1].rstrip("."))
    assert least <= named <= 1.002 * least
    assert evolve(SMALL, made_up_accuracy(SMALL), {"macs": (macs, named)}, generations=1)


def test_budgets_that_exclude_each_other_are_refused():
    macs = macs_of(SMALL)
    negated = BlockCosts(SMALL, lambda block, resolution: -block.macs, 10)
    budgets = {"macs": (macs, 1.01 * macs.minimum()[0]), "negated": (negated, -1e6)}
    with pytest.raises(UsageError, match=r"meets all of macs <= .*, negated <= -1e\+06"):
        evolve(SMALL, made_up_accuracy(SMALL), budgets, **QUICK)


def test_a_measure_of_another_space_is_refused():
    with pytest.raises(UsageError, match="macs is of ofa_mbv3_tiny or of another restriction"):
        evolve(SMALL, made_up_accuracy(SMALL), {"macs": (macs_of(TINY), 1e9)})
