"""Search spaces, archs, blueprints and what they cost. NumPy only; no TensorFlow."""

from ofa_tf.errors import UsageError
from ofa_tf.spaces import mobilenet_v3
from ofa_tf.spaces.arch import Arch
from ofa_tf.spaces.blueprint import Blueprint
from ofa_tf.spaces.cost import BlockCosts
from ofa_tf.spaces.search_space import SearchSpace

__all__ = ["Arch", "BlockCosts", "Blueprint", "SearchSpace", "get_space", "list_spaces"]

_SPACES = {space.name: space for space in mobilenet_v3.SPACES}


def list_spaces() -> list[str]:
    """The ids that `get_space` knows."""
    return list(_SPACES)


def get_space(name: str) -> SearchSpace:
    """The search space of that id.

    Raises:
        UsageError: no space has that id; the message lists the known ones.
    """
    if name not in _SPACES:
        raise UsageError(f"There is no search space {name!r}; known: {', '.join(_SPACES)}.")
    return _SPACES[name]
