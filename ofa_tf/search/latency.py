"""LatencyTable: the latency of any arch from block latencies that were measured on a device."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.fields import Fields, is_number
from ofa_tf.files import read_json, write_json
from ofa_tf.search.ranks import kendall
from ofa_tf.spaces import BlockCosts, Blueprint, SearchSpace, built_in_space
from ofa_tf.spaces.blueprint import Block

# The slopes of kinds are drawn to the one slope of all blocks, as if known to be within about 0.2
# of it where subnets scatter by 4 %: a kind that takes little time would else have any slope.
_TIE = (0.04 / 0.2) ** 2
_WORTH_IT = 0.95  # more than one slope only where it brings the error below this share


def _by_weights(block: Block) -> str:
    """Whether a block reads more weights than activations."""
    weights = sum(layer.weights for layer in block.weighted_layers)
    activations = block.in_size**2 * block.in_channels + block.out_size**2 * block.out_channels
    return "weights" if weights > activations else "activations"


# The ways to sort blocks into kinds, each with its slope; the simplest first. More of them would
# predict random subnets as well, but a search finds the kinds that are taken for too fast.
GROUPINGS: Mapping[str, Callable[[Block], str]] = {
    "all": lambda block: "all",
    "weights": _by_weights,
}


class Correction(NamedTuple):
    """`sum(slope of the block's kind * its ms) + constant_ms`; none of these is negative.

    Args:
        grouping: the key in GROUPINGS that tells the kind of a block.
        slope: of all blocks alike; of kinds that no subnet had.
        slopes: of the kinds; empty where all blocks have one slope.
        constant_ms: what a whole model takes besides its blocks.
        errors: by grouping, the root mean square of the relative errors of subnets that were
            left out of its fit, one after the other.
    """

    grouping: str
    slope: float
    slopes: dict[str, float]
    constant_ms: float
    errors: dict[str, float]


def fit_correction(
    plans: Sequence[Blueprint], measured: np.ndarray, block_ms: Callable[[Block, int], float]
) -> Correction:
    """The correction of least relative error, of the form that cross-validation prefers.

    Args:
        plans: whole subnets, two or more.
        measured: their latencies in ms, float64 (n,).
        block_ms: the latency of a block, by the block and the resolution of its network.
    """
    sums = {grouping: _sums(plans, block_ms, grouping) for grouping in GROUPINGS}
    errors = {grouping: _left_out_error(rows, measured) for grouping, (_, rows) in sums.items()}
    chosen = "all"
    for grouping, error in errors.items():
        if error < _WORTH_IT * errors[chosen]:
            chosen = grouping
    kinds, rows = sums[chosen]
    slopes, constant = _fit(rows, measured)
    if chosen == "all":
        return Correction(chosen, float(slopes[0]), {}, constant, errors)
    by_kind = dict(zip(kinds, slopes.tolist(), strict=True))
    return Correction(chosen, _one_slope(rows, measured), by_kind, constant, errors)


def _sums(
    plans: Sequence[Blueprint], block_ms: Callable[[Block, int], float], grouping: str
) -> tuple[list[str], np.ndarray]:
    """The kinds of block that there are, and each plan's ms by kind: (plans, kinds)."""
    kind_of = GROUPINGS[grouping]
    kinds = sorted({kind_of(block) for plan in plans for block in plan.blocks})
    rows = np.zeros((len(plans), len(kinds)))
    for row, plan in zip(rows, plans, strict=True):
        for block in plan.blocks:
            row[kinds.index(kind_of(block))] += block_ms(block, plan.resolution)
    return kinds, rows


def _fit(rows: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, float]:
    """A slope for each column of rows, and the constant; none below zero."""
    kinds = rows.shape[1]
    relative = np.column_stack([rows, np.ones(len(rows))]) / measured[:, None]
    # A single slope is free.
    tie = np.sqrt(_TIE) * np.eye(kinds if kinds > 1 else 0, kinds + 1)
    slope = _one_slope(rows, measured)
    matrix = np.concatenate([relative, tie])
    target = np.concatenate([np.ones(len(rows)), tie.sum(axis=1) * slope])
    *slopes, constant = _least_squares(matrix, target)
    if not any(slopes):  # the latencies have nothing to do with the blocks
        return np.full(kinds, slope), 0.0
    return np.array(slopes), float(constant)


def _one_slope(rows: np.ndarray, measured: np.ndarray) -> float:
    """The slope for all blocks that has the least relative error, without a constant."""
    relative = rows.sum(axis=1) / measured
    return float(relative.sum() / (relative**2).sum())


def _least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares without negative numbers: what would be negative is 0, one after the other."""
    found = np.zeros(matrix.shape[1])
    free = np.arange(matrix.shape[1])
    while len(free):
        values = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
        if values.min() >= 0:
            found[free] = values
            break
        free = np.delete(free, values.argmin())
    return found


def _left_out_error(rows: np.ndarray, measured: np.ndarray) -> float:
    """Root mean square of the relative errors of subnets left out of the fit one by one."""
    errors = []
    for index in range(len(rows)):
        others = np.arange(len(rows)) != index
        slopes, constant = _fit(rows[others], measured[others])
        errors.append((rows[index] @ slopes + constant) / measured[index] - 1)
    return float(np.sqrt(np.mean(np.square(errors))))


def relative_errors(measured: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """How well predictions agree: n, mape, bias and worst (relative), and kendall.

    Without predictions all but n are None; kendall also where one array is constant.
    """
    if not len(measured):
        return {"n": 0, "mape": None, "bias": None, "worst": None, "kendall": None}
    relative = predicted / measured - 1
    tau = kendall(measured, predicted)
    return {
        "n": len(measured),
        "mape": float(np.abs(relative).mean()),
        "bias": float(relative.mean()),
        "worst": float(np.abs(relative).max()),
        "kendall": tau if np.isfinite(tau) else None,
    }


_FORMAT = "ofa_tf latency table 3"
_REMEDY = "Measure it anew, or choose another file."
_MOST_MS = 1e7  # nearly three hours, which no network takes
_MOST_BLOCKS = 1000  # of the slowest kind, which no network has


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
            if not (is_number(ms) and 0 < ms <= _MOST_MS):
                raise UsageError(
                    f"A latency table needs positive numbers up to {_MOST_MS:g}; {key} is {ms!r}."
                )
        for name, ms in {"overhead_ms": self.overhead_ms, "constant_ms": self.constant_ms}.items():
            if not (is_number(ms) and 0 <= ms <= _MOST_MS):
                raise UsageError(
                    f"A latency table needs numbers from 0 to {_MOST_MS:g}; {name} is {ms!r}."
                )
        if self.grouping not in GROUPINGS:
            raise UsageError(f"grouping is one of {', '.join(GROUPINGS)}, not {self.grouping!r}.")
        for kind, slope in self.slopes.items():
            if not (is_number(slope) and 0 <= slope <= _MOST_MS):
                raise UsageError(f"A slope is from 0 to {_MOST_MS:g}; that of {kind} is {slope!r}.")
        for resolution, latencies in self.by_resolution.items():
            for key, ms in latencies.items():
                if not (is_number(ms) and 0 <= ms <= _MOST_MS):
                    raise UsageError(
                        f"A latency table needs numbers from 0 to {_MOST_MS:g}; {key} at "
                        f"{resolution} pixels is {ms!r}."
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
            values = read_json(path, kind=dict)
            table = cls._from_fields(Fields(values, "it", "", error_type=ValueError), space)
            table._check_plausible()
            if precision is not None and table.precision != precision:
                raise ValueError(f"it is of {table.precision} models, not of {precision}.")
            if form is not None and table.form != form:
                raise ValueError(f"it is of models in the {table.form} form, not the {form} one.")
            return table
        except (FailureError, ValueError) as error:
            raise UsageError(
                f"The latency table {path} cannot be used: {str(error).strip().rstrip('.')}. "
                f"{_REMEDY}"
            ) from error

    @classmethod
    def _from_fields(cls, fields: Fields, space: SearchSpace | None) -> LatencyTable:
        """The table of a file's content, for the resolutions that both it and the space have."""
        if fields.text("format") != _FORMAT:
            raise ValueError("it is no latency table, or of another version.")
        name, answered = fields.text("space"), fields.numbers("space_resolutions")
        space = space or built_in_space(name)
        if name != space.name:
            raise ValueError(f"it is of {name}, not of {space.name}.")
        kept = [side for side in space.resolutions if side in answered]
        if not kept:
            raise ValueError(
                f"it is for {list(answered)} pixels, not for {list(space.resolutions)}."
            )
        if len(kept) < len(space.resolutions):
            space = space.restrict(resolutions=kept)
        by_resolution = fields.fields("by_resolution")
        return cls(
            space=space,
            num_classes=fields.whole("num_classes", 1),
            resolutions=tuple(map(int, fields.numbers("resolutions"))),
            block_ms=fields.named_numbers("block_ms"),
            overhead_ms=fields.number("overhead_ms"),
            slope=fields.number("slope"),
            constant_ms=fields.number("constant_ms"),
            grouping=fields.text("grouping"),
            slopes=fields.named_numbers("slopes"),
            precision=fields.text("precision"),
            form=fields.text("form"),
            setup=dict(fields.fields("setup").items()),
            report=dict(fields.fields("report").items()),
            rows=tuple(dict(row.items()) for row in fields.several("rows")),
            by_resolution={
                _pixels(resolution): by_resolution.named_numbers(resolution)
                for resolution, _ in by_resolution.items()
            },
        )

    def _check_plausible(self) -> None:
        """Raises UsageError where what a table would predict is no latency."""
        at_each = [self.block_ms, *self.by_resolution.values()]
        slowest = max(ms for latencies in at_each for ms in latencies.values())
        if not self.overhead_ms < slowest:
            raise UsageError(
                f"overhead_ms, of a model that does next to nothing, is {self.overhead_ms:g}, but "
                f"the slowest block takes {slowest:g}."
            )
        if not self.constant_ms <= _MOST_BLOCKS * slowest:
            raise UsageError(
                f"constant_ms, which a model takes besides its blocks, is {self.constant_ms:g}, "
                f"but the slowest block takes {slowest:g}."
            )
        (least, code), most = self.minimum(), self._costs.ceiling() + self.constant_ms
        if not 0 < least <= most <= _MOST_MS:
            raise UsageError(
                f"it predicts from {least:g} ms, for {self.space.decode(code[None])[0].to_json()}, "
                f"to {most:g}; a latency is above 0 and up to {_MOST_MS:g} ms."
            )

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


def _pixels(key: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", key):
        raise ValueError(f"by_resolution has {key!r:.80}, which is no number of pixels.")
    return int(key)
