"""Channel sorting: the order is by importance within bands, and no trained subnet changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from training_helpers import TINY, random_images, values

from ofa_tf.layers import InvertedResidualBlock
from ofa_tf.training.phases import Phase
from ofa_tf.training.sorting import sort_channels

# The phase that was trained before, and the one that sorting prepares.
BOUNDARIES = [("kernel", "expand1"), ("depth2", "expand2"), ("expand1", "expand2")]


def trained_space(before: str):
    return Phase(before, 1, 0.1).restrict(TINY)


def elastic_blocks(supernet):
    return [
        block
        for block in supernet.blocks
        if isinstance(block, InvertedResidualBlock) and block.plan.position is not None
    ]


def importances(block) -> list[np.ndarray]:
    """L1 norms of the middle channels, and of squeeze-excite's where there is one."""
    kernels = [block.project_conv.kernel]
    if block.plan.se_channels:
        kernels.append(block.squeeze_excite.expand.kernel)
    return [np.abs(kernel.numpy()).sum(axis=(0, 1, 3)) for kernel in kernels]


def bands(space, block) -> list[list[int]]:
    """The edges between which channels may move: the widths that the space's archs have."""
    plans = [
        TINY.uniform_blueprint(0, 0, TINY.expand_ratios.index(expand), 4).elastic_blocks
        for expand in space.expand_ratios
    ]
    own = [plan[block.plan.position] for plan in plans]
    widths = [sorted({b.mid_channels for b in own}), sorted({b.se_channels for b in own})]
    return [[0, *edges] for edges in widths]


@pytest.mark.parametrize(("before", "after"), BOUNDARIES)
def test_trained_subnets_stay_as_they_were(supernet, before, after):
    trained = trained_space(before)
    rng = np.random.default_rng(0)
    archs = [TINY.max(), trained.min(), *(trained.sample(rng) for _ in range(6))]
    images = {side: random_images(4, side) for side in TINY.resolutions}
    expected = [supernet(images[arch.resolution], arch).numpy() for arch in archs]
    weights = values(supernet.weights)
    narrow = Phase(after, 1, 0.1).restrict(TINY).min()
    untrained = supernet(images[narrow.resolution], narrow).numpy()

    sort_channels(supernet, trained)

    for arch, outputs in zip(archs, expected, strict=True):
        assert np.std(outputs, axis=0).min() > 1e-3  # the images tell
        found = supernet(images[arch.resolution], arch).numpy()
        np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-4)
    # It was not for lack of sorting: weights moved, and a subnet that was not trained yet differs.
    moved = [
        not np.array_equal(a, b) for a, b in zip(weights, values(supernet.weights), strict=True)
    ]
    assert any(moved)
    assert np.abs(supernet(images[narrow.resolution], narrow) - untrained).max() > 1e-2


@pytest.mark.parametrize(("before", "after"), BOUNDARIES)
def test_order_is_by_l1_norm_within_bands(supernet, before, after):
    trained = trained_space(before)
    unsorted = [importances(block) for block in elastic_blocks(supernet)]
    sort_channels(supernet, trained)
    with_se = 0
    for block, old in zip(elastic_blocks(supernet), unsorted, strict=True):
        with_se += len(old) - 1
        edges_of = bands(trained, block)
        for norms, old_norms, edges in zip(importances(block), old, edges_of, strict=False):
            for start, end in itertools.pairwise(edges):
                band = norms[start:end]
                assert np.all(np.diff(band) <= 1e-5)
                # The same channels are in the band as before.
                np.testing.assert_allclose(np.sort(band), np.sort(old_norms[start:end]), rtol=1e-5)
    assert with_se > 0


def test_sorting_again_changes_nothing(supernet):
    trained = trained_space("kernel")
    sort_channels(supernet, trained)
    once = values(supernet.weights)
    sort_channels(supernet, trained)
    for a, b in zip(once, values(supernet.weights), strict=True):
        np.testing.assert_array_equal(a, b)
