"""The subnets whose accuracies tell how a training goes: mostly the corners of its space."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ofa_tf.spaces import Arch, SearchSpace
from ofa_tf.training.phases import Phase
from ofa_tf.training.recipe import Recipe


def watched_archs(
    recipe: Recipe, phase: Phase, space: SearchSpace, resolutions: Sequence[int]
) -> dict[str, Arch]:
    """The subnets that a phase evaluates, by name, from the smallest to the largest.

    They are the corners of what it opens at these resolutions; when fine-tuning, the one subnet.
    """
    if recipe.arch:
        return {"subnet": recipe.arch}
    return corner_archs(phase.restrict(space), resolutions)


def corner_archs(space: SearchSpace, resolutions: Sequence[int]) -> dict[str, Arch]:
    """The uniform archs of least and most depth, kernel and expand ratio, by their names.

    As published (arXiv 1908.09791's released code): resolutions x depths x expand ratios x
    kernels; a choice that the space does not leave open gives one corner, not two. In families
    with width multipliers the least expand ratio goes with the narrowest ones.

    Args:
        space: the part of a space that is trained.
        resolutions: pixels, each of them of the space.

    Returns: archs by names such as "r224_d4_e6_k7", from the smallest to the largest.
    """
    axes: tuple[tuple[Any, ...], ...] = (space.depths, space.expand_ratios, space.kernel_sizes)
    ends = [sorted({choices[0], choices[-1]}) for choices in axes]
    corners = {}
    for resolution, depth, expand, kernel in itertools.product(sorted(resolutions), *ends):
        uniform = space.restrict(
            depths=[depth],
            expand_ratios=[expand],
            kernel_sizes=[kernel],
            resolutions=[resolution],
            widths=space.widths[:1] if expand < space.expand_ratios[-1] else space.widths[-1:],
        )
        corners[f"r{resolution}_d{depth}_e{expand:g}_k{kernel}"] = uniform.max()
    return corners
