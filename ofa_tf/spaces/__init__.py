"""Search spaces, archs, blueprints and what they cost. NumPy only; no TensorFlow.

For a space of one's own there are the families and their stages too; the blocks of which a family
of one's own is made are in `ofa_tf.spaces.blueprint` and `ofa_tf.spaces.stages`.
"""

import os
from collections.abc import Callable

from ofa_tf.errors import UsageError
from ofa_tf.spaces import mobilenet_v3, proxyless, resnet50
from ofa_tf.spaces.arch import Arch, read_arch
from ofa_tf.spaces.blueprint import Blueprint
from ofa_tf.spaces.checks import check_space
from ofa_tf.spaces.cost import BlockCosts
from ofa_tf.spaces.mobilenet_v3 import MobileNetV3
from ofa_tf.spaces.proxyless import ProxylessNAS
from ofa_tf.spaces.resnet50 import BottleneckStage, ResNet50D
from ofa_tf.spaces.search_space import Family, SearchSpace
from ofa_tf.spaces.space_file import SpaceFile, as_space_file, read_space, source_hash
from ofa_tf.spaces.stages import Stage

__all__ = [
    "Arch",
    "BlockCosts",
    "Blueprint",
    "BottleneckStage",
    "Family",
    "MobileNetV3",
    "ProxylessNAS",
    "ResNet50D",
    "SearchSpace",
    "Stage",
    "built_in_space",
    "check_space",
    "get_space",
    "is_built_in",
    "list_spaces",
    "own_space",
    "read_arch",
    "source_hash",
]

_SPACES = {
    space.name: space for family in (mobilenet_v3, proxyless, resnet50) for space in family.SPACES
}

# These have their activation in their id: "ofa_mbv3_w1.0-swish".
_VARIANTS = {space.name: space for space in mobilenet_v3.VARIANTS}

# Under which their authors publish them.
_PUBLISHED_NAMES = {
    "ofa_mbv3_d234_e346_k357_w1.0": "ofa_mbv3_w1.0",
    "ofa_mbv3_d234_e346_k357_w1.2": "ofa_mbv3_w1.2",
    "ofa_proxyless_d234_e346_k357_w1.3": "ofa_proxyless_w1.3",
    "ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0": "ofa_resnet50",
}


def list_spaces() -> list[str]:
    """The ids that `get_space` knows, without those that have another activation at their end."""
    return list(_SPACES)


def get_space(name: str | os.PathLike, activation: str | None = None) -> SearchSpace:
    """The search space of that id, or in that file; the published long ids are known too.

    Args:
        name: the id. Those of MobileNetV3 can end in another activation: "ofa_mbv3_w1.0-swish".
            Or a Python file that defines a space, "my_space.py"; of several "my_space.py:small".
        activation: "swish" or "relu6" for the space of that ending; None for that of the name.

    Raises:
        UsageError: no space has that id, and the message lists the known ones; or the space
            cannot have that activation; or the file has no such space, or is wrong.
    """
    file = as_space_file(name)
    if file is not None:
        return _own_space(file, activation)
    space = built_in_space(name)
    if activation is None or space.name.endswith(f"-{activation}"):
        return space
    if f"{space.name}-{activation}" not in _VARIANTS:
        raise UsageError(
            f"{space.name} cannot have the activation {activation!r} instead of its own; "
            f"{' or '.join(mobilenet_v3.ACTIVATIONS)} can be chosen for "
            f"{', '.join(each.name for each in mobilenet_v3.SPACES)}."
        )
    return _VARIANTS[f"{space.name}-{activation}"]


def built_in_space(name: str) -> SearchSpace:
    """As `get_space`, of names alone: where a name is read from a file, it must not run another."""
    name = _PUBLISHED_NAMES.get(name, name)
    space = _SPACES.get(name) or _VARIANTS.get(name)
    if space is None:
        endings = " or ".join(f"-{each}" for each in mobilenet_v3.ACTIVATIONS)
        raise UsageError(
            f"There is no search space {name!r}; known: {', '.join(_SPACES)}. Those of "
            f"MobileNetV3 (ofa_mbv3_...) can have {endings} at the end, for that activation. One "
            f"of your own is given by its file, my_space.py."
        )
    return space


def is_built_in(name: str) -> bool:
    """Whether `built_in_space` knows a name."""
    return name in {*_SPACES, *_VARIANTS, *_PUBLISHED_NAMES}


def own_space(file: SpaceFile, before_running: Callable[[str], None] | None = None) -> SearchSpace:
    """The space of a file. Arguments and errors as those of `read_space`; it is none of ours."""
    space = read_space(file, before_running)
    if is_built_in(space.name):
        raise UsageError(
            f"{file.path}: {space.name} is the name of a built-in search space. Give yours another."
        )
    return space


def _own_space(file: SpaceFile, activation: str | None) -> SearchSpace:
    space = own_space(file)
    if activation is not None:
        raise UsageError(
            f"The activation {activation!r} cannot be chosen for {space.name}: write it into "
            f"{file.path}."
        )
    return space
