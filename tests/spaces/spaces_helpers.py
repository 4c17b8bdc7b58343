"""Restricted spaces at random, and what is true of every code, in plain loops."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from ofa_tf.spaces import Arch, SearchSpace, get_space, list_spaces

OFF = -1
FIELDS = ("depths", "kernel_sizes", "expand_ratios", "resolutions")
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def any_space(draw) -> SearchSpace:
    """One of the built-in spaces, whole or restricted on any of its axes."""
    space = get_space(draw(st.sampled_from(list_spaces())))
    kept = {}
    for field in FIELDS:
        choices = getattr(space, field)
        kept[field] = draw(st.none() | st.lists(st.sampled_from(choices), min_size=1, max_size=3))
    return space.restrict(**kept)


def small_space() -> SearchSpace:
    """A space that brute force can list: 6 choices in each of three stages, 2 resolutions."""
    tiny = get_space("ofa_mbv3_tiny")
    return tiny.restrict(kernel_sizes=(3, 7), expand_ratios=(3,), resolutions=(24, 32))


def every_arch(space: SearchSpace) -> list[Arch]:
    """All archs of a small space, each once, position by position."""
    block = list(itertools.product(space.kernel_sizes, space.expand_ratios))
    stages = []
    for most in space.family.stage_depths:
        per_depth = []
        for depth in space.depths:
            off = ((0, 0),) * (most - depth)
            per_depth += [(depth, (*b, *off)) for b in itertools.product(block, repeat=depth)]
        stages.append(per_depth)
    archs = []
    for resolution in space.resolutions:
        for chosen in itertools.product(*stages):
            positions = [pair for _, blocks in chosen for pair in blocks]
            kernels, expands = zip(*positions, strict=True)
            archs.append(Arch(tuple(d for d, _ in chosen), kernels, expands, resolution))
    return archs


def assert_in_space(space: SearchSpace, codes: np.ndarray) -> None:
    """Each code is canonical and chooses what the space allows, read by the documented layout."""
    root, stages = space.root, space.family.stage_depths
    positions = sum(stages)
    assert codes.dtype == np.int32
    assert codes.shape[1] == len(stages) + 2 * positions + 1
    for code in codes.tolist():
        depth_codes, rest = code[: len(stages)], code[len(stages) :]
        kernels, expands, resolution = rest[:positions], rest[positions:-1], rest[-1]
        assert root.resolutions[resolution] in space.resolutions
        start = 0
        for most, depth_code in zip(stages, depth_codes, strict=True):
            depth = [d for d in root.depths if d <= most][depth_code]
            assert depth in space.depths
            for place in range(start, start + most):
                if place < start + depth:
                    assert kernels[place] != OFF
                    assert expands[place] != OFF
                    assert root.kernel_sizes[kernels[place]] in space.kernel_sizes
                    assert root.expand_ratios[expands[place]] in space.expand_ratios
                else:
                    assert kernels[place] == expands[place] == OFF
            start += most
