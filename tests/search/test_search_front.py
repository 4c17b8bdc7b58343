"""The Pareto front against brute force."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from search_helpers import RESNET, SMALL, all_codes, made_up_accuracy

from ofa_tf.errors import UsageError
from ofa_tf.search import evolve, pareto_front, predicted_front
from ofa_tf.search.front import _survivors
from ofa_tf.spaces import BlockCosts, get_space

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40)


@hypothesis.given(points)
def test_front_is_what_brute_force_says(drawn):
    costs, values = np.array(drawn, float).T
    expected = {
        (c, v)
        for c, v in zip(costs, values, strict=True)
        if not ((costs <= c) & (values >= v) & ((costs < c) | (values > v))).any()
    }
    front = pareto_front(costs, values)
    found = list(zip(costs[front], values[front], strict=True))
    assert found == sorted(expected)


def rank(costs, values):
    """The number of the front of each point, by brute force."""
    ranks = np.full(len(costs), -1)
    for number in range(len(costs)):
        left = ranks < 0
        beaten = (
            (costs[None] <= costs[:, None])
            & (values[None] >= values[:, None])
            & ((costs[None] < costs[:, None]) | (values[None] > values[:, None]))
            & left[None]
        ).any(axis=1)
        ranks[left & ~beaten] = number
    return ranks


@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_survivors_are_of_the_best_fronts_and_spread(seed, count):
    costs, values = np.random.default_rng(seed).random((2, 30))
    kept = _survivors(costs, values, count)
    assert len(set(kept)) == count
    ranks = rank(costs, values)
    worst = ranks[kept].max()
    assert set(np.flatnonzero(ranks < worst)) <= set(kept)
    last = kept[ranks[kept] == worst]
    if len(last) >= 2:  # both ends of the front that was cut are in
        front = np.flatnonzero(ranks == worst)
        assert {front[costs[front].argmin()], front[costs[front].argmax()]} <= set(last)


def macs_of(space):
    return BlockCosts(space, lambda block, resolution: block.macs, 10)


@pytest.mark.parametrize("space", [SMALL, RESNET], ids=lambda space: space.name)
def test_predicted_front_is_the_true_front_of_a_small_space(space):
    accuracy, macs = made_up_accuracy(space), macs_of(space)
    codes, costs, values = predicted_front(space, accuracy, macs)
    everything = all_codes(space)
    best = pareto_front(macs(everything), accuracy(everything))
    np.testing.assert_array_equal(costs, macs(everything)[best])
    np.testing.assert_allclose(values, accuracy(everything)[best])
    np.testing.assert_array_equal(costs, macs(codes))


def test_all_of_the_front_keeps_the_constraints():
    accuracy, macs = made_up_accuracy(SMALL), macs_of(SMALL)
    params = BlockCosts(SMALL, lambda block, resolution: block.params, 10)
    everything = all_codes(SMALL)
    limit = float(np.median(params(everything)))
    within = everything[params(everything) <= limit]
    best = pareto_front(macs(within), accuracy(within))
    codes, costs, _ = predicted_front(
        SMALL, accuracy, macs, constraints={"params": (params, limit)}
    )
    np.testing.assert_array_equal(costs, macs(within)[best])
    assert (params(codes) <= limit).all()


def test_the_front_of_a_large_space_spans_it_and_is_the_same_again():
    space = get_space("ofa_mbv3_w1.0")
    accuracy, macs = made_up_accuracy(space), macs_of(space)
    codes, costs, values = predicted_front(space, accuracy, macs, effort="low")
    assert costs[0] == macs.minimum()[0]
    assert values[-1] >= evolve(space, accuracy, {}).accuracy - 1e-9
    assert (np.diff(costs) > 0).all()
    assert (np.diff(values) > 0).all()
    assert np.diff(costs).max() < 0.1 * np.ptp(costs)
    again, _, _ = predicted_front(space, accuracy, macs, effort="low")
    np.testing.assert_array_equal(codes, again)


def test_archs_of_unknown_accuracy_are_not_in_the_front():
    macs, accuracy = macs_of(SMALL), made_up_accuracy(SMALL)
    only = SMALL.allowed("resolution")[-1]
    codes, _, _ = predicted_front(
        SMALL, lambda codes: np.where(codes[:, -1] == only, accuracy(codes), np.nan), macs
    )
    assert set(codes[:, -1]) == {only}
    with pytest.raises(UsageError, match="predictor knows none of the archs of ofa_mbv3_tiny"):
        predicted_front(SMALL, lambda codes: np.full(len(codes), np.nan), macs)
    with pytest.raises(UsageError, match="effort is one of low, normal, high"):
        predicted_front(SMALL, accuracy, macs, effort="none")
