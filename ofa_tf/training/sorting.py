"""Channel sorting: the most important channels first, before the width becomes elastic."""

from __future__ import annotations

import itertools

import numpy as np

from ofa_tf.models import Supernet
from ofa_tf.spaces import SearchSpace
from ofa_tf.spaces.blueprint import Sizes


def sort_channels(supernet: Supernet, trained: SearchSpace) -> None:
    """Sorts the middle channels of every elastic block by importance, in place.

    Importance is the L1 norm of the weights that read a channel: those of the next convolution,
    and for squeeze-excite's middle channels those of its expand convolution (arXiv 1908.09791,
    section 3.3). Channels stay inside the bands between the widths that `trained` already
    supports, so that none of its subnets computes anything else than before.

    Args:
        supernet: the weights.
        trained: the restriction of the space that has been trained so far.
    """
    widths = _supported_widths(trained)
    for block in supernet.blocks:
        if block.plan.name not in widths:
            continue
        for group in block.channel_groups:
            importance = np.abs(group.reader.numpy()).sum(axis=(0, 1, 3))
            group.permute(_order(importance, widths[block.plan.name][group.size]))


def _supported_widths(space: SearchSpace) -> dict[str, dict[str, set[int]]]:
    """What subnets of the space have for each field of Sizes, in each elastic block by name."""
    widths: dict[str, dict[str, set[int]]] = {}
    for _, plan in space.covering_plans(resolutions=space.resolutions[:1]):
        for block in plan.elastic_blocks:
            found = widths.setdefault(block.name, {field: set() for field in Sizes.FIELDS})
            for field, seen in found.items():
                seen.add(getattr(block.sizes, field))
    return widths


def _order(importance: np.ndarray, widths: set[int]) -> np.ndarray:
    """Channel indices, most important first within each band between two widths."""
    edges = [0, *sorted(widths)]
    bands = [
        start + np.argsort(-importance[start:end], kind="stable")
        for start, end in itertools.pairwise(edges)
    ]
    return np.concatenate(bands)
