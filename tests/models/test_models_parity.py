"""The supernet run as a subnet computes what the subnet's plain Keras network computes."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from model_helpers import (
    batch_norms,
    calibrated,
    deviation,
    every_family,
    make_archs,
    make_images,
    make_supernet,
    run_plain,
    spread,
    without_dropout,
)

from ofa_tf.layers import KEEP_STATISTICS
from ofa_tf.spaces import get_space

TOLERANCE = 1e-4  # of the largest logit
BLIND = 5e-3  # logits that differ by less could hide a mistake
NUM_ARCHS = 14  # of each family


def check_moving_statistics(supernet, arch, seed: int) -> None:
    """Inference with statistics that are not the subnet's own."""
    images = make_images(arch.resolution, 6, seed)
    expected = supernet.subnet(arch)(images).numpy()
    assert spread(expected) > BLIND
    assert deviation(supernet(images, arch), expected) < TOLERANCE


def check_batch_statistics(supernet, arch, seed: int, num_images: int, num_batches: int) -> None:
    """Batch statistics, training, and inference after recalibration."""
    batches = [make_images(arch.resolution, num_images, 10 * seed + t) for t in range(num_batches)]
    model = supernet.subnet(arch)
    # The plain network's own running mean over batches, and the supernet's.
    for t, batch in enumerate(batches):
        expected = run_plain(model, batch, momentum=t / (t + 1))
        assert spread(expected) > BLIND
        with supernet.kept_statistics():
            assert deviation(supernet(batch, arch, bn_update=KEEP_STATISTICS), expected) < TOLERANCE
            assert deviation(supernet(batch, arch, training=True), expected) < TOLERANCE
    expected = model(batches[0]).numpy()
    assert spread(expected) > BLIND
    with calibrated(supernet, arch, batches):
        assert deviation(supernet(batches[0], arch), expected) < TOLERANCE


@every_family
@pytest.mark.parametrize("index", range(NUM_ARCHS))
def test_tiny(supernet, index):
    arch = make_archs(supernet.space, NUM_ARCHS)[index]
    check_moving_statistics(supernet, arch, seed=index)
    check_batch_statistics(supernet, arch, seed=index, num_images=6, num_batches=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_archs"),
    [
        ("ofa_mbv3_w1.0", 12),
        ("ofa_mbv3_cifar", 12),
        ("ofa_proxyless_w1.3", 8),
        ("ofa_resnet50", 6),
    ],
)
def test_larger_spaces(name, num_archs):
    """With a subnet's own statistics; under others 20 blocks amplify rounding a thousandfold."""
    supernet = make_supernet(without_dropout(get_space(name)))
    for index, arch in enumerate(make_archs(supernet.space, num_archs)):
        check_batch_statistics(supernet, arch, seed=index, num_images=4, num_batches=2)
    assert supernet.num_traces == 3  # inference, batch statistics, training


@every_family
def test_archs_differ(supernet):
    """Or parity would say nothing about which arch had run."""
    archs = list(dict.fromkeys(make_archs(supernet.space, NUM_ARCHS)))
    images = make_images(24, 4, seed=0)
    logits = [supernet(images, supernet.space.sizes(arch)).numpy() for arch in archs]
    shapes = [dataclasses.replace(arch, resolution=24) for arch in archs]
    for (a, one), (b, other) in itertools.combinations(zip(shapes, logits, strict=True), 2):
        assert a == b or deviation(one, other) > BLIND


@every_family
def test_each_single_choice_changes_the_logits(supernet):
    """One kernel, expand ratio, width or depth (also the stem's flag), at each of its places."""
    space = supernet.space
    images = make_images(24, 4, seed=0)
    largest = space.encode([space.max()])
    before = supernet(images, "largest").numpy()
    tried = 0
    for column, choices in enumerate(space.num_choices[:-1]):  # without the resolution
        for choice in range(choices - 1):
            code = largest.copy()
            code[0, column] = choice
            (arch,) = space.decode(code)
            assert deviation(supernet(images, space.sizes(arch)), before) > BLIND, arch
            tried += 1
    assert tried == sum(space.num_choices) - len(space.num_choices) - len(space.resolutions) + 1


@every_family
@pytest.mark.parametrize("index", range(3))
def test_moving_statistics_move_as_in_keras(supernet, index):
    """Keras, too, moves the variance by the biased one; at momentum 0.9."""
    arch = make_archs(supernet.space, 3)[index]
    images = make_images(arch.resolution, 6, seed=index)
    model = supernet.subnet(arch)
    run_plain(model, images, momentum=0.9)
    with supernet.kept_statistics():
        supernet(images, arch, bn_update=(0.9, 0.1))
        moved = supernet.subnet(arch)
    for ours, theirs in zip(batch_norms(moved), batch_norms(model), strict=True):
        assert deviation(ours.moving_mean, theirs.moving_mean) < TOLERANCE, ours.name
        assert deviation(ours.moving_variance, theirs.moving_variance) < TOLERANCE, ours.name


@every_family
@pytest.mark.parametrize("index", range(2))
def test_a_subnet_cut_out_while_calibrated_keeps_its_statistics(supernet, index):
    arch = make_archs(supernet.space, 3)[index + 1]
    batches = [make_images(arch.resolution, 6, seed=t) for t in range(3)]
    with calibrated(supernet, arch, batches):
        expected = supernet(batches[0], arch).numpy()
        model = supernet.subnet(arch)
    assert deviation(model(batches[0]), expected) < TOLERANCE
    assert deviation(supernet(batches[0], arch), expected) > BLIND


def test_dropout_acts_in_training_only():
    supernet = make_supernet(get_space("ofa_mbv3_tiny"))
    arch, images = "largest", make_images(24, 64, seed=0)
    statistics = {"bn_update": KEEP_STATISTICS}
    one, other = (supernet(images, arch, training=True).numpy() for _ in range(2))
    assert deviation(one, other) > BLIND
    assert deviation(supernet(images, arch), supernet(images, arch)) == 0
    one, other = (supernet(images, arch, **statistics) for _ in range(2))
    assert deviation(one, other) == 0


def test_statistics_are_put_back(supernet):
    kept = [variable.numpy() for variable in supernet.variables]
    arch, images = "largest", make_images(24, 4, seed=0)

    def assert_as_before():
        for variable, value in zip(supernet.variables, kept, strict=True):
            np.testing.assert_array_equal(variable, value)

    with supernet.kept_statistics():
        supernet(images, arch, training=True)
        changed = [
            (variable.numpy() != value).any()
            for variable, value in zip(supernet.variables, kept, strict=True)
        ]
        assert sum(changed) == len(supernet.non_trainable_variables) > 0
    assert_as_before()
    with pytest.raises(KeyError), calibrated(supernet, arch, [images]):
        raise KeyError
    assert_as_before()
