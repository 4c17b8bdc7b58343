"""Channel sorting: the most important channels first, before the width becomes elastic."""

from __future__ import annotations

import itertools

import numpy as np

from ofa_tf.layers import InvertedResidualBlock
from ofa_tf.models import Supernet
from ofa_tf.spaces import SearchSpace


def sort_channels(supernet: Supernet, trained: SearchSpace) -> None:
    """Sorts the middle channels of every elastic block by importance, in place.

    Importance is the L1 norm of the projection's weights of a channel, and for squeeze-excite's
    middle channels that of its expand convolution (arXiv 1908.09791, section 3.3). Channels
    stay inside the bands between the widths that `trained` already supports, so that none of its
    subnets computes anything else than before.

    Args:
        supernet: the weights.
        trained: the restriction of the space that has been trained so far.
    """
    widths = _supported_widths(trained)
    for block in supernet.blocks:
        if isinstance(block, InvertedResidualBlock) and block.plan.position is not None:
            mid_widths, se_widths = widths[block.plan.position]
            importance = np.abs(block.project_conv.kernel.numpy()).sum(axis=(0, 1, 3))
            se_order = None
            if block.plan.se_channels:
                kernel = block.squeeze_excite.expand.kernel.numpy()
                se_order = _order(np.abs(kernel).sum(axis=(0, 1, 3)), se_widths)
            block.permute_channels(_order(importance, mid_widths), se_order)


def _supported_widths(space: SearchSpace) -> list[tuple[set[int], set[int]]]:
    """Middle and squeeze-excite widths of each position that subnets of the space have."""
    resolution = space.allowed("resolution")[0]
    widths = [(set(), set()) for _ in range(space.num_positions)]
    for expand in space.allowed("expand"):
        plan = space.uniform_blueprint(resolution, 0, expand, num_classes=1)
        for block in plan.elastic_blocks:
            widths[block.position][0].add(block.mid_channels)
            widths[block.position][1].add(block.se_channels)
    return widths


def _order(importance: np.ndarray, widths: set[int]) -> np.ndarray:
    """Channel indices, most important first within each band between two widths."""
    edges = [0, *sorted(widths - {0})]
    bands = [
        start + np.argsort(-importance[start:end], kind="stable")
        for start, end in itertools.pairwise(edges)
    ]
    return np.concatenate(bands)
