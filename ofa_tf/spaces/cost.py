"""BlockCosts: any measure that is a sum or a maximum over blocks, for arrays of encoded archs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ofa_tf.spaces.blueprint import Block
from ofa_tf.spaces.search_space import SearchSpace


class BlockCosts:
    """Combines a cost over the blocks of many archs at once, and finds the least exactly.

    The cost of every block that the space can draw is tabulated once; an arch's cost is then one
    look-up per block, and the sum of them or the largest.

    Args:
        space: the space whose codes are summed.
        cost: the cost of one block in a network with an input resolution (pixels), e.g.
            `lambda block, resolution: block.macs`.
        num_classes: classes of the networks that are costed.
        largest: whether an arch costs what its dearest block does, not what all do together;
            then no cost may be negative.
    """

    def __init__(
        self,
        space: SearchSpace,
        cost: Callable[[Block, int], float],
        num_classes: int = 1000,
        largest: bool = False,
    ):
        self.space = space
        self._combine = np.maximum if largest else np.add
        self._tables = _tabulate(space, cost, num_classes)
        # All tables in one array, where a code's indices are its product with the strides.
        self._flat = np.concatenate([table.costs.ravel() for table in self._tables])
        self._starts = np.cumsum([0, *(table.costs.size for table in self._tables[:-1])])
        self._strides = np.zeros((space.code_length, len(self._tables)))
        for place, table in enumerate(self._tables):
            strides = np.array(table.costs.strides) // table.costs.itemsize
            for column, stride in zip(table.columns, strides, strict=True):
                if column is not None:
                    self._strides[column, place] = stride

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Costs of encoded archs: int (n, code length) -> float64 (n,)."""
        # A block that is off costs 0 whatever its other choices are. The product is of floats
        # because that is many times as fast, and exact for numbers as small as these.
        indices = np.maximum(codes, 0) @ self._strides + self._starts
        return self._combine.reduce(self._flat[indices.astype(np.intp)], axis=1)

    def minimum(self) -> tuple[float, np.ndarray]:
        """The least cost in the space and the code of an arch that has it; exact.

        Given resolution and widths, blocks are independent: each takes its cheapest kernel and
        expand ratio, and each stage its cheapest depth. This holds for a sum and for a maximum.
        """
        space = self.space
        given = [space.allowed("width")] * space.family.num_widths + [space.allowed("resolution")]
        given = np.array(list(itertools.product(*given)), np.int32)
        codes = np.zeros((len(given), space.code_length), np.int32)
        codes[:, space.columns["width"].start :] = given
        self._choose_cheapest(codes)
        codes = space.canonical(codes)
        costs = self(codes)
        return float(costs.min()), codes[costs.argmin()]

    def ceiling(self) -> float:
        """A cost that no arch exceeds: that of all blocks, each at its dearest."""
        return float(self._combine.reduce([np.nanmax(table.costs) for table in self._tables]))

    def _choose_cheapest(self, codes: np.ndarray) -> None:
        """Writes the cheapest kernels, expand ratios and depths into codes that have the rest."""
        space = self.space
        kernels, expands = space.allowed("kernel"), space.allowed("expand")
        by_depth = [np.zeros((len(choices), len(codes))) for choices in space.depth_choices]
        for table in self._tables:
            kernel, expand, depth, *given = table.columns
            costs = table.costs
            if kernel is not None:
                costs = costs[kernels][:, expands]
            # (kernels times expand ratios, depths, n)
            costs = costs[(slice(None),) * 3 + tuple(codes[:, column] for column in given)]
            costs = costs.reshape(-1, *costs.shape[2:])
            if kernel is not None:
                choice = costs[:, -1].argmin(axis=0)  # at the largest depth, which has the block
                codes[:, kernel] = kernels[choice // len(expands)]
                codes[:, expand] = expands[choice % len(expands)]
            if depth is not None:
                by_depth[depth] = self._combine(by_depth[depth], costs.min(axis=0))
        for stage, costs in enumerate(by_depth):
            allowed = space.allowed("depth", stage)
            codes[:, stage] = allowed[costs[allowed].argmin(axis=0)]


class _Table(NamedTuple):
    """What a block costs, by the choices that it depends on.

    The axes of `costs` are kernel, expand ratio, depth, resolution and the widths that it depends
    on; `columns` are theirs in a code, None for an axis of length 1 that does not matter. Costs
    are NaN outside the space, so that a code of another restriction does not look free.
    """

    columns: tuple[int | None, ...]
    costs: np.ndarray


def _tabulate(
    space: SearchSpace, cost: Callable[[Block, int], float], num_classes: int
) -> list[_Table]:
    """The table of each block of the largest net."""
    tables, present = {}, {}
    for block in space.root.blueprint(space.root.max(), num_classes).blocks:
        stage, present[block.name] = _depths_with(space, block.name)
        columns = (*_position_columns(space, block), stage, space.columns["resolution"].start)
        columns += tuple(_width_columns(space, block.name))
        lengths = [1 if column is None else space.num_choices[column] for column in columns]
        tables[block.name] = _Table(columns, np.full(lengths, np.nan))
    for code, plan in space.covering_plans(num_classes):
        for block in plan.blocks:
            columns, costs = tables[block.name]
            kernel, expand, _, *rest = (0 if c is None else code[c] for c in columns)
            there = present[block.name]
            costs[(kernel, expand, there, *rest)] = cost(block, plan.resolution)
            costs[:, :, ~there] = 0.0
    return list(tables.values())


def _position_columns(space: SearchSpace, block: Block) -> tuple[int | None, int | None]:
    """The columns of the kernel and the expand ratio of a block, where it has them."""
    position = getattr(block, "position", None)
    if position is None:
        return None, None
    return space.columns["kernel"].start + position, space.columns["expand"].start + position


def _depths_with(space: SearchSpace, name: str) -> tuple[int | None, np.ndarray]:
    """The stage whose depth can leave a block out, and at which of its depths the block runs."""
    for stage, choices in enumerate(space.depth_choices):
        there = [name in _changed_blocks(space, stage, index) for index in range(len(choices))]
        if not all(there):
            return stage, np.array(there)
    return None, np.array([True])


def _width_columns(space: SearchSpace, name: str) -> list[int]:
    """The columns of the widths that the shape of a block depends on."""
    columns = range(space.columns["width"].start, space.columns["width"].stop)
    widest = {column: space.num_choices[column] - 1 for column in columns}
    return [
        column
        for column in columns
        if _changed_blocks(space, column, 0)[name]
        != _changed_blocks(space, column, widest[column])[name]
    ]


@functools.lru_cache(maxsize=256)
def _changed_blocks(space: SearchSpace, column: int, choice: int) -> dict[str, Block]:
    """The blocks of the largest net with another choice in one column of its code, by name."""
    root = space.root
    code = root.encode([root.max()])
    code[0, column] = choice
    return {block.name: block for block in root.blueprint(root.decode(code)[0]).blocks}
