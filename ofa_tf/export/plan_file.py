"""The network of an exported subnet as files: net.config and run.config, else blueprint.json.

The first two are the reference's format, which cannot hold all that a family of one's own draws.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

from ofa_tf.errors import UsageError, first_line
from ofa_tf.fields import Fields, read_fields
from ofa_tf.interop import read_net_config, to_net_config
from ofa_tf.layers import BLOCK_LAYERS
from ofa_tf.spaces import Blueprint
from ofa_tf.spaces.blueprint import Block

NET_CONFIG, RUN_CONFIG = "net.config", "run.config"
BLUEPRINT = "blueprint.json"

_KINDS = {kind.__name__: kind for kind in BLOCK_LAYERS}


def plan_texts(plan: Blueprint) -> dict[str, str]:
    """The content of the files that describe a network, by their names."""
    try:
        config = to_net_config(plan)
    except UsageError:
        return {BLUEPRINT: json.dumps(_as_json(plan), indent=2) + "\n"}
    return {
        NET_CONFIG: json.dumps(config, indent=4) + "\n",
        RUN_CONFIG: json.dumps({"image_size": plan.resolution}) + "\n",
    }


def plan_file(folder: pathlib.Path) -> pathlib.Path:
    """The file of a folder that describes its network, or would."""
    own = folder / BLUEPRINT
    return own if own.is_file() else folder / NET_CONFIG


def read_plan(folder: pathlib.Path) -> Blueprint:
    """The network that the files of a folder describe.

    Raises:
        UsageError: the net.config is damaged.
        FailureError: the blueprint.json is damaged, or none of them is there.
    """
    path = plan_file(folder)
    if path.name == NET_CONFIG:
        return read_net_config(path)
    fields = read_fields(path, "Export the subnet again.")
    blocks = tuple(map(_read_block, fields.several("blocks")))
    plan = fields.record(Blueprint, blocks=blocks)
    try:
        # Another value of a field would be found by what is made of it.
        _ = plan.macs, plan.params, plan.num_classes
    except (ArithmeticError, AttributeError, IndexError) as error:
        raise fields.error(f"its blocks are of no network: {first_line(error)}") from error
    return plan


def _read_block(block: Fields) -> Block:
    kind = block.text("kind")
    if kind not in _KINDS:
        raise block.error(f"{block.place('kind')} is {kind!r:.80}, none of {', '.join(_KINDS)}")
    return block.record(_KINDS[kind], kind=None)


def _as_json(plan: Blueprint) -> dict:
    blocks = [{"kind": type(block).__name__, **dataclasses.asdict(block)} for block in plan.blocks]
    return {**dataclasses.asdict(plan), "blocks": blocks}
