"""Once-for-All networks in TensorFlow, made for phones.

Spaces and archs are here at once; what needs TensorFlow is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ofa_tf.spaces import Arch, Blueprint, SearchSpace, get_space, list_spaces
from ofa_tf.version import __version__ as __version__

if TYPE_CHECKING:
    from ofa_tf import interop, search
    from ofa_tf.export.load import load_subnet
    from ofa_tf.job import load_job
    from ofa_tf.models import Supernet

__all__ = [
    "Arch",
    "Blueprint",
    "SearchSpace",
    "Supernet",
    "get_space",
    "interop",
    "list_spaces",
    "load_job",
    "load_subnet",
    "search",
]

# Names here, and the modules that they are imported from.
_LAZY = {
    "Supernet": "ofa_tf.models",
    "load_job": "ofa_tf.job",
    "load_subnet": "ofa_tf.export.load",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in ("interop", "search"):
        return importlib.import_module(f"ofa_tf.{name}")
    raise AttributeError(f"module 'ofa_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
