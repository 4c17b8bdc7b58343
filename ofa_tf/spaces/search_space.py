"""SearchSpace: the choices of a family of subnets, as data, and all that is done with them.

An arch is encoded as one row of integers, the index of each choice:
`[depth of each stage | kernel of each position | expand ratio of each position | resolution]`,
with -1 at the positions that the depths switch off. Everything random or evolutionary works on
whole arrays of such rows.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import Blueprint

OFF = -1  # the code of a position that its stage's depth switches off
SIZE_FIELDS = ("active", "kernel_size", "mid_channels", "se_channels")  # of `SearchSpace.sizes`


class Family(Protocol):
    """Draws the Blueprint of any arch of its kind; one file of this folder per family."""

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """The number of block positions of each stage."""

    def blueprint(self, arch: Arch, num_classes: int) -> Blueprint:
        """The plan of a (canonical) arch."""


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The choices that are open to an arch, and the family that draws it.

    Args:
        name: the id under which `get_space` knows it.
        family: the family of networks.
        depths: allowed blocks per stage. A stage with fewer positions takes what fits it.
        kernel_sizes: allowed depthwise kernels.
        expand_ratios: allowed ratios of middle to input width.
        resolutions: allowed sides of the input image in pixels.
        parent: the unrestricted space that this one restricts; codes are the same in both.
    """

    name: str
    family: Family
    depths: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[float, ...]
    resolutions: tuple[int, ...]
    parent: SearchSpace | None = None

    # -- layout of a code -----------------------------------------------------------------------

    @property
    def root(self) -> SearchSpace:
        """The unrestricted space, which decides what the integers of a code mean."""
        return self.parent or self

    @property
    def num_stages(self) -> int:
        return len(self.family.stage_depths)

    @property
    def num_positions(self) -> int:
        """Block positions of the largest net."""
        return sum(self.family.stage_depths)

    @property
    def sizes_shape(self) -> tuple[int, int]:
        """The shape of what `sizes` gives."""
        return self.num_positions, len(SIZE_FIELDS)

    @functools.cached_property
    def stage_starts(self) -> tuple[int, ...]:
        """The first position of each stage."""
        return tuple(itertools.accumulate((0, *self.family.stage_depths[:-1])))

    @functools.cached_property
    def columns(self) -> dict[str, slice]:
        """Where each axis lies in a code: depth, kernel, expand, resolution."""
        widths = {
            "depth": self.num_stages,
            "kernel": self.num_positions,
            "expand": self.num_positions,
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
        return tuple(_fitting(self.root.depths, most) for most in self.family.stage_depths)

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """(positions, kernels, expand ratios) of the unrestricted space."""
        root = self.root
        return (self.num_positions, len(root.kernel_sizes), len(root.expand_ratios))

    def allowed(self, axis: str, stage: int = 0) -> np.ndarray:
        """The indices that this space allows on an axis (for depth: in a stage), ascending."""
        if axis == "depth":
            fits = _fitting(self.depths, self.family.stage_depths[stage])
            return _indices(fits, self.depth_choices[stage])
        field = {"kernel": "kernel_sizes", "expand": "expand_ratios", "resolution": "resolutions"}
        return _indices(getattr(self, field[axis]), getattr(self.root, field[axis]))

    @functools.cached_property
    def _allowed_by_column(self) -> tuple[np.ndarray, ...]:
        return (
            *(self.allowed("depth", stage) for stage in range(self.num_stages)),
            *[self.allowed("kernel")] * self.num_positions,
            *[self.allowed("expand")] * self.num_positions,
            self.allowed("resolution"),
        )

    @functools.cached_property
    def _stage_and_rank(self) -> tuple[np.ndarray, np.ndarray]:
        """The stage of each position, and its place within that stage."""
        depths = self.family.stage_depths
        stage = np.repeat(np.arange(len(depths)), depths)
        return stage, np.concatenate([np.arange(d) for d in depths])

    @functools.cached_property
    def always_active(self) -> tuple[bool, ...]:
        """Whether each position runs in every arch of the unrestricted space."""
        stage, rank = self._stage_and_rank
        least = np.array([min(choices) for choices in self.depth_choices])
        return tuple((rank < least[stage]).tolist())

    @functools.cached_property
    def _depth_values(self) -> np.ndarray:
        """Depth by (stage, index), padded with 0."""
        most = max(len(choices) for choices in self.depth_choices)
        return np.array([[*c, *[0] * (most - len(c))] for c in self.depth_choices])

    def active(self, codes: np.ndarray) -> np.ndarray:
        """Which positions run: int (n, code length) -> bool (n, positions)."""
        stage, rank = self._stage_and_rank
        depths = self._depth_values[np.arange(self.num_stages), codes[:, self.columns["depth"]]]
        return rank < depths[:, stage]

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
        for field, expected in (
            ("depths", self.num_stages),
            ("kernel_sizes", self.num_positions),
            ("expand_ratios", self.num_positions),
            ("widths", 0),
        ):
            if len(getattr(arch, field)) != expected:
                raise UsageError(
                    f"An arch of {self.name} has {expected} {field}, "
                    f"not {len(getattr(arch, field))}: {list(getattr(arch, field))}."
                )
        depths = [
            self._index("depths", depth, _fitting(self.depths, most), choices, f"stage {s}")
            for s, (depth, most, choices) in enumerate(
                zip(arch.depths, self.family.stage_depths, self.depth_choices, strict=True)
            )
        ]
        stage, rank = self._stage_and_rank
        rows = {"kernel_sizes": [], "expand_ratios": []}
        for field, row in rows.items():
            for position, value in enumerate(getattr(arch, field)):
                if rank[position] >= arch.depths[stage[position]]:
                    row.append(OFF)
                    continue
                allowed, choices = getattr(self, field), getattr(self.root, field)
                row.append(self._index(field, value, allowed, choices, f"position {position}"))
        resolution = self._index(
            "resolution", arch.resolution, self.resolutions, self.root.resolutions, "the input"
        )
        return [*depths, *rows["kernel_sizes"], *rows["expand_ratios"], resolution]

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

    def sizes(self, arch: Arch | dict) -> np.ndarray:
        """What is active at each position, as the Blueprint has it: int32 (positions, 4).

        The columns are SIZE_FIELDS; the row of a position that is switched off is 0. This is the
        form in which an arch enters the supernet's graph.
        """
        sizes = np.zeros(self.sizes_shape, np.int32)
        for block in self.blueprint(arch).elastic_blocks:
            row = (1, block.kernel_size, block.mid_channels, block.se_channels)
            sizes[block.position] = row
        return sizes

    def uniform_blueprint(
        self, resolution: int, kernel: int, expand: int, num_classes: int
    ) -> Blueprint:
        """The plan of the deepest arch with one kernel and one expand ratio (all by index)."""
        code = np.full((1, self.code_length), 0, np.int32)
        code[0, self.columns["depth"]] = [len(choices) - 1 for choices in self.depth_choices]
        code[0, self.columns["kernel"]] = kernel
        code[0, self.columns["expand"]] = expand
        code[0, self.columns["resolution"]] = resolution
        return self.family.blueprint(self.decode(code)[0], num_classes)

    # -- the space as a whole -------------------------------------------------------------------

    def restrict(
        self,
        depths: Sequence[int] | None = None,
        kernel_sizes: Sequence[int] | None = None,
        expand_ratios: Sequence[float] | None = None,
        resolutions: Sequence[int] | None = None,
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
        }
        kept = {}
        for field, values in asked.items():
            allowed = getattr(self, field)
            values = allowed if values is None else tuple(sorted(set(values)))
            if not values or not set(values) <= set(allowed):
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
            sum(choices**depth for depth in _fitting(self.depths, most))
            for most in self.family.stage_depths
        )
        return len(self.resolutions) * math.prod(per_stage)

    # -- arrays of codes ------------------------------------------------------------------------

    def sample_codes(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Codes drawn uniformly over each choice: int32 (count, code length)."""
        return self.canonical(self._draw(count, rng))

    def mutate(
        self, codes: np.ndarray, rng: np.random.Generator, prob: float, resolution_prob: float
    ) -> np.ndarray:
        """Redraws each stage's depth and each block with `prob`, the resolution with its own.

        The published mutation (arXiv 1908.09791): kernel and expand ratio of a block go together.
        """
        fresh, columns = self._draw(len(codes), rng), self.columns
        redraw = np.empty(codes.shape, bool)
        redraw[:, columns["depth"]] = rng.random((len(codes), self.num_stages)) < prob
        blocks = rng.random((len(codes), self.num_positions)) < prob
        redraw[:, columns["kernel"]] = redraw[:, columns["expand"]] = blocks
        redraw[:, columns["resolution"]] = rng.random((len(codes), 1)) < resolution_prob
        # A position that a deeper stage switches on has no choice yet, so it takes a fresh one.
        return self.canonical(np.where(redraw | (codes == OFF), fresh, codes))

    def crossover(self, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Children that take each choice from one of two parents, with equal chance."""
        child = np.where(rng.random(a.shape) < 0.5, a, b)
        # Where the parent that was drawn has the position off, the other's choice counts.
        return self.canonical(np.where(child == OFF, np.maximum(a, b), child))

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        columns = [rng.choice(allowed, count) for allowed in self._allowed_by_column]
        return np.stack(columns, axis=1).astype(np.int32)

    def one_hot(self, codes: np.ndarray) -> np.ndarray:
        """Kernel and expand ratio of each position (zeros where off), and resolution, one-hot.

        The input of the accuracy predictor, float32 (n, features). A stage's depth shows in
        which of its positions are zero, so it has no features of its own.
        """
        parts = []
        for axis, choices in (
            ("kernel", self.root.kernel_sizes),
            ("expand", self.root.expand_ratios),
            ("resolution", self.root.resolutions),
        ):
            part = codes[:, self.columns[axis], None] == np.arange(len(choices))
            parts.append(part.reshape(len(codes), -1))
        return np.concatenate(parts, axis=1).astype(np.float32)


def _fitting(depths: Sequence[int], most: int) -> tuple[int, ...]:
    """The depths that a stage of `most` positions can have; all of it where none fits."""
    return tuple(d for d in depths if d <= most) or (most,)


def _indices(values: Sequence, choices: Sequence) -> np.ndarray:
    return np.array([choices.index(value) for value in values])
