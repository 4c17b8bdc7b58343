"""Diverse archs: the best of many that differ from each other in choices that matter."""

from __future__ import annotations

import numpy as np

from ofa_tf.spaces import SearchSpace

_DIFFERENCES = 3  # choices in which candidates should differ at least


def diverse(space: SearchSpace, codes: np.ndarray, count: int) -> np.ndarray:
    """Chooses archs that differ from each other in three choices or more, best first.

    A block's kernel and expand ratio, with whether it runs, are one choice; so is each width and
    the resolution. Where too few archs differ so much, two and then one choice will do.

    Args:
        space: the space of the codes.
        codes: (n, code length), the best first; some may be equal.
        count: at most so many.

    Returns: indices, ascending, the first code's among them.
    """
    columns = space.columns
    kernels, expands = codes[:, columns["kernel"]], codes[:, columns["expand"]]
    blocks = (kernels + 1) * (max(space.num_choices) + 1) + expands
    lone = [stage for stage, positions in enumerate(space.stage_positions) if not positions]
    rest = codes[:, columns["width"].start :]
    choices = np.concatenate([blocks, codes[:, lone], rest], axis=1)
    # How many choices lie between each arch and the nearest of those that were chosen.
    chosen, nearest = [0], (choices != choices[0]).sum(axis=1)
    for needed in range(_DIFFERENCES, 0, -1):
        while len(chosen) < count and (nearest >= needed).any():
            chosen.append(int(np.argmax(nearest >= needed)))
            nearest = np.minimum(nearest, (choices != choices[chosen[-1]]).sum(axis=1))
    return np.sort(chosen)
