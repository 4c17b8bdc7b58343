"""Search spaces, archs, blueprints and what they cost. NumPy only; no TensorFlow."""

from ofa_tf.errors import UsageError
from ofa_tf.spaces import mobilenet_v3, proxyless, resnet50
from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import Blueprint
from ofa_tf.spaces.cost import BlockCosts
from ofa_tf.spaces.search_space import SearchSpace

__all__ = ["Arch", "BlockCosts", "Blueprint", "SearchSpace", "get_space", "list_spaces"]

_SPACES = {
    space.name: space for family in (mobilenet_v3, proxyless, resnet50) for space in family.SPACES
}

# Under which their authors publish them.
_PUBLISHED_NAMES = {
    "ofa_mbv3_d234_e346_k357_w1.0": "ofa_mbv3_w1.0",
    "ofa_mbv3_d234_e346_k357_w1.2": "ofa_mbv3_w1.2",
    "ofa_proxyless_d234_e346_k357_w1.3": "ofa_proxyless_w1.3",
    "ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0": "ofa_resnet50",
}


def list_spaces() -> list[str]:
    """The ids that `get_space` knows."""
    return list(_SPACES)


def get_space(name: str) -> SearchSpace:
    """The search space of that id; the published long ids are known too.

    Raises:
        UsageError: no space has that id; the message lists the known ones.
    """
    name = _PUBLISHED_NAMES.get(name, name)
    if name not in _SPACES:
        raise UsageError(f"There is no search space {name!r}; known: {', '.join(_SPACES)}.")
    return _SPACES[name]
