"""Once-for-All networks in TensorFlow, made for phones.

Spaces and archs are here at once; what needs TensorFlow is imported when it is first used.
"""

import importlib
from typing import Any

from ofa_tf.spaces import Arch, Blueprint, SearchSpace, get_space, list_spaces

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


def __getattr__(name: str) -> Any:
    if name == "Supernet":
        return importlib.import_module("ofa_tf.models").Supernet
    if name == "load_job":
        return importlib.import_module("ofa_tf.job").load_job
    if name == "load_subnet":
        return importlib.import_module("ofa_tf.export.load").load_subnet
    if name in ("interop", "search"):
        return importlib.import_module(f"ofa_tf.{name}")
    raise AttributeError(f"module 'ofa_tf' has no attribute {name!r}")
