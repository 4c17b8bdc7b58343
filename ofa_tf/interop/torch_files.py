"""PyTorch files as dictionaries of NumPy arrays. The only module that opens them."""

from __future__ import annotations

import importlib.util
import logging
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ofa_tf import files
from ofa_tf.errors import UsageError

_log = logging.getLogger(__name__)

# Under which training programs keep the weights of a model, beside optimizers and counters; the
# first of these that a file has is read.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "ema")
# What torch's wrappers put before keys: DataParallel and its kin, and compiled models.
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+|\b_orig_mod\.")
_OF_AVERAGES = "n_averaged"  # beside the weights of torch's AveragedModel: a counter
_UNWRAP = (
    "Where it was made, save the weights alone: torch.save(model.state_dict(), 'weights.pth')."
)


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch file by their keys, on the CPU.

    They may be bare or in one of the containers in which training programs keep them, and their
    keys may have what torch's own wrappers put before them. Nothing is unpickled but tensors and
    plain Python values.

    Raises:
        UsageError: the file is missing, is no PyTorch file, would need other objects to be
            unpickled, or holds something that is no tensor; or torch is not installed.
    """
    path = pathlib.Path(path)
    torch = _import_torch()
    if not path.is_file():
        raise UsageError(f"There is no PyTorch file {path}.")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises nearly anything on a file that is not its own
        # What torch says of it is advice to unpickle everything, which runs code of the file's.
        raise UsageError(
            f"{path} is damaged, or no PyTorch file of tensors only (nothing else is unpickled): "
            f"{type(error).__name__}. {_UNWRAP}"
        ) from error
    return _arrays(path, content)


def _arrays(path: pathlib.Path, content: Any) -> dict[str, np.ndarray]:
    tensors = _unwrapped(path, content)
    strange = [str(key) for key, value in tensors.items() if not hasattr(value, "detach")]
    if strange:
        told = ", ".join(f"{key:.100}" for key in strange[:10])
        raise UsageError(f"{path} holds values that are no tensors: {told}. {_UNWRAP}")
    tensors = {key: value for key, value in tensors.items() if key != _OF_AVERAGES}
    found = {_WRAPPERS.sub("", str(key)): value for key, value in tensors.items()}
    if len(found) < len(tensors):
        raise UsageError(f"{path} holds tensors with and without a wrapper's prefix. {_UNWRAP}")
    # Through float32, because NumPy has no bfloat16.
    return {
        key: (value.float() if value.is_floating_point() else value).detach().numpy()
        for key, value in found.items()
    }


def _unwrapped(path: pathlib.Path, content: Any) -> Mapping[str, Any]:
    """The mapping of tensors in what a file holds."""
    if isinstance(content, Mapping):
        there = [name for name in _CONTAINERS if isinstance(content.get(name), Mapping)]
        if len(there) > 1:
            _log.info("%s has weights as %s; %s is read.", path, ", ".join(there), there[0])
        content = content[there[0]] if there else content
    if not isinstance(content, Mapping) or not content:
        raise UsageError(
            f"{path} holds no tensors by name; expected a state_dict, bare or under one of the "
            f"keys {', '.join(_CONTAINERS)}. {_UNWRAP}"
        )
    return content


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes `{"state_dict": tensors}` as a PyTorch file, whole or not at all.

    Raises:
        UsageError: torch is not installed.
        FailureError: the disk refuses; names the file.
    """
    torch = _import_torch()
    state = {key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}
    with files.atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save({"state_dict": state}, file)


def require_torch() -> None:
    """Raises UsageError where torch is not installed, without importing it."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            "PyTorch files are read and written with torch, which is not installed: "
            "pip install ofa_tf[torch]"
        )


def _import_torch():
    require_torch()
    import torch

    return torch
