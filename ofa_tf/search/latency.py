"""LatencyTable: the latency of any arch from block latencies that were measured on a device."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import read_json, write_json
from ofa_tf.spaces import BlockCosts, SearchSpace, get_space
from ofa_tf.spaces.blueprint import Block

_FORMAT = "ofa_tf latency table 1"


def distinct_blocks(
    space: SearchSpace, num_classes: int, resolutions: Iterable[int]
) -> dict[str, Block]:
    """Every block that archs of the space have at these resolutions (pixels), by its key."""
    blocks: dict[str, Block] = {}
    for r in space.root.restrict(resolutions=tuple(resolutions)).allowed("resolution"):
        for k in space.allowed("kernel"):
            for e in space.allowed("expand"):
                for block in space.uniform_blueprint(r, k, e, num_classes).blocks:
                    blocks.setdefault(block.key, block)
    return blocks


def shape_key(block: Block) -> str:
    """The block's key without feature sizes: equal for one block at several resolutions."""
    sized = "in_size" in {field.name for field in dataclasses.fields(block)}
    return dataclasses.replace(block, in_size=0).key if sized else block.key


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Predicts latencies in ms: a sum over blocks, corrected by measured whole subnets.

    `slope * sum(block - overhead_ms) + constant_ms`. A block at a feature size that was not
    measured is interpolated, linearly in the pixels of its input, between the nearest that were.

    Args:
        space: the space whose codes it takes.
        num_classes: classes of the networks.
        resolutions: those at which every block was measured, in pixels, ascending.
        block_ms: measured latency of each block alone as a model, by key.
        overhead_ms: latency of a model that does next to nothing, part of every block_ms.
        slope: of the correction.
        constant_ms: of the correction; what a whole model takes besides its blocks.
        precision: of the models that were measured, e.g. "float32".
        setup: what was measured with: device, tool, settings, date.
        report: errors on whole subnets, see `build_latency_table`.
        rows: what was measured, raw.
    """

    space: SearchSpace
    num_classes: int
    resolutions: tuple[int, ...]
    block_ms: Mapping[str, float]
    overhead_ms: float
    slope: float = 1.0
    constant_ms: float = 0.0
    precision: str = "float32"
    setup: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self):
        """Raises UsageError where the table cannot answer for its space; names the reason."""
        for key, ms in {**self.block_ms, "slope": self.slope}.items():
            if not (_is_number(ms) and ms > 0):
                raise UsageError(f"A latency table needs positive numbers; {key} is {ms!r}.")
        for name, ms in {"overhead_ms": self.overhead_ms, "constant_ms": self.constant_ms}.items():
            if not _is_number(ms):
                raise UsageError(f"A latency table needs finite numbers; {name} is {ms!r}.")
        low, high = min(self.space.resolutions), max(self.space.resolutions)
        if not min(self.resolutions) <= low <= high <= max(self.resolutions):
            raise UsageError(
                f"A latency table of {self.space.name} spans {low} to {high} pixels, "
                f"not only {min(self.resolutions)} to {max(self.resolutions)}."
            )
        wanted = distinct_blocks(self.space, self.num_classes, self.resolutions)
        for key in wanted:
            if key not in self.block_ms:
                raise UsageError(f"The latency table of {self.space.name} lacks the block {key}.")
        curves: dict[str, dict[int, float]] = {}
        for key, block in wanted.items():
            above = max(self.block_ms[key] - self.overhead_ms, 0.0)
            curves.setdefault(shape_key(block), {})[block.in_size**2] = above
        sorted_curves = {key: np.array(sorted(curve.items())).T for key, curve in curves.items()}

        def cost(block: Block) -> float:
            pixels, ms = sorted_curves[shape_key(block)]
            return self.slope * float(np.interp(block.in_size**2, pixels, ms))

        object.__setattr__(self, "_costs", BlockCosts(self.space, cost, self.num_classes))

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Latencies of encoded archs in ms: int (n, code length) -> float64 (n,)."""
        return self._costs(codes) + self.constant_ms

    def minimum(self) -> tuple[float, np.ndarray]:
        """The least predicted latency in ms, and the code of an arch that has it; exact."""
        least, code = self._costs.minimum()
        return least + self.constant_ms, code

    def save(self, path: str | os.PathLike) -> None:
        """Writes the table as JSON. Raises FailureError if it cannot be written."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        write_json(path, {"format": _FORMAT, **fields, "space": self.space.name})

    @classmethod
    def load(cls, path: str | os.PathLike, space: SearchSpace | None = None) -> LatencyTable:
        """Reads what `save` wrote.

        Args:
            path: the file.
            space: the space, or a restriction of it, to answer for; None for the file's own.

        Raises:
            UsageError: the file is missing, damaged, of another space, lacks a block, or has a
                latency that is no positive number; names the file and the thing.
        """
        try:
            fields = read_json(path)
            if fields.pop("format") != _FORMAT:
                raise ValueError("it is no latency table, or of another version")
            name = fields.pop("space")
            if space is not None and name != space.name:
                raise ValueError(f"it is of {name}, not of {space.name}")
            fields["resolutions"] = tuple(fields["resolutions"])
            fields["rows"] = tuple(fields["rows"])
            return cls(space=space or get_space(name), **fields)
        except (FailureError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"The latency table {path} cannot be used: {error} Measure it anew, or choose "
                f"another file."
            ) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
