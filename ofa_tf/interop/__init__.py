"""Other people's formats: published checkpoints, net.config files, predictors, latency tables.

torch is imported when a PyTorch file is read or written, TensorFlow when weights are.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ofa_tf.interop.net_config import read_net_config
from ofa_tf.interop.net_config_writing import to_net_config, write_net_config
from ofa_tf.interop.predictors import is_published_predictor
from ofa_tf.interop.published import download_checkpoint, download_specialized
from ofa_tf.interop.torch_files import require_torch

if TYPE_CHECKING:
    from ofa_tf.interop.checkpoint import (
        load_checkpoint,
        load_specialized,
        load_weights,
        save_checkpoint,
    )

_WITH_TENSORFLOW = ("load_checkpoint", "load_specialized", "load_weights", "save_checkpoint")

__all__ = [
    "download_checkpoint",
    "download_specialized",
    "is_published_predictor",
    "load_checkpoint",
    "load_specialized",
    "load_weights",
    "read_net_config",
    "require_torch",
    "save_checkpoint",
    "to_net_config",
    "write_net_config",
]


def __getattr__(name: str) -> Any:
    if name in _WITH_TENSORFLOW:
        return getattr(importlib.import_module("ofa_tf.interop.checkpoint"), name)
    raise AttributeError(f"module 'ofa_tf.interop' has no attribute {name!r}")
