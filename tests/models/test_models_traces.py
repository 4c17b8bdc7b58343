"""One traced graph serves every subnet and every resolution."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from model_helpers import NUM_CLASSES, TINY_SPACES, deviation, every_family, make_archs, make_images

from ofa_tf.errors import UsageError
from ofa_tf.layers import KEEP_STATISTICS
from ofa_tf.models import Supernet

RESOLUTIONS = (20, 24, 28, 32, 40)


@pytest.mark.parametrize("family", TINY_SPACES)
def test_one_trace_per_mode(family):
    supernet = Supernet(TINY_SPACES[family], NUM_CLASSES)
    images = {side: make_images(side, 2 + side % 3, seed=side) for side in RESOLUTIONS}
    archs = make_archs(supernet.space, 80)
    for mode, traces in (({}, 1), ({"training": True}, 2), ({"bn_update": KEEP_STATISTICS}, 3)):
        for index, arch in enumerate(archs):
            batch = images[RESOLUTIONS[index % len(RESOLUTIONS)]]
            logits = supernet(batch, supernet.space.sizes(arch), **mode)
            assert logits.shape == (len(batch), NUM_CLASSES)
            assert supernet.num_traces == traces
    for index in range(5):
        sizes = supernet.space.sizes(archs[index])
        supernet(images[24], sizes, bn_update=(index / 5, 0.2))
    assert supernet.num_traces == 3


@every_family
def test_one_trace_of_a_function_that_takes_the_sizes(supernet):
    space, traces = supernet.space, 0

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.float32),
            tf.TensorSpec(space.sizes(space.max()).shape, tf.int32),
        ]
    )
    def run(images, sizes):
        nonlocal traces
        traces += 1
        return supernet(images, sizes)

    for index, arch in enumerate(make_archs(space, 80)):
        images = make_images(RESOLUTIONS[index % 5], 2, seed=index)
        logits = run(images, space.sizes(arch))
        assert deviation(logits, supernet(images, space.sizes(arch))) < 1e-5
    assert traces == 1


@every_family
@pytest.mark.parametrize("index", range(3))
def test_a_fixed_arch_in_the_callers_graph(supernet, index):
    """Its sizes are static: a graph without branches, and the same logits."""
    arch = make_archs(supernet.space, 3)[index]
    traces = supernet.num_traces
    run = tf.function(lambda images: supernet(images, arch))
    images = make_images(arch.resolution, 4, seed=index)
    assert deviation(run(images), supernet.subnet(arch)(images)) < 1e-4
    graph = run.get_concrete_function(tf.TensorSpec(images.shape)).graph
    assert not {op.type for op in graph.get_operations()} & {"If", "StatelessIf", "While"}
    assert supernet.num_traces == traces


def test_an_arch_is_taken_in_any_form(supernet):
    arch, images = supernet.space.min(), make_images(24, 3, seed=0)
    expected = supernet(images, arch)
    np.testing.assert_array_equal(supernet(images, arch.to_dict()), expected)
    sizes = tf.constant(supernet.space.sizes(arch))
    assert deviation(supernet(images, sizes), expected) < 1e-5


def test_an_arch_outside_the_space_is_refused(supernet):
    wrong = {**supernet.space.max().to_dict(), "d": [1, 2, 4]}
    for act in (supernet.subnet, lambda arch: supernet(make_images(24, 1, seed=0), arch)):
        with pytest.raises(UsageError, match=r"depths .* stage 2 is one of \[1, 2\], not 4"):
            act(wrong)


def test_a_restricted_space_makes_the_whole_supernet(supernet):
    restricted = supernet.space.restrict(kernel_sizes=[3], depths=[1])
    whole = Supernet(restricted, NUM_CLASSES)
    assert whole.space is supernet.space
    assert [v.shape for v in whole.variables] == [v.shape for v in supernet.variables]
