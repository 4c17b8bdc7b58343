"""The Pareto front against brute force."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from search_helpers import RESNET, SMALL, all_codes, made_up_accuracy

from ofa_tf.search import pareto_front, predicted_front
from ofa_tf.spaces import BlockCosts

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


@pytest.mark.parametrize("space", [SMALL, RESNET], ids=lambda space: space.name)
def test_predicted_front_is_the_true_front_of_a_small_space(space):
    accuracy, macs = (
        made_up_accuracy(space),
        BlockCosts(space, lambda block, resolution: block.macs, 10),
    )
    codes, costs, values = predicted_front(space, accuracy, macs)
    everything = all_codes(space)
    best = pareto_front(macs(everything), accuracy(everything))
    np.testing.assert_array_equal(costs, macs(everything)[best])
    np.testing.assert_array_equal(values, accuracy(everything)[best])
    np.testing.assert_array_equal(costs, macs(codes))
