"""Whether a supernet can be made of a search space, and how two spaces differ.

Built-in spaces pass as those of users do; what is refused would fail later, and less clearly.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import numpy as np

from ofa_tf.errors import UsageError
from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import (
    ACTIVATIONS,
    Block,
    Blueprint,
    Bottleneck,
    Classifier,
    Conv,
    GlobalPool,
    InvertedResidual,
    MaxPool,
    Sizes,
)
from ofa_tf.spaces.cost import BlockCosts
from ofa_tf.spaces.search_space import SearchSpace

_NUM_CLASSES = 10  # of the networks that are drawn; any number shows the same
_NUM_SAMPLES = 20
_LEGAL_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(?<!\.py)", re.ASCII)
_LEGAL_BLOCK_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)  # it begins the names of layers

# Which sizes of a block a supernet can slice, and which blocks it can leave out ("active").
_ELASTIC = {
    Conv: {"active", "out_channels"},
    InvertedResidual: {"active", "kernel_size", "mid_channels", "se_channels"},
    Bottleneck: {"active", "mid_channels", "out_channels"},
    MaxPool: set(),
    GlobalPool: set(),
    Classifier: set(),
}
# What archs may change of a block of one name: its sizes, and what the blocks before decide.
_MAY_DIFFER = {"in_size", "in_channels", *Sizes.FIELDS}


def check_space(space: SearchSpace) -> None:
    """Checks that the choices of a space are in order and that its family draws them.

    Raises:
        UsageError: naming the space, the field or the block, and what was expected.
    """
    _check_fields(space)
    _check_stages(space)
    largest = space.blueprint(space.max(), _NUM_CLASSES)
    _check_chain(space, space.max(), largest)
    _check_strides(space, largest)
    blocks = {block.name: block for block in largest.blocks}
    for arch, plan in _drawn(space):
        _check_chain(space, arch, plan)
        _check_positions(space, arch, plan)
        _check_same_blocks(space, blocks, plan)
    _check_elastic(space, blocks)
    _check_resolutions_do_not_matter(space)
    _check_independence(space)


def difference(was: SearchSpace, now: SearchSpace) -> str | None:
    """The first thing in which the networks of two spaces differ, in words; None where none is."""
    for field in ("depths", "kernel_sizes", "expand_ratios", "widths", "resolutions"):
        if getattr(was, field) != getattr(now, field):
            return f"{field} were {getattr(was, field)}, are {getattr(now, field)}"
    if was.stage_runs != now.stage_runs or was.family.num_widths != now.family.num_widths:
        return f"block positions were {was.stage_positions}, are {now.stage_positions}"
    for before, after in zip(_all_blocks(was), _all_blocks(now), strict=True):
        found = _plan_difference(before, after)
        if found:
            return found
    return None


def _all_blocks(space: SearchSpace) -> Iterator[Blueprint]:
    """Plans that together have every block of a space at one resolution."""
    yield space.blueprint(space.min(), _NUM_CLASSES)
    for _, plan in space.covering_plans(_NUM_CLASSES, space.resolutions[:1]):
        yield plan


def _plan_difference(was: Blueprint, now: Blueprint) -> str | None:
    names = [[block.name for block in plan.blocks] for plan in (was, now)]
    if names[0] != names[1]:
        return f"the blocks were {', '.join(names[0])}, are {', '.join(names[1])}"
    for before, after in [*zip(was.blocks, now.blocks, strict=True), (was, now)]:
        what = getattr(before, "name", "the network")
        if type(before) is not type(after):
            return f"{what} was a {type(before).__name__}, is a {type(after).__name__}"
        for field in dataclasses.fields(before):
            old, new = getattr(before, field.name), getattr(after, field.name)
            if old != new:
                return f"{field.name} of {what} was {old}, is {new}"
    return None


# -- fields ---------------------------------------------------------------------------------------


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# What each choice has to be, in words and as a check.
_CHOICES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "depths": ("whole numbers from 0", lambda v: _is_whole(v) and v >= 0),
    "kernel_sizes": ("odd numbers from 3 to 9", lambda v: _is_whole(v) and v in (3, 5, 7, 9)),
    "expand_ratios": (
        "numbers above 0",
        lambda v: isinstance(v, Real) and not isinstance(v, bool) and 0 < v < math.inf,
    ),
    "resolutions": ("pixels, whole numbers from 1", lambda v: _is_whole(v) and v >= 1),
}


def _check_fields(space: SearchSpace) -> None:
    if not isinstance(space.name, str) or not _LEGAL_NAME.fullmatch(space.name):
        raise UsageError(
            f"The name of a search space is of letters, digits, _, . and -, not with .py at its "
            f"end; not {space.name!r}."
        )
    for field, (expected, fits) in _CHOICES.items():
        values = getattr(space, field)
        in_order = isinstance(values, tuple) and all(map(fits, values)) and bool(values)
        if not in_order or list(values) != sorted(set(values)):
            raise UsageError(
                f"{field} of {space.name} is a tuple of {expected}, ascending, each once; not "
                f"{values!r}."
            )
    if space.parent is not None:
        raise UsageError(f"{space.name} is a restriction; give the whole space.")
    widths, several = space.widths, space.family.num_widths > 0
    if widths != tuple(range(len(widths))) or bool(widths) != several:
        expected = "(0, 1, ...), a number for each width multiplier" if several else "()"
        raise UsageError(f"widths of {space.name} is {expected}, not {widths!r}.")
    mults = getattr(space.family, "width_mults", widths)
    if len(mults) != len(widths):
        raise UsageError(
            f"widths of {space.name} has a number for each of the width_mults {mults} of its "
            f"family; it is {widths}."
        )
    try:
        hash(space)
    except TypeError as error:
        raise UsageError(
            f"The family of {space.name} has to be hashable ({error}): make it a "
            f"dataclass(frozen=True) that holds tuples, not lists."
        ) from error


def _check_stages(space: SearchSpace) -> None:
    """That stage_runs gives numbers of positions which grow with the depth."""
    if not space.stage_runs or not space.num_positions:
        raise UsageError(f"{space.name} has no stage with a block position: see stage_runs.")
    for stage, runs in enumerate(space.stage_runs):
        depths = sorted(runs)
        positions = [runs[depth] for depth in depths]
        fits = set(depths) <= set(space.depths) or len(depths) == 1
        if not depths or not fits or positions != sorted(positions) or min(positions) < 0:
            raise UsageError(
                f"stage_runs of {space.name} has, for each stage, how many positions run at each "
                f"of the depths {list(space.depths)}, not fewer at a larger one; at stage {stage} "
                f"it has {dict(runs)}."
            )


def _check_strides(space: SearchSpace, plan: Blueprint) -> None:
    stride = math.prod(getattr(block, "stride", 1) for block in plan.blocks)
    if space.resolutions[0] < stride:
        raise UsageError(
            f"resolutions of {space.name} are at least {stride} pixels, the product of all "
            f"strides, not {space.resolutions[0]}."
        )


# -- the networks ---------------------------------------------------------------------------------


def _drawn(space: SearchSpace) -> Iterator[tuple[Arch, Blueprint]]:
    """Networks that together have every block at the least and the largest resolution, and more."""
    ends = sorted({space.resolutions[0], space.resolutions[-1]})
    for code, plan in space.covering_plans(_NUM_CLASSES, ends):
        yield space.decode(code[None])[0], plan
    samples = space.decode(space.sample_codes(_NUM_SAMPLES, np.random.default_rng(0)))
    for arch in (space.min(), *samples):
        yield arch, space.blueprint(arch, _NUM_CLASSES)


def _check_chain(space: SearchSpace, arch: Arch, plan: Blueprint) -> None:
    """That each block takes what the one before it gives, from the image to the logits."""
    if plan.resolution != arch.resolution:
        raise _wrong(space, "blueprint", f"is for {plan.resolution} pixels", arch.resolution)
    kinds = [type(block) for block in plan.blocks]
    for block, kind in zip(plan.blocks, kinds, strict=True):
        if kind not in _ELASTIC:
            known = ", ".join(each.__name__ for each in _ELASTIC)
            raise _wrong(space, repr(block), f"is a {kind.__name__}", f"one of {known}")
        if not _LEGAL_BLOCK_NAME.fullmatch(block.name):
            raise _wrong(space, repr(block.name), "names a block", "letters, digits and _")
    names = [block.name for block in plan.blocks]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _wrong(space, twice, "is the name of several blocks", "a name for each")
    if kinds.count(Classifier) != 1 or kinds[-1:] != [Classifier] or kinds.count(GlobalPool) != 1:
        raise _wrong(space, ", ".join(names), "are the blocks", "one GlobalPool, a Classifier last")
    if plan.num_classes != _NUM_CLASSES:
        raise _wrong(space, names[-1], f"has {plan.num_classes} outputs", "num_classes of them")
    size, channels = plan.resolution, 3
    for block in plan.blocks:
        if (block.in_size, block.in_channels) != (size, channels):
            found = f"takes {block.in_size} x {block.in_size} x {block.in_channels}"
            expected = f"{size} x {size} x {channels}, which comes before it"
            raise _wrong(space, block.name, found, expected)
        _check_block(space, block)
        size, channels = block.out_size, block.out_channels


def _check_block(space: SearchSpace, block: Block) -> None:
    """That the layers know what a block asks for."""
    known = {
        "activation": ACTIVATIONS,
        "stride": (1, 2),
        "shortcut": Bottleneck.SHORTCUTS if isinstance(block, Bottleneck) else (True, False),
    }
    for field, values in known.items():
        if hasattr(block, field) and getattr(block, field) not in values:
            found = f"has the {field} {getattr(block, field)!r}"
            raise _wrong(space, block.name, found, f"one of {', '.join(map(str, values))}")
    for field in ("in_channels", *Sizes.FIELDS):
        value = getattr(block, field, 1)
        if not _is_whole(value) or value < (field != "se_channels"):
            raise _wrong(space, block.name, f"has {field} {value!r}", "a whole number above 0")
    if not getattr(block, "kernel_size", 1) % 2:
        raise _wrong(space, block.name, f"has the kernel {block.kernel_size}", "an odd one")
    if getattr(block, "shortcut", False) in (True, "identity") and not _keeps_shape(block):
        raise _wrong(space, block.name, "has a shortcut", "none, where stride or width change")
    if not getattr(block, "expand", True) and block.mid_channels != block.in_channels:
        found = f"has {block.mid_channels} middle channels but no expansion"
        raise _wrong(space, block.name, found, f"the {block.in_channels} of its input")


def _keeps_shape(block: Block) -> bool:
    return (block.in_size, block.in_channels) == (block.out_size, block.out_channels)


def _check_positions(space: SearchSpace, arch: Arch, plan: Blueprint) -> None:
    """That the blocks with choices are those that the arch's depths switch on."""
    wanted = [(place, kernel) for place, kernel in enumerate(arch.kernel_sizes) if kernel]
    found = [(block.position, block.kernel_size) for block in plan.elastic_blocks]
    if found != wanted:
        raise UsageError(
            f"The blueprint of {space.name} at depths {list(arch.depths)} has blocks with the "
            f"positions and kernels {found}; stage_runs and the arch say {wanted}."
        )


def _check_same_blocks(space: SearchSpace, largest: dict[str, Block], plan: Blueprint) -> None:
    """That archs change nothing of a block but its sizes, and these only to smaller ones."""
    names = [block.name for block in plan.blocks]
    if names != [name for name in largest if name in names]:
        raise _wrong(
            space, ", ".join(names), "are the blocks of an arch", "some of the largest's, in order"
        )
    for block in plan.blocks:
        whole = largest[block.name]
        for field in dataclasses.fields(block):
            was, now = (getattr(each, field.name, None) for each in (whole, block))
            if field.name not in _MAY_DIFFER and (type(block) is not type(whole) or was != now):
                found = f"has the {field.name} {now!r}"
                raise _wrong(space, block.name, found, f"{was!r}, as in the largest net")
        for field, now in dataclasses.asdict(block.sizes).items():
            was = getattr(whole.sizes, field)
            if now > was or bool(now) != bool(was):
                found = f"has {field} {now}"
                raise _wrong(space, block.name, found, f"1 to {was}, which the largest net has")


def _check_elastic(space: SearchSpace, largest: dict[str, Block]) -> None:
    """That a supernet can do to a block what archs choose of it."""
    for name, block in largest.items():
        changes = {field for field, varies in space.varies(name).items() if varies}
        too_much = changes - _ELASTIC[type(block)]
        if too_much:
            can = ", ".join(sorted(_ELASTIC[type(block)])) or "nothing"
            found = f"changes {', '.join(sorted(too_much))}"
            raise _wrong(space, name, found, f"{can} of a {type(block).__name__}")
        if "active" in changes and not _keeps_shape(block):
            raise _wrong(
                space, name, "is not in every arch", "a block that keeps its input's size and width"
            )


def _check_resolutions_do_not_matter(space: SearchSpace) -> None:
    ends = [space.restrict(resolutions=[side]) for side in space.resolutions]
    for end in (ends[0], ends[-1]):
        for pick in ("min", "max"):
            sizes = space.sizes(getattr(end, pick)())
            if not np.array_equal(sizes, space.sizes(getattr(ends[0], pick)())):
                found = f"gives other channels at {end.resolutions[0]} pixels"
                raise _wrong(space, "blueprint", found, f"those at {space.resolutions[0]} pixels")


def _check_independence(space: SearchSpace) -> None:
    """That a block depends on its own choices, widths and the resolution only.

    On this rest supernets, which look at the deepest archs to see what varies, and the tables of
    latencies and other costs, which are sums over blocks.
    """
    ends = space.restrict(resolutions={space.resolutions[0], space.resolutions[-1]})
    codes = ends.sample_codes(_NUM_SAMPLES, np.random.default_rng(1))
    costs = BlockCosts(ends, lambda block, _: block.macs + block.params, _NUM_CLASSES)(codes)
    for arch, cost in zip(space.decode(codes), costs, strict=True):
        plan = space.blueprint(arch, _NUM_CLASSES)
        if cost != plan.macs + plan.params:
            raise UsageError(
                f"The blueprint of {space.name} lets a block depend on choices that are not its "
                f"own, as in {arch.to_json()}. A block's shape is decided by its own kernel and "
                f"expand ratio, the widths and the resolution; depths only leave blocks out."
            )


def _wrong(space: SearchSpace, what: str, found: str, expected: Any) -> UsageError:
    return UsageError(f"{space.name}: {what} {found}; expected: {expected}.")
