"""BlockCosts: any measure that is a sum over blocks, for whole arrays of encoded archs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ofa_tf.spaces.blueprint import Block
from ofa_tf.spaces.search_space import SearchSpace


class BlockCosts:
    """Sums a cost over the blocks of many archs at once, and finds the least sum exactly.

    The cost of every block that the space can draw is tabulated once, by resolution, position,
    kernel and expand ratio; an arch's cost is then a sum of look-ups.

    Args:
        space: the space whose codes are summed.
        cost: the cost of one block, e.g. `lambda block: block.macs`.
        num_classes: classes of the networks that are costed.
    """

    def __init__(self, space: SearchSpace, cost: Callable[[Block], float], num_classes: int = 1000):
        self.space = space
        shape = (len(space.root.resolutions), *space.grid_shape)
        # NaN outside the space, so that a code of another restriction does not look free.
        self._elastic = np.full(shape, np.nan)
        self._fixed = np.full(shape[0], np.nan)
        for r in space.allowed("resolution"):
            for k in space.allowed("kernel"):
                for e in space.allowed("expand"):
                    blueprint = space.uniform_blueprint(r, k, e, num_classes)
                    for block in blueprint.elastic_blocks:
                        self._elastic[r, block.position, k, e] = cost(block)
            elastic = set(blueprint.elastic_blocks)
            self._fixed[r] = sum(cost(b) for b in blueprint.blocks if b not in elastic)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Costs of encoded archs: int (n, code length) -> float64 (n,)."""
        columns = self.space.columns
        resolution = codes[:, columns["resolution"]]
        kernel, expand = codes[:, columns["kernel"]], codes[:, columns["expand"]]
        position = np.arange(kernel.shape[1])
        costs = self._elastic[resolution, position, kernel, expand]
        return self._fixed[resolution[:, 0]] + np.where(kernel >= 0, costs, 0.0).sum(axis=1)

    def minimum(self) -> tuple[float, np.ndarray]:
        """The least cost in the space and the code of an arch that has it; exact.

        Blocks are independent given the resolution, so each takes its cheapest kernel and
        expand ratio and each stage its cheapest depth.
        """
        space = self.space
        best_cost, best_code = np.inf, None
        kernels, expands = space.allowed("kernel"), space.allowed("expand")
        for r in space.allowed("resolution"):
            grid = self._elastic[r][:, kernels][:, :, expands]
            flat = grid.reshape(len(grid), -1)
            choice, cheapest = flat.argmin(axis=1), flat.min(axis=1)
            total, depth_indices = self._fixed[r], []
            for stage in range(space.num_stages):
                start = space.stage_starts[stage]
                indices = space.allowed("depth", stage)
                choices = space.depth_choices[stage]
                sums = [cheapest[start : start + choices[i]].sum() for i in indices]
                depth_indices.append(indices[int(np.argmin(sums))])
                total += min(sums)
            if total < best_cost:
                code = np.concatenate(
                    [
                        depth_indices,
                        kernels[choice // len(expands)],
                        expands[choice % len(expands)],
                        [r],
                    ]
                )
                best_cost, best_code = float(total), space.canonical(code[None])[0]
        return best_cost, best_code
