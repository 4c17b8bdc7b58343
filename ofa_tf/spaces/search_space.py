"""SearchSpace: the choices of a family of subnets, as data, and all that is done with them.

An arch is encoded as one row of integers, the index of each choice:
`[depth of each stage | kernel of each position | expand ratio of each position | widths |
resolution]`, with -1 at the positions that the depths switch off. Everything random or
evolutionary works on whole arrays of such rows.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import Blueprint, Sizes

OFF = -1  # the code of a position that its stage's depth switches off
SIZE_FIELDS = ("active", *Sizes.FIELDS)  # of `SearchSpace.sizes`


class Family(Protocol):
    """Draws the Blueprint of any arch of its kind; one file of this folder per family.

    A frozen dataclass of what its spaces differ in. docs/SEARCH_SPACE.md writes one.
    """

    @property
    def num_widths(self) -> int:
        """How many width multipliers an arch chooses; 0 where widths are fixed."""

    def stage_runs(self, depths: Sequence[int]) -> tuple[Mapping[int, int], ...]:
        """How many block positions run in each stage, by each depth that it can have.

        A depth that switches nothing but a block without choices of its own runs 0 positions.
        """

    def blueprint(self, arch: Arch, num_classes: int) -> Blueprint:
        """The plan of a (canonical) arch."""


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The choices that are open to an arch, and the family that draws it.

    Args:
        name: the id under which `get_space` knows it; in a file of one's own, any other.
        family: the family of networks: one of those here, or one's own.
        depths: allowed depths of a stage, as the family counts them.
        kernel_sizes: allowed kernels of a block.
        expand_ratios: allowed ratios of a block's middle width to its input's or output's.
        resolutions: allowed sides of the input image in pixels.
        widths: allowed indices of the family's width multipliers, where it has them.
        parent: the unrestricted space that this one restricts; codes are the same in both.
        source: the text of the user's file that defines it; `get_space` fills it in.
    """

    name: str
    family: Family
    depths: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[float, ...]
    resolutions: tuple[int, ...]
    widths: tuple[int, ...] = ()
    parent: SearchSpace | None = None
    source: str = dataclasses.field(default="", compare=False, repr=False)

    # -- layout of a code -----------------------------------------------------------------------

    @property
    def root(self) -> SearchSpace:
        """The unrestricted space, which decides what the integers of a code mean."""
        return self.parent or self

    @functools.cached_property
    def stage_runs(self) -> tuple[Mapping[int, int], ...]:
        """How many positions run in each stage, by each depth of the unrestricted space."""
        return self.family.stage_runs(self.root.depths)

    @property
    def num_stages(self) -> int:
        return len(self.stage_runs)

    @functools.cached_property
    def stage_positions(self) -> tuple[int, ...]:
        """The number of block positions of each stage."""
        return tuple(max(runs.values()) for runs in self.stage_runs)

    @property
    def num_positions(self) -> int:
        """Block positions of the largest net: blocks that have a kernel and an expand ratio."""
        return sum(self.stage_positions)

    @functools.cached_property
    def columns(self) -> dict[str, slice]:
        """Where each axis lies in a code: depth, kernel, expand, width, resolution."""
        widths = {
            "depth": self.num_stages,
            "kernel": self.num_positions,
            "expand": self.num_positions,
            "width": self.family.num_widths,
            "resolution": 1,
        }
        ends = list(itertools.accumulate(widths.values()))
        return {
            axis: slice(end - width, end)
            for (axis, width), end in zip(widths.items(), ends, strict=True)
        }

    @property
    def code_length(self) -> int:
        return self.columns["resolution"].stop

    @functools.cached_property
    def depth_choices(self) -> tuple[tuple[int, ...], ...]:
        """The depths that the unrestricted space offers in each stage."""
        return tuple(tuple(sorted(runs)) for runs in self.stage_runs)

    def _allowed_depths(self, stage: int) -> tuple[int, ...]:
        """The depths that this space allows in a stage; its largest where none of them fits."""
        choices = self.depth_choices[stage]
        return tuple(depth for depth in choices if depth in self.depths) or choices[-1:]

    def allowed(self, axis: str, stage: int = 0) -> np.ndarray:
        """The indices that this space allows on an axis (for depth: in a stage), ascending."""
        if axis == "depth":
            return _indices(self._allowed_depths(stage), self.depth_choices[stage])
        field = _AXIS_FIELDS[axis]
        return _indices(getattr(self, field), getattr(self.root, field))

    @functools.cached_property
    def num_choices(self) -> tuple[int, ...]:
        """How many choices the unrestricted space has in each column of a code."""
        return tuple(len(allowed) for allowed in self.root._allowed_by_column)

    @functools.cached_property
    def _allowed_by_column(self) -> tuple[np.ndarray, ...]:
        return (
            *(self.allowed("depth", stage) for stage in range(self.num_stages)),
            *[self.allowed("kernel")] * self.num_positions,
            *[self.allowed("expand")] * self.num_positions,
            *[self.allowed("width")] * self.family.num_widths,
            self.allowed("resolution"),
        )

    @functools.cached_property
    def _allowed_table(self) -> tuple[np.ndarray, np.ndarray]:
        """The allowed indices by (column, choice), padded with 0, and how many there are."""
        counts = np.array([len(allowed) for allowed in self._allowed_by_column])
        table = np.zeros((len(counts), counts.max()), np.int32)
        for row, allowed in zip(table, self._allowed_by_column, strict=True):
            row[: len(allowed)] = allowed
        return table, counts

    @functools.cached_property
    def _stage_and_rank(self) -> tuple[np.ndarray, np.ndarray]:
        """The stage of each position, and its place within that stage."""
        stage = np.repeat(np.arange(self.num_stages), self.stage_positions)
        return stage, np.concatenate([np.arange(most) for most in self.stage_positions])

    @functools.cached_property
    def _runs_by_index(self) -> np.ndarray:
        """The number of positions that run, by (stage, index of the depth), padded with 0."""
        most = max(len(choices) for choices in self.depth_choices)
        runs = [
            [runs[depth] for depth in choices]
            for runs, choices in zip(self.stage_runs, self.depth_choices, strict=True)
        ]
        return np.array([[*row, *[0] * (most - len(row))] for row in runs])

    def active(self, codes: np.ndarray) -> np.ndarray:
        """Which positions run: int (n, code length) -> bool (n, positions)."""
        stage, rank = self._stage_and_rank
        runs = self._runs_by_index[np.arange(self.num_stages), codes[:, self.columns["depth"]]]
        return rank < runs[:, stage]

    def canonical(self, codes: np.ndarray) -> np.ndarray:
        """The same codes with -1 at every position that is switched off."""
        codes = codes.copy()
        off = ~self.active(codes)
        for axis in ("kernel", "expand"):
            codes[:, self.columns[axis]][off] = OFF
        return codes

    # -- archs ----------------------------------------------------------------------------------

    def arch(self, choices: Arch | dict) -> Arch:
        """The canonical Arch of a choice, checked to be in this space.

        Raises:
            UsageError: naming the field, the value, its place and the allowed values.
        """
        return self.decode(self.encode([choices]))[0]

    def encode(self, archs: Iterable[Arch | dict]) -> np.ndarray:
        """Codes of archs: int32 (n, code length). Raises UsageError as `arch` does."""
        rows = [self._encode_one(a if isinstance(a, Arch) else Arch.from_dict(a)) for a in archs]
        return np.array(rows, np.int32).reshape(len(rows), self.code_length)

    def _encode_one(self, arch: Arch) -> list[int]:
        root = self.root
        if not arch.kernel_sizes and len(root.kernel_sizes) == 1:
            # Published archs do not spell out what is no choice.
            arch = dataclasses.replace(arch, kernel_sizes=root.kernel_sizes * self.num_positions)
        for field, expected in (
            ("depths", self.num_stages),
            ("kernel_sizes", self.num_positions),
            ("expand_ratios", self.num_positions),
            ("widths", self.family.num_widths),
        ):
            if len(getattr(arch, field)) != expected:
                raise UsageError(
                    f"An arch of {self.name} has {expected} {field}, "
                    f"not {len(getattr(arch, field))}: {list(getattr(arch, field))}."
                )
        depths = [
            self._index("depths", depth, self._allowed_depths(s), choices, self._stage_name(s))
            for s, (depth, choices) in enumerate(zip(arch.depths, self.depth_choices, strict=True))
        ]
        stage, rank = self._stage_and_rank
        rows = {"kernel_sizes": [], "expand_ratios": []}
        for field, row in rows.items():
            for position, value in enumerate(getattr(arch, field)):
                if rank[position] >= self.stage_runs[stage[position]][arch.depths[stage[position]]]:
                    row.append(OFF)
                    continue
                allowed, choices = getattr(self, field), getattr(root, field)
                row.append(self._index(field, value, allowed, choices, f"position {position}"))
        widths = [
            self._index("widths", width, self.widths, root.widths, f"place {place}")
            for place, width in enumerate(arch.widths)
        ]
        resolution = self._index(
            "resolution", arch.resolution, self.resolutions, root.resolutions, "the input"
        )
        return [*depths, *rows["kernel_sizes"], *rows["expand_ratios"], *widths, resolution]

    def _stage_name(self, stage: int) -> str:
        return f"stage {stage}" if self.stage_positions[stage] else f"stage {stage} (the stem)"

    def _index(self, field: str, value: float, allowed: Sequence, choices: Sequence, where: str):
        if value not in allowed:
            raise UsageError(
                f"{field} of {self.name} at {where} is one of {list(allowed)}, not {value}."
            )
        return choices.index(value)

    def decode(self, codes: np.ndarray) -> list[Arch]:
        """The archs of codes (n, code length)."""
        root = self.root
        kernels, expands = (*root.kernel_sizes, 0), (*root.expand_ratios, 0)
        columns = self.columns
        return [
            Arch(
                depths=tuple(
                    choices[i]
                    for choices, i in zip(self.depth_choices, row[columns["depth"]], strict=True)
                ),
                kernel_sizes=tuple(kernels[i] for i in row[columns["kernel"]]),
                expand_ratios=tuple(expands[i] for i in row[columns["expand"]]),
                widths=tuple(root.widths[i] for i in row[columns["width"]]),
                resolution=root.resolutions[row[columns["resolution"]][0]],
            )
            for row in self.canonical(np.asarray(codes)).tolist()
        ]

    def max(self) -> Arch:
        """The largest arch: the last choice everywhere."""
        return self.decode(np.array([[a[-1] for a in self._allowed_by_column]]))[0]

    def min(self) -> Arch:
        """The smallest arch: the first choice everywhere."""
        return self.decode(np.array([[a[0] for a in self._allowed_by_column]]))[0]

    def sample(self, rng: np.random.Generator) -> Arch:
        """An arch drawn uniformly over each choice."""
        return self.decode(self.sample_codes(1, rng))[0]

    def blueprint(self, arch: Arch | dict, num_classes: int = 1000) -> Blueprint:
        """The layer-by-layer plan of an arch of this space."""
        return self.family.blueprint(self.arch(arch), num_classes)

    # -- what a supernet of the space needs to know ------------------------------------------------

    @functools.cached_property
    def elastic_rows(self) -> dict[str, int]:
        """The row in `sizes` of each block that an arch can change, by the block's name."""
        return {name: row for row, name in enumerate(self._varying)}

    @property
    def sizes_shape(self) -> tuple[int, int]:
        """The shape of what `sizes` gives."""
        return len(self.elastic_rows), len(SIZE_FIELDS)

    def sizes(self, arch: Arch | dict) -> np.ndarray:
        """What is active in each elastic block, as the Blueprint has it: int32 (rows, 5).

        The columns are SIZE_FIELDS; the row of a block that is switched off is 0. This is the
        form in which an arch enters the supernet's graph.
        """
        sizes = np.zeros(self.sizes_shape, np.int32)
        for block in self.blueprint(arch).blocks:
            if block.name in self.elastic_rows:
                sizes[self.elastic_rows[block.name]] = (1, *block.sizes.values())
        return sizes

    def varies(self, block_name: str) -> dict[str, bool]:
        """Which SIZE_FIELDS of a block differ between archs of the unrestricted space."""
        return self._varying.get(block_name, dict.fromkeys(SIZE_FIELDS, False))

    @functools.cached_property
    def _varying(self) -> dict[str, dict[str, bool]]:
        """What varies of each block of which anything varies, in the order of the largest net."""
        root = self.root
        seen: dict[str, set[Sizes]] = {}
        for _, plan in root.covering_plans(resolutions=root.resolutions[:1]):
            for block in plan.blocks:
                if block.weighted_layers:
                    seen.setdefault(block.name, set()).add(block.sizes)
        always = {block.name for block in root.blueprint(root.min()).blocks}
        varying = {}
        for name, sizes in seen.items():
            columns = zip(*(size.values() for size in sizes), strict=True)
            several = (len(set(column)) > 1 for column in columns)
            flags = dict(zip(SIZE_FIELDS, (name not in always, *several), strict=True))
            if any(flags.values()):
                varying[name] = flags
        return varying

    def covering_plans(
        self, num_classes: int = 1000, resolutions: Sequence[int] | None = None
    ) -> Iterator[tuple[np.ndarray, Blueprint]]:
        """Codes, int (code length), and plans that together have every block of the space.

        Each is as deep as the unrestricted space allows, with one kernel size and one expand
        ratio throughout. Widths alternate, so that each neighbor meets each.
        """
        columns = self.columns
        code = np.zeros(self.code_length, np.int32)
        code[columns["depth"]] = [len(choices) - 1 for choices in self.depth_choices]
        at = self if resolutions is None else self.root.restrict(resolutions=resolutions)
        pairs = list(itertools.product(self.allowed("width"), repeat=2)) or [(0, 0)]
        for r, k, e, (even, odd) in itertools.product(
            at.allowed("resolution"), self.allowed("kernel"), self.allowed("expand"), pairs
        ):
            code = code.copy()
            code[columns["kernel"]], code[columns["expand"]] = k, e
            code[columns["width"]][0::2], code[columns["width"]][1::2] = even, odd
            code[columns["resolution"]] = r
            yield code, self.family.blueprint(self.decode(code[None])[0], num_classes)

    # -- the space as a whole -------------------------------------------------------------------

    def restrict(
        self,
        depths: Sequence[int] | None = None,
        kernel_sizes: Sequence[int] | None = None,
        expand_ratios: Sequence[float] | None = None,
        resolutions: Sequence[int] | None = None,
        widths: Sequence[int] | None = None,
    ) -> SearchSpace:
        """The part of this space with only these choices; codes keep their meaning.

        The phases of progressive shrinking are such restrictions.

        Raises:
            UsageError: a choice is not in this space, or none is left.
        """
        asked = {
            "depths": depths,
            "kernel_sizes": kernel_sizes,
            "expand_ratios": expand_ratios,
            "resolutions": resolutions,
            "widths": widths,
        }
        kept = {}
        for field, values in asked.items():
            allowed = getattr(self, field)
            values = allowed if values is None else tuple(sorted(set(values)))
            # Nothing is a choice only where there is none.
            if not set(values) <= set(allowed) or bool(values) != bool(allowed):
                raise UsageError(
                    f"{field} of {self.name} can be restricted to some of {list(allowed)}, "
                    f"not to {list(values)}."
                )
            kept[field] = values
        return dataclasses.replace(self, parent=self.root, **kept)

    @property
    def num_subnets(self) -> int:
        """How many different subnets there are; exact."""
        choices = len(self.kernel_sizes) * len(self.expand_ratios)
        per_stage = (
            sum(choices ** runs[depth] for depth in self._allowed_depths(stage))
            for stage, runs in enumerate(self.stage_runs)
        )
        widths = len(self.widths) ** self.family.num_widths
        return len(self.resolutions) * widths * math.prod(per_stage)

    # -- arrays of codes ------------------------------------------------------------------------

    def sample_codes(
        self, count: int, rng: np.random.Generator, coupling: float = 0.0
    ) -> np.ndarray:
        """Codes drawn uniformly over each choice: int32 (count, code length).

        Args:
            count: of codes.
            rng: draws them.
            coupling: the chance that all stages of an arch are equally deep, and as much for all
                blocks to have one kernel, and one width. The sum of many choices that are drawn
                apart is nearly always about its mean: without coupling, archs near the smallest and
                the largest are hardly ever drawn. (CompOFA, arXiv 2104.12642, couples depth and
                width, always.)
        """
        codes = self._draw(count, rng)
        if coupling:
            table, counts = self._allowed_table
            for axes in (("depth",), ("kernel",), ("expand", "width")):
                columns = np.concatenate(
                    [np.arange(self.code_length)[self.columns[axis]] for axis in axes]
                )
                coupled = rng.random((count, 1)) < coupling
                ranks = (rng.random((count, 1)) * counts[columns]).astype(int)
                codes[:, columns] = np.where(coupled, table[columns, ranks], codes[:, columns])
        return self.canonical(codes)

    def mutate(
        self, codes: np.ndarray, rng: np.random.Generator, prob: float, resolution_prob: float
    ) -> np.ndarray:
        """Redraws each stage's depth, block and width with `prob`, the resolution with its own.

        The published mutation (arXiv 1908.09791): kernel and expand ratio of a block go together.
        """
        fresh, columns = self._draw(len(codes), rng), self.columns
        redraw = np.empty(codes.shape, bool)
        redraw[:, columns["depth"]] = rng.random((len(codes), self.num_stages)) < prob
        blocks = rng.random((len(codes), self.num_positions)) < prob
        redraw[:, columns["kernel"]] = redraw[:, columns["expand"]] = blocks
        redraw[:, columns["width"]] = rng.random((len(codes), self.family.num_widths)) < prob
        redraw[:, columns["resolution"]] = rng.random((len(codes), 1)) < resolution_prob
        # A position that a deeper stage switches on has no choice yet, so it takes a fresh one.
        return self.canonical(np.where(redraw | (codes == OFF), fresh, codes))

    def crossover(self, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Children that take each choice from one of two parents, with equal chance."""
        child = np.where(rng.random(a.shape) < 0.5, a, b)
        # Where the parent that was drawn has the position off, the other's choice counts.
        return self.canonical(np.where(child == OFF, np.maximum(a, b), child))

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        table, counts = self._allowed_table
        picks = rng.integers(counts[:, None], size=(len(counts), count))
        return np.take_along_axis(table, picks, axis=1).T.copy()

    def one_hot(self, codes: np.ndarray) -> np.ndarray:
        """The choices of archs as features, float32 (n, features): the accuracy predictor's input.

        One-hot parts in this order: kernel and expand ratio of each position (zeros where off),
        depth of each stage without positions, widths, resolution. The depth of the other stages
        shows in which positions are zero, and what is no choice has no features.
        """
        parts = []
        for columns, choices in self.one_hot_columns:
            parts.append((codes[:, columns, None] == np.arange(choices)).reshape(len(codes), -1))
        return np.concatenate(parts, axis=1).astype(np.float32)

    @functools.cached_property
    def one_hot_columns(self) -> tuple[tuple[list[int], int], ...]:
        """For each part of `one_hot`: the columns of a code, and how many choices they have."""
        root, columns = self.root, np.arange(self.code_length)
        parts = [
            (columns[self.columns["kernel"]], len(root.kernel_sizes)),
            (columns[self.columns["expand"]], len(root.expand_ratios)),
            *(
                (columns[stage : stage + 1], len(self.depth_choices[stage]))
                for stage, positions in enumerate(self.stage_positions)
                if not positions
            ),
            (columns[self.columns["width"]], len(root.widths)),
            (columns[self.columns["resolution"]], len(root.resolutions)),
        ]
        return tuple((list(map(int, where)), choices) for where, choices in parts if choices > 1)


# Which field of a space holds the choices of each axis but depth.
_AXIS_FIELDS = {
    "kernel": "kernel_sizes",
    "expand": "expand_ratios",
    "width": "widths",
    "resolution": "resolutions",
}


def _indices(values: Sequence, choices: Sequence) -> np.ndarray:
    return np.array([choices.index(value) for value in values])
