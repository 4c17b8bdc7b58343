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


def get_space(name: str, activation: str | None = None) -> SearchSpace:
    """The search space of that id; the published long ids are known too.

    Args:
        name: the id. Those of MobileNetV3 can end in another activation: "ofa_mbv3_w1.0-swish".
        activation: "swish" or "relu6" for the space of that ending; None for that of the name.

    Raises:
        UsageError: no space has that id, and the message lists the known ones; or the space
            cannot have that activation.
    """
    name = _PUBLISHED_NAMES.get(name, name)
    space = _SPACES.get(name) or _VARIANTS.get(name)
    if space is None:
        endings = " or ".join(f"-{each}" for each in mobilenet_v3.ACTIVATIONS)
        raise UsageError(
            f"There is no search space {name!r}; known: {', '.join(_SPACES)}. Those of "
            f"MobileNetV3 (ofa_mbv3_...) can have {endings} at the end, for that activation."
        )
    if activation is None or name.endswith(f"-{activation}"):
        return space
    if f"{name}-{activation}" not in _VARIANTS:
        raise UsageError(
            f"{name} cannot have the activation {activation!r} instead of its own; "
            f"{' or '.join(mobilenet_v3.ACTIVATIONS)} can be chosen for "
            f"{', '.join(each.name for each in mobilenet_v3.SPACES)}."
        )
    return _VARIANTS[f"{name}-{activation}"]
