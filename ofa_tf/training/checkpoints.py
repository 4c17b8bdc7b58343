"""Checkpoints: named arrays and a JSON state in one file that is either whole or not used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ofa_tf.errors import FailureError
from ofa_tf.files import atomic_path

_log = logging.getLogger(__name__)
_STATE = "state.json"
_KEPT = 2  # checkpoints kept; the older one serves where the newer one is damaged


def save(path: str | os.PathLike, state: dict[str, Any], **groups: Sequence[keras.Variable]):
    """Writes groups of variables and a state that JSON can hold.

    The file is a NumPy .npz archive, whose checksums tell damage. Raises FailureError where the
    disk refuses; what was at `path` is then still there.
    """
    arrays = {_STATE: np.frombuffer(json.dumps(state).encode(), np.uint8)}
    for group, variables in groups.items():
        arrays.update({f"{group}/{i:04d}": v.numpy() for i, v in enumerate(variables)})
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike, **groups: Sequence[keras.Variable]) -> dict[str, Any]:
    """Reads back what `save` wrote, into the variables, and returns the state.

    Raises:
        FailureError: the file is missing, damaged or of another network; no variable has changed.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        state = json.loads(arrays.pop(_STATE).tobytes())
    except Exception as error:  # damage can make zipfile and NumPy raise almost anything
        raise FailureError(f"Checkpoint {path} is missing or damaged: {error}.") from error
    values = {}
    for group, variables in groups.items():
        for i, variable in enumerate(variables):
            value = arrays.get(f"{group}/{i:04d}")
            if value is None or value.shape != tuple(variable.shape):
                raise FailureError(
                    f"Checkpoint {path} is of another network: {variable.path} has the shape "
                    f"{tuple(variable.shape)}, in the file {getattr(value, 'shape', None)}."
                )
            values[id(variable)] = value
        if len(variables) != sum(name.startswith(f"{group}/") for name in arrays):
            raise FailureError(f"Checkpoint {path} is of another network: more weights in {group}.")
    for variable in (v for variables in groups.values() for v in variables):
        variable.assign(values[id(variable)])
    return state


def weights_hash(model: keras.Model) -> str:
    """Sixteen hexadecimal digits that stand for all weights of a model."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()[:16]


class CheckpointFolder:
    """The numbered checkpoints of a run; the newest whole one counts.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    def save(self, step: int, state: dict[str, Any], **groups: Sequence[keras.Variable]):
        """Writes the checkpoint of a step, then removes all but the newest two."""
        save(self.path / f"step_{step:09d}.npz", {**state, "step": step}, **groups)
        for old in self._files()[:-_KEPT]:
            old.unlink(missing_ok=True)

    def load_newest(self, **groups: Sequence[keras.Variable]) -> dict[str, Any] | None:
        """Restores the newest checkpoint that is whole; None where there is none at all.

        A damaged one is reported and the one before it is used.

        Raises:
            FailureError: there are checkpoints, but none of them can be read.
        """
        errors = []
        for path in reversed(self._files()):
            try:
                return load(path, **groups)
            except FailureError as error:
                errors.append(str(error))
                _log.warning("%s Trying the one before it.", error)
        if errors:
            raise FailureError(
                f"No checkpoint in {self.path} can be read. {errors[0]} "
                "Restore one from a copy, or remove the folder to train anew."
            )
        return None

    def _files(self) -> list[pathlib.Path]:
        pattern = re.compile(r"step_\d{9}\.npz")
        found = self.path.glob("step_*.npz")
        return sorted(path for path in found if pattern.fullmatch(path.name))
