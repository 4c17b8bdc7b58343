"""The columns of a drawing of subnets: equal places of blocks stand below each other."""

from __future__ import annotations

from collections.abc import Iterable

from ofa_tf.spaces import Blueprint
from ofa_tf.spaces.blueprint import Block


def columns_of(plans: Iterable[Blueprint]) -> list[object]:
    """The places that some plan has, each once, in the order of their blocks."""
    columns: list[object] = []
    for plan in plans:
        after = 0
        for place in map(place_of, plan.blocks):
            if place not in columns:
                columns.insert(after, place)
            after = columns.index(place) + 1
    return columns


def place_of(block: Block) -> object:
    """The name of a fixed block, or the position of an elastic one."""
    position = getattr(block, "position", None)
    return block.name if position is None else position
