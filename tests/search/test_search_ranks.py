"""Rank correlations against their definitions, pair by pair."""

import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ofa_tf.search.ranks import kendall, spearman

pairs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=30)


@hypothesis.given(pairs)
def test_kendall_counts_pairs(drawn):
    score = ties_a = ties_b = total = 0
    for (a, b), (c, d) in itertools.combinations(drawn, 2):
        total += 1
        score += ((a > c) - (a < c)) * ((b > d) - (b < d))
        ties_a += a == c
        ties_b += b == d
    scale = math.sqrt((total - ties_a) * (total - ties_b))
    found = kendall(*np.array(drawn).T)
    assert math.isnan(found) if scale == 0 else found == pytest.approx(score / scale)


@hypothesis.given(pairs)
def test_spearman_correlates_mean_ranks(drawn):
    columns = np.array(drawn).T
    ranks = [
        [sum(o < v for o in column) + (sum(o == v for o in column) + 1) / 2 for v in column]
        for column in columns.tolist()
    ]
    found = spearman(*columns)
    if min(map(np.ptp, columns)) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(ranks)[0, 1])
