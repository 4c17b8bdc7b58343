"""DenseNetwork against a few lines of NumPy on one-hot features."""

import itertools

import numpy as np
import pytest

from ofa_tf.search.dense_network import DenseNetwork
from ofa_tf.spaces import get_space, list_spaces


def random_layers(space, hidden=(24, 16), seed=0):
    rng = np.random.default_rng(seed)
    widths = (space.one_hot(space.encode([space.max()])).shape[1], *hidden, 1)
    return [
        (rng.normal(size=(ins, outs)) / np.sqrt(ins), rng.normal(size=outs))
        for ins, outs in itertools.pairwise(widths)
    ]


def by_hand(space, layers, codes):
    values = space.one_hot(codes).astype(float)
    for kernel, bias in layers[:-1]:
        values = np.maximum(values @ kernel + bias, 0)
    kernel, bias = layers[-1]
    return (values @ kernel + bias)[:, 0]


@pytest.mark.parametrize("hidden", [(), (24, 16)])
@pytest.mark.parametrize("name", list_spaces())
def test_it_is_the_network_on_one_hot_features(name, hidden):
    space = get_space(name)
    layers = random_layers(space, hidden)
    codes = space.sample_codes(1500, np.random.default_rng(1))  # more than a chunk
    found = DenseNetwork(space, layers)(codes)
    assert found.dtype == np.float64
    expected = by_hand(space, layers, codes)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_restriction_answers_at_its_resolutions_only():
    space = get_space("ofa_mbv3_tiny")
    layers, codes = random_layers(space), space.sample_codes(200, np.random.default_rng(2))
    known = space.resolutions[1:3]
    found = DenseNetwork(space.restrict(resolutions=known), layers)(codes)
    inside = np.isin(codes[:, -1], [1, 2])
    assert 0 < inside.sum() < len(codes)
    assert np.isnan(found[~inside]).all()
    np.testing.assert_allclose(found[inside], by_hand(space, layers, codes[inside]), atol=1e-5)


def test_calls_are_equal_and_none_is_no_error():
    space = get_space("ofa_resnet50")
    network, rng = DenseNetwork(space, random_layers(space)), np.random.default_rng(3)
    codes = space.sample_codes(3000, rng)
    first = network(codes)
    network(space.sample_codes(500, rng))
    np.testing.assert_array_equal(network(codes), first)
    assert network(codes[:0]).shape == (0,)
