"""The correction of latency tables: which form is chosen, and what it never does."""

import numpy as np
import pytest
from search_helpers import TINY

from ofa_tf.search.latency import GROUPINGS, fit_correction, relative_errors


def block_ms(block, resolution: int) -> float:
    return 1e-3 + 1e-8 * block.macs


def plans(count: int, seed: int = 0):
    codes = TINY.sample_codes(count, np.random.default_rng(seed))
    return [TINY.blueprint(arch, 10) for arch in TINY.decode(codes)]


def latencies(drawn, slopes, grouping="all", constant=0.0, noise=0.0) -> np.ndarray:
    """What networks would take that slow each kind of block down by a factor."""
    kind_of = GROUPINGS[grouping]
    sums = [
        sum(slopes[kind_of(b)] * block_ms(b, plan.resolution) for b in plan.blocks)
        for plan in drawn
    ]
    scatter = np.random.default_rng(1).normal(1, noise, len(drawn))
    return (np.array(sums) + constant) * scatter


def predict(correction, drawn) -> np.ndarray:
    kind_of = GROUPINGS[correction.grouping]
    return correction.constant_ms + np.array(
        [
            sum(
                correction.slopes.get(kind_of(b), correction.slope) * block_ms(b, plan.resolution)
                for b in plan.blocks
            )
            for plan in drawn
        ]
    )


def test_one_slope_and_a_constant_are_found_exactly():
    drawn = plans(20)
    found = fit_correction(drawn, latencies(drawn, {"all": 1.3}, constant=0.01), block_ms)
    assert (found.grouping, found.slopes) == ("all", {})
    assert found.slope == pytest.approx(1.3)
    assert found.constant_ms == pytest.approx(0.01)
    assert found.errors["all"] < 1e-9


def test_noise_alone_does_not_bring_more_slopes():
    drawn = plans(20)
    measured = latencies(drawn, {"all": 1.3}, constant=0.01, noise=0.02)
    found = fit_correction(drawn, measured, block_ms)
    assert found.grouping == "all"
    assert found.slope == pytest.approx(1.3, rel=0.1)


SLOPES = {"weights": 1.6, "activations": 1.0}


def test_kinds_of_block_that_differ_get_their_own_slopes():
    drawn, unseen = plans(20), plans(50, seed=1)
    measured = latencies(drawn, SLOPES, "weights", noise=0.005)
    truth = latencies(unseen, SLOPES, "weights")
    found = fit_correction(drawn, measured, block_ms)
    assert found.grouping == "weights"
    error = np.abs(predict(found, unseen) / truth - 1).mean()
    assert error < 0.02
    one = found._replace(grouping="all", slopes={})
    assert error < np.abs(predict(one, unseen) / truth - 1).mean() / 2


def test_nothing_is_ever_negative():
    drawn = plans(12)
    sums = latencies(drawn, {"all": 1.0})
    for measured in (sums - 0.9 * sums.min(), sums.max() / sums, np.ones(12)):
        found = fit_correction(drawn, measured, block_ms)
        numbers = [found.slope, found.constant_ms, *found.slopes.values()]
        assert np.isfinite(numbers).all()
        assert min(numbers) >= 0
        assert found.slope > 0


def test_errors_of_predictions():
    errors = relative_errors(np.array([1.0, 2.0, 4.0]), np.array([1.1, 1.8, 4.0]))
    assert errors["n"] == 3
    assert errors["mape"] == pytest.approx(0.2 / 3)
    assert errors["bias"] == pytest.approx(0)
    assert errors["worst"] == pytest.approx(0.1)
    assert errors["kendall"] == pytest.approx(1)
    assert relative_errors(np.ones(2), np.array([1.0, 2.0]))["kendall"] is None
    assert relative_errors(np.empty(0), np.empty(0))["mape"] is None
