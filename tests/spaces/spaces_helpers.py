"""Restricted spaces at random, and what is true of every code, in plain loops."""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import tempfile
from collections.abc import Mapping

import document
import numpy as np
from hypothesis import strategies as st

from ofa_tf.spaces import Arch, SearchSpace, get_space, list_spaces

OFF = -1
FIELDS = ("depths", "kernel_sizes", "expand_ratios", "widths", "resolutions")
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def any_space(draw) -> SearchSpace:
    """A built-in space or a user's own, whole or restricted on any of its axes."""
    space = draw(st.sampled_from([*map(get_space, list_spaces()), *own_spaces()]))
    kept = {}
    for field in FIELDS:
        choices = getattr(space, field)
        if choices:
            some = st.lists(st.sampled_from(choices), min_size=1, max_size=3)
            kept[field] = draw(st.none() | some)
    return space.restrict(**kept)


def small_space() -> SearchSpace:
    """A space that brute force can list: 6 choices in each of three stages, 2 resolutions."""
    tiny = get_space("ofa_mbv3_tiny")
    return tiny.restrict(kernel_sizes=(3, 7), expand_ratios=(3,), resolutions=(24, 32))


def small_resnet() -> SearchSpace:
    """Another: the stem's flag, 6 choices in each of two stages, 4 widths, 2 resolutions."""
    return get_space("ofa_resnet_tiny").restrict(resolutions=(24, 32))


def every_arch(space: SearchSpace) -> list[Arch]:
    """All archs of a small space, each once, position by position."""
    block = list(itertools.product(space.kernel_sizes, space.expand_ratios))
    stages = []
    for most, runs in zip(space.stage_positions, space.stage_runs, strict=True):
        per_depth = []
        for depth in allowed_depths(space, runs):
            off = ((0, 0),) * (most - runs[depth])
            per_depth += [(depth, (*b, *off)) for b in itertools.product(block, repeat=runs[depth])]
        stages.append(per_depth)
    archs = []
    widths = itertools.product(space.widths, repeat=space.family.num_widths)
    for resolution, width in itertools.product(space.resolutions, list(widths)):
        for chosen in itertools.product(*stages):
            positions = [pair for _, blocks in chosen for pair in blocks]
            kernels, expands = zip(*positions, strict=True)
            archs.append(Arch(tuple(d for d, _ in chosen), kernels, expands, resolution, width))
    return archs


def allowed_depths(space: SearchSpace, runs: Mapping[int, int]) -> list[int]:
    """The depths of a stage that a space allows; the largest of the stage where it allows none."""
    return [depth for depth in runs if depth in space.depths] or [max(runs)]


def assert_in_space(space: SearchSpace, codes: np.ndarray) -> None:
    """Each code is canonical and chooses what the space allows, read by the documented layout."""
    root, stages, positions = space.root, len(space.stage_runs), sum(space.stage_positions)
    assert codes.dtype == np.int32
    lengths = (stages, positions, positions, space.family.num_widths, 1)
    ends = list(itertools.accumulate(lengths))
    assert codes.shape[1] == ends[-1]
    for code in codes.tolist():
        depths, kernels, expands, widths, (resolution,) = (
            code[end - length : end] for end, length in zip(ends, lengths, strict=True)
        )
        assert root.resolutions[resolution] in space.resolutions
        assert all(root.widths[width] in space.widths for width in widths)
        start = 0
        for runs, most, depth_code in zip(
            space.stage_runs, space.stage_positions, depths, strict=True
        ):
            depth = sorted(runs)[depth_code]
            assert depth in allowed_depths(space, runs)
            for place in range(start, start + most):
                if place < start + runs[depth]:
                    assert kernels[place] != OFF
                    assert expands[place] != OFF
                    assert root.kernel_sizes[kernels[place]] in space.kernel_sizes
                    assert root.expand_ratios[expands[place]] in space.expand_ratios
                else:
                    assert kernels[place] == expands[place] == OFF
            start += most


@functools.cache
def own_spaces() -> tuple[SearchSpace, ...]:
    """The spaces of the files that docs/SEARCH_SPACE.md has the reader write."""
    with tempfile.TemporaryDirectory() as folder:
        document.write_files(pathlib.Path(folder))
        names = ("my_space.py", "my_family.py:plain_small", "my_family.py:plain")
        return tuple(get_space(os.path.join(folder, name)) for name in names)
