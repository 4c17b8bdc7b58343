"""LatencyTable: the latency of any arch from block latencies that were measured on a device."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.files import write_json
from ofa_tf.search.latency_correction import GROUPINGS
from ofa_tf.spaces import BlockCosts, SearchSpace, built_in_space
from ofa_tf.spaces.blueprint import Block

_FORMAT = "ofa_tf latency table 3"


def distinct_blocks(
    space: SearchSpace, num_classes: int, resolutions: Iterable[int]
) -> dict[str, Block]:
    """Every block that archs of the space have at these resolutions (pixels), by its key."""
    blocks: dict[str, Block] = {}
    for _, plan in space.covering_plans(num_classes, tuple(resolutions)):
        for block in plan.blocks:
            blocks.setdefault(block.key, block)
    return blocks


def check_span(space: SearchSpace, resolutions: Sequence[int]) -> None:
    """Raises UsageError where a space has resolutions outside of those that were measured."""
    low, high = min(space.resolutions), max(space.resolutions)
    if not min(resolutions) <= low <= high <= max(resolutions):
        raise UsageError(
            f"A latency table of {space.name} spans {low} to {high} pixels, "
            f"not only {min(resolutions)} to {max(resolutions)}."
        )


def shape_key(block: Block) -> str:
    """The block's key without feature sizes: equal for one block at several resolutions."""
    sized = "in_size" in {field.name for field in dataclasses.fields(block)}
    return dataclasses.replace(block, in_size=0).key if sized else block.key


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Predicts latencies in ms: a sum over blocks, corrected by measured whole subnets.

    `sum(slope * (block - overhead_ms)) + constant_ms`. A block at a feature size that was not
    measured is interpolated, linearly in the pixels of its input, between the nearest that were.
    Published tables give one block another latency at each resolution, even where its feature
    size is the same; those are taken as they are, and interpolation starts from their mean.

    Args:
        space: the space whose codes it takes.
        num_classes: classes of the networks.
        resolutions: those at which every block was measured, in pixels, ascending.
        block_ms: measured latency of each block alone as a model, by key.
        overhead_ms: latency of a model that does next to nothing, part of every block_ms.
        slope: of the correction, for all blocks that have no slope of their own.
        constant_ms: of the correction; what a whole model takes besides its blocks.
        grouping: how blocks are sorted into kinds, a key of `latency_correction.GROUPINGS`.
        slopes: of kinds of block that have their own.
        precision: of the models that were measured, e.g. "float32".
        form: in which they were written, see `ofa_tf.export.FORMS`.
        setup: what was measured with: device, tool, settings, date.
        report: errors on whole subnets, see `build_latency_table`.
        rows: what was measured, raw.
        by_resolution: latencies of blocks that hold at one resolution (pixels) only, by key; they
            go before those of block_ms. 0 where another block's latency includes it.
    """

    space: SearchSpace
    num_classes: int
    resolutions: tuple[int, ...]
    block_ms: Mapping[str, float]
    overhead_ms: float
    slope: float = 1.0
    constant_ms: float = 0.0
    grouping: str = "all"
    slopes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    precision: str = "float32"
    form: str = "cpu"
    setup: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    by_resolution: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Raises UsageError where the table cannot answer for its space; names the reason."""
        self._check_numbers()
        check_span(self.space, self.resolutions)
        known = {resolution: self._blocks_at(resolution) for resolution in self.resolutions}
        object.__setattr__(self, "_known", known)
        object.__setattr__(self, "_curves", _curves(known.values()))
        kind_of = GROUPINGS[self.grouping]

        def cost(block: Block, resolution: int) -> float:
            slope = self.slopes.get(kind_of(block), self.slope)
            return slope * self.block_latency(block, resolution)

        object.__setattr__(self, "_costs", BlockCosts(self.space, cost, self.num_classes))

    def block_latency(self, block: Block, resolution: int) -> float:
        """The ms of a block above the overhead, before the correction.

        Args:
            block: of a subnet of the space.
            resolution: of the subnet, in pixels; between those measured, it is interpolated.
        """
        if resolution in self._known:
            return self._known[resolution][block.key][1]
        pixels, ms = self._curves[shape_key(block)]
        return float(np.interp(block.in_size**2, pixels, ms))

    def _check_numbers(self) -> None:
        for key, ms in {**self.block_ms, "slope": self.slope}.items():
            if not (_is_number(ms) and ms > 0):
                raise UsageError(f"A latency table needs positive numbers; {key} is {ms!r}.")
        for name, ms in {"overhead_ms": self.overhead_ms, "constant_ms": self.constant_ms}.items():
            if not _is_number(ms):
                raise UsageError(f"A latency table needs finite numbers; {name} is {ms!r}.")
        if self.grouping not in GROUPINGS:
            raise UsageError(f"grouping is one of {', '.join(GROUPINGS)}, not {self.grouping!r}.")
        for kind, slope in self.slopes.items():
            if not (_is_number(slope) and slope >= 0):
                raise UsageError(f"A slope is zero or more; that of {kind} is {slope!r}.")
        for resolution, latencies in self.by_resolution.items():
            for key, ms in latencies.items():
                if not (_is_number(ms) and ms >= 0):
                    raise UsageError(
                        f"A latency table needs positive numbers; {key} at {resolution} pixels is "
                        f"{ms!r}."
                    )

    def _blocks_at(self, resolution: int) -> dict[str, tuple[Block, float]]:
        """Each block at a resolution that was measured, with its ms above overhead, by its key."""
        latencies = {**self.block_ms, **self.by_resolution.get(resolution, {})}
        blocks = distinct_blocks(self.space, self.num_classes, [resolution])
        for key in blocks:
            if key not in latencies:
                raise UsageError(f"The latency table of {self.space.name} lacks the block {key}.")
        return {
            key: (block, max(latencies[key] - self.overhead_ms, 0.0))
            for key, block in blocks.items()
        }

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
        # A restriction by resolutions is kept, for which the blocks may be all that was measured.
        space = {"space": self.space.name, "space_resolutions": self.space.resolutions}
        write_json(path, {"format": _FORMAT, **fields, **space})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        space: SearchSpace | None = None,
        precision: str | None = None,
        form: str | None = None,
    ) -> LatencyTable:
        """Reads what `save` wrote, a published YAML file, or a folder of them.

        The table answers for the resolutions of the space that the file answers for. A folder
        has one `*_lookup_table.yaml` for each of some resolutions: it answers from the least to
        the largest of these, and is exact at each.

        Args:
            path: the file or the folder.
            space: the space, or a restriction of it, to answer for; None for the file's own, if
                that is a built-in one, and for published files the one that has their blocks.
            precision: what the table must be of, e.g. "int8"; None for any. Published files do
                not tell theirs, and are taken for any.
            form: likewise.

        Raises:
            UsageError: the file is missing, damaged, of another space, precision or form, lacks a
                block, has one twice, or a latency that is no positive number; names the file and
                the thing.
        """
        path = pathlib.Path(path)
        if path.is_dir() or path.suffix in (".yaml", ".yml"):
            return cls._load_published(path, space)
        try:
            table = cls._from_fields(_read_fields(path), space)
            if precision is not None and table.precision != precision:
                raise ValueError(f"it is of {table.precision} models, not of {precision}.")
            if form is not None and table.form != form:
                raise ValueError(f"it is of models in the {table.form} form, not the {form} one.")
            return table
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"The latency table {path} cannot be used: {_said(error)} Measure it anew, or "
                f"choose another file."
            ) from error

    @classmethod
    def _from_fields(cls, fields: dict[str, Any], space: SearchSpace | None) -> LatencyTable:
        """The table of a file's content, for the resolutions that both it and the space have."""
        if fields.pop("format") != _FORMAT:
            raise ValueError("it is no latency table, or of another version.")
        name, answered = fields.pop("space"), fields.pop("space_resolutions")
        space = space or built_in_space(name)
        if name != space.name:
            raise ValueError(f"it is of {name}, not of {space.name}.")
        kept = [side for side in space.resolutions if side in answered]
        if not kept:
            raise ValueError(f"it is for {answered} pixels, not for {list(space.resolutions)}.")
        if len(kept) < len(space.resolutions):
            space = space.restrict(resolutions=kept)
        fields["resolutions"] = tuple(fields["resolutions"])
        fields["rows"] = tuple(fields["rows"])
        fields["by_resolution"] = {
            int(resolution): latencies for resolution, latencies in fields["by_resolution"].items()
        }
        return cls(space=space, **fields)

    @classmethod
    def _load_published(cls, path: pathlib.Path, space: SearchSpace | None) -> LatencyTable:
        from ofa_tf.interop.latency_yaml import read_latency_tables

        published = read_latency_tables(path, space)
        return cls(
            space=published.space,
            num_classes=published.num_classes,
            resolutions=tuple(published.latencies),
            block_ms={},
            overhead_ms=0.0,
            form="plain",
            setup={"source": f"published table {path.name}"},
            by_resolution=published.latencies,
        )


def _curves(
    known: Iterable[Mapping[str, tuple[Block, float]]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pixels of the input, ascending, and the ms there, by each block's `shape_key`."""
    points: dict[str, dict[int, list[float]]] = {}
    for blocks in known:
        for block, ms in blocks.values():
            curve = points.setdefault(shape_key(block), {})
            curve.setdefault(block.in_size**2, []).append(ms)
    return {
        shape: (np.array(sorted(curve)), np.array([np.mean(curve[p]) for p in sorted(curve)]))
        for shape, curve in points.items()
    }


def _read_fields(path: pathlib.Path) -> dict[str, Any]:
    """The content of a JSON file. Raises ValueError where a key is there twice."""

    def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"{key} is there twice, as {found[key]!r} and as {value!r}.")
            found[key] = value
        return found

    return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=without_repetition)


def _said(error: Exception) -> str:
    """What an error says, as a sentence."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}."
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text if text.endswith(".") else f"{text}."


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
