"""Channel sorting: the order is by importance within bands, and no trained subnet changes."""

from __future__ import annotations

import itertools
import types

import numpy as np
import pytest
from one_stage import TINY
from training_helpers import CLASSES, random_images, randomize, restore, values

from ofa_tf.layers import BottleneckBlock
from ofa_tf.models import Supernet
from ofa_tf.spaces import get_space
from ofa_tf.training.phases import Phase
from ofa_tf.training.sorting import sort_channels

RESNET = get_space("ofa_resnet_tiny")


def trained_in(phase: str, space):
    return Phase(phase, 1, 0.1).restrict(space)


# What was trained before, and what sorting prepares.
BOUNDARIES = {
    "mbv3-kernel-expand1": (trained_in("kernel", TINY), trained_in("expand1", TINY)),
    "mbv3-depth2-expand2": (trained_in("depth2", TINY), TINY),
    "mbv3-expand1-expand2": (trained_in("expand1", TINY), TINY),
    "resnet-largest-expand1": (trained_in("largest", RESNET), trained_in("expand1", RESNET)),
    "resnet-depth2-expand1": (trained_in("depth2", RESNET), trained_in("expand1", RESNET)),
    # With three choices of each, as ofa_resnet50 has, there are such bands in between.
    "resnet-expand ratios-all": (RESNET.restrict(widths=[1]), RESNET),
    "resnet-widths-all": (RESNET.restrict(expand_ratios=[0.5]), RESNET),
}


@pytest.fixture(scope="module")
def resnet() -> Supernet:
    return Supernet(RESNET, len(CLASSES))


@pytest.fixture(params=BOUNDARIES)
def boundary(request):
    """What was trained, what comes next, and a supernet that is put back after the test."""
    trained, opened = BOUNDARIES[request.param]
    name = "resnet" if trained.root is RESNET else "shared_supernet"
    supernet = request.getfixturevalue(name)
    randomize(supernet)
    before = values(supernet.variables)
    yield trained, opened, supernet
    restore(supernet.variables, before)


def elastic_blocks(supernet):
    positions = (getattr(block.plan, "position", None) for block in supernet.blocks)
    return [b for b, p in zip(supernet.blocks, positions, strict=True) if p is not None]


def importances(block) -> list[tuple[str, np.ndarray]]:
    """L1 norms of the middle channels, both rows of a bottleneck's, and of squeeze-excite's."""
    if isinstance(block, BottleneckBlock):
        readers = [("mid_channels", block.spatial_conv), ("mid_channels", block.widen_conv)]
    else:
        readers = [("mid_channels", block.project_conv)]
        if block.plan.se_channels:
            readers.append(("se_channels", block.squeeze_excite.expand))
    return [
        (size, np.abs(layer.kernel.numpy()).sum(axis=(0, 1, 3)).astype(np.float64))
        for size, layer in readers
    ]


def edges(space, block, size: str) -> list[int]:
    """Between these channels may move: the widths that the space's archs have there."""
    found = {0}
    for expand, width in itertools.product(space.expand_ratios, space.widths or [None]):
        uniform = space.root.restrict(
            expand_ratios=[expand], widths=None if width is None else [width]
        )
        blocks = uniform.blueprint(uniform.max(), 4).elastic_blocks
        found.add(getattr(blocks[block.plan.position], size))
    return sorted(found)


def test_trained_subnets_stay_as_they_were(boundary):
    trained, opened, supernet = boundary
    rng = np.random.default_rng(0)
    archs = [trained.max(), trained.min(), *(trained.sample(rng) for _ in range(6))]
    images = {side: random_images(4, side) for side in trained.resolutions}
    expected = [supernet(images[arch.resolution], arch).numpy() for arch in archs]
    weights = values(supernet.weights)
    narrow = opened.min()
    untrained = supernet(images[narrow.resolution], narrow).numpy()

    sort_channels(supernet, trained)

    for arch, outputs in zip(archs, expected, strict=True):
        assert np.std(outputs, axis=0).min() > 1e-3  # the images tell
        found = supernet(images[arch.resolution], arch).numpy()
        np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-4 * np.abs(outputs).max())
    # It was not for lack of sorting: weights moved, and a subnet that was not trained yet differs.
    moved = [
        not np.array_equal(a, b) for a, b in zip(weights, values(supernet.weights), strict=True)
    ]
    assert any(moved)
    assert np.abs(supernet(images[narrow.resolution], narrow) - untrained).max() > 1e-2


def test_order_is_by_l1_norm_within_bands(boundary):
    trained, _, supernet = boundary
    unsorted = [importances(block) for block in elastic_blocks(supernet)]
    sort_channels(supernet, trained)
    for block, old in zip(elastic_blocks(supernet), unsorted, strict=True):
        for (size, norms), (_, old_norms) in zip(importances(block), old, strict=True):
            band_edges = edges(trained, block, size)
            assert band_edges[-1] == len(norms)
            assert (norms != old_norms).any()
            for start, end in itertools.pairwise(band_edges):
                band = norms[start:end]
                assert np.all(np.diff(band) <= 1e-5)
                # The same channels are in the band as before.
                np.testing.assert_allclose(np.sort(band), np.sort(old_norms[start:end]), rtol=1e-5)


def test_a_trained_choice_makes_a_band():
    """Or the two tests above would say nothing about bands."""
    for trained, count in (
        (TINY, 3),
        (trained_in("depth2", TINY), 1),
        (trained_in("depth2", RESNET), 1),
        (RESNET.restrict(widths=[1]), 2),
        (RESNET.restrict(expand_ratios=[0.5]), 2),
    ):
        plan = trained.blueprint(trained.max(), 4).elastic_blocks[0]
        block = types.SimpleNamespace(plan=plan)
        assert len(edges(trained, block, "mid_channels")) == 1 + count


def test_sorting_again_changes_nothing(supernet):
    trained = trained_in("kernel", TINY)
    sort_channels(supernet, trained)
    once = values(supernet.weights)
    sort_channels(supernet, trained)
    for a, b in zip(once, values(supernet.weights), strict=True):
        np.testing.assert_array_equal(a, b)
