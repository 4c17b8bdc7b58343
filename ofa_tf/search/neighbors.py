"""Neighbors of an arch: what a single change of it gives, and two changes together."""

from __future__ import annotations

import numpy as np

from ofa_tf.search.codes import distinct, keys
from ofa_tf.spaces import SearchSpace
from ofa_tf.spaces.search_space import OFF

_KEEP = -2  # in an edit: a column that it leaves as it is


class Neighborhood:
    """All single changes that an arch of a space can have, as edits of its code.

    An edit sets the kernel and the expand ratio of a position, the depth of a stage, a width or
    the resolution. Positions that a new depth switches on get one kernel and one ratio, which
    are part of the edit.
    """

    def __init__(self, space: SearchSpace):
        self._space = space
        columns, length = space.columns, space.code_length
        edits, fills = [], []

        def add(changes: dict[int, int], kernel: int = 0, expand: int = 0) -> None:
            edit, fill = np.full(length, _KEEP, np.int32), np.zeros(length, np.int32)
            for column, choice in changes.items():
                edit[column] = choice
            fill[columns["kernel"]], fill[columns["expand"]] = kernel, expand
            edits.append(edit)
            fills.append(fill)

        blocks = [(k, e) for k in space.allowed("kernel") for e in space.allowed("expand")]
        for stage in range(space.num_stages):
            for depth in space.allowed("depth", stage):
                for kernel, expand in blocks:
                    add({stage: depth}, kernel, expand)
        for position in range(space.num_positions):
            at = [columns[axis].start + position for axis in ("kernel", "expand")]
            for block in blocks:
                add(dict(zip(at, block, strict=True)))
        for axis in ("width", "resolution"):
            for column in range(columns[axis].start, columns[axis].stop):
                for choice in space.allowed(axis):
                    add({column: choice})
        self._edits, self._fills = np.stack(edits), np.stack(fills)

    def singles(self, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The archs one change away: their codes (n, code length), and the edits that give them."""
        edits = np.arange(len(self._edits))
        codes = self._apply(np.broadcast_to(code, (len(edits), len(code))), edits)
        changed = np.flatnonzero(keys(codes) != keys(code[None]))
        kept = changed[distinct(codes[changed])]
        return codes[kept], edits[kept]

    def pairs(
        self, singles: np.ndarray, edits: np.ndarray, gains: np.ndarray, count: int
    ) -> np.ndarray:
        """Archs two changes away, those that promise most.

        Args:
            singles: the archs one change away, as `singles` gives them.
            edits: theirs.
            gains: what each of them has more (or less) than the arch itself; two changes are
                taken to add up. NaN for one that is not to be part of a pair.
            count: at most so many pairs.

        Returns: codes (n, code length), the most promising first.
        """
        first, second = np.triu_indices(len(singles), 1)
        promised = gains[first] + gains[second]
        promising = np.flatnonzero(promised > 0)
        if len(promising) > count:
            best = np.argpartition(-promised[promising], count - 1)[:count]
            promising = np.sort(promising[best])
        chosen = promising[np.argsort(-promised[promising], kind="stable")]
        return self._apply(singles[first[chosen]], edits[second[chosen]])

    def _apply(self, codes: np.ndarray, edits: np.ndarray) -> np.ndarray:
        changes = self._edits[edits]
        codes = np.where(changes != _KEEP, changes, codes)
        return self._space.canonical(np.where(codes == OFF, self._fills[edits], codes))
