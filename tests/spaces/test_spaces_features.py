"""The feature pyramid that a Blueprint names: which block ends each stride."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_tf.spaces import get_space, list_spaces

# By stride: the block, its side at 224 pixels and its channels, of the largest network.
LARGEST = {
    "ofa_mbv3_w1.0": {
        4: ("stage0_block3", 56, 24),
        8: ("stage1_block3", 28, 40),
        16: ("stage3_block3", 14, 112),
        32: ("final_expand", 7, 960),
    },
    "ofa_proxyless_w1.3": {
        4: ("stage0_block3", 56, 32),
        8: ("stage1_block3", 28, 56),
        16: ("stage3_block3", 14, 128),
        32: ("feature_mix", 7, 1664),
    },
    "ofa_resnet50": {
        4: ("stage0_block3", 56, 256),
        8: ("stage1_block3", 28, 512),
        16: ("stage2_block5", 14, 1024),
        32: ("stage3_block3", 7, 2048),
    },
}


@pytest.mark.parametrize("name", LARGEST)
def test_published_networks_by_hand(name):
    space = get_space(name)
    found = space.blueprint(space.max()).feature_blocks
    shapes = {
        stride: (block.name, block.out_size, block.out_channels) for stride, block in found.items()
    }
    assert shapes == LARGEST[name]


def test_small_images_have_fewer_strides():
    space = get_space("ofa_mbv3_cifar")  # 32, 16, 8 and 4 pixels: a stem of stride 1
    found = space.blueprint(space.max()).feature_blocks
    assert {stride: (block.name, block.out_size) for stride, block in found.items()} == {
        4: ("stage1_block2", 8),
        8: ("final_expand", 4),
    }


@pytest.mark.parametrize("name", list_spaces())
def test_each_is_the_last_of_its_stride(name):
    """The product of the strides up to it, at sizes that strides do not divide too."""
    space = get_space(name)
    for seed in range(5):
        plan = space.blueprint(space.sample(np.random.default_rng(seed)), num_classes=10)
        stride, strides = 1, {}
        for block in plan.blocks:
            if block.name == "pool":
                break
            stride *= getattr(block, "stride", 1)
            strides[stride] = block
        assert plan.feature_blocks == {s: b for s, b in strides.items() if s in (4, 8, 16, 32)}
        for stride, block in plan.feature_blocks.items():
            assert block.out_size == -(-plan.resolution // stride)
