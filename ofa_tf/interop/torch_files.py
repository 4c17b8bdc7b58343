"""PyTorch files as dictionaries of NumPy arrays. The only module that opens them."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ofa_tf import files
from ofa_tf.errors import UsageError


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch file by their keys, bare or under "state_dict", on the CPU.

    Nothing is unpickled but tensors and plain Python values.

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
            f"{type(error).__name__}."
        ) from error
    return _arrays(path, content)


def _arrays(path: pathlib.Path, content: Any) -> dict[str, np.ndarray]:
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not content:
        raise UsageError(
            f"{path} holds no tensors by name; expected a state_dict, bare or under that key."
        )
    strange = [key for key, value in content.items() if not hasattr(value, "detach")]
    if strange:
        raise UsageError(f"{path} holds values that are no tensors: {strange[:10]}.")
    # Through float32, because NumPy has no bfloat16.
    return {
        str(key): (value.float() if value.is_floating_point() else value).detach().numpy()
        for key, value in content.items()
    }


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
