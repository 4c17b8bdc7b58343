"""Checkpoints: named arrays and a JSON state in one file that is either whole or not used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ofa_tf.errors import FailureError, first_line
from ofa_tf.files import atomic_path, parse_json

_log = logging.getLogger(__name__)
_STATE = "state.json"

Variables = Sequence[keras.Variable]
Arrays = dict[str, np.ndarray]


def snapshot(**groups: Variables) -> Arrays:
    """The values of groups of variables; with several workers, all of them must call it."""
    return {
        f"{group}/{i:04d}": variable.numpy()
        for group, variables in groups.items()
        for i, variable in enumerate(variables)
    }


def save(path: str | os.PathLike, state: dict[str, Any], arrays: Arrays) -> None:
    """Writes arrays and a state that JSON can hold.

    The file is a NumPy .npz archive, whose checksums tell damage. Raises FailureError where the
    disk refuses; what was at `path` is then still there.
    """
    content: dict[str, Any] = {
        _STATE: np.frombuffer(json.dumps(state).encode(), np.uint8),
        **arrays,
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **content)


def load(
    path: str | os.PathLike,
    optional: Sequence[str] = (),
    kinds: Mapping[str, type] | None = None,
    remedy: str = "",
    **groups: Variables,
) -> dict[str, Any]:
    """Reads back what `save` wrote, into the variables, and returns the state.

    Args:
        path: the file.
        optional: groups that are left out where there are no such variables, or none in the file.
        kinds: the keys that the state has to have, and the type of each.
        remedy: what to do about a damaged file, as whole sentences that end the message.
        **groups: the variables of each group. Other groups of the file are not read.

    Raises:
        FailureError: the file is missing, damaged or of another network; no variable has changed.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        state = _checked(parse_json(arrays.pop(_STATE).tobytes()), kinds or {})
    except Exception as error:  # damage can make zipfile and NumPy raise almost anything
        said = first_line(error).rstrip(".")
        message = f"Checkpoint {path} is missing or damaged: {said}. {remedy}"
        raise FailureError(message.rstrip()) from error
    found = []
    for group, variables in groups.items():
        count = sum(name.startswith(f"{group}/") for name in arrays)
        if group in optional and not (count and variables):
            continue
        for i, variable in enumerate(variables):
            value = arrays.get(f"{group}/{i:04d}")
            if value is None or value.shape != tuple(variable.shape):
                raise FailureError(
                    f"Checkpoint {path} is of another network: {variable.path} has the shape "
                    f"{tuple(variable.shape)}, in the file {getattr(value, 'shape', None)}."
                )
            found.append((variable, value))
        if len(variables) != count:
            raise FailureError(f"Checkpoint {path} is of another network: more weights in {group}.")
    for variable, value in found:
        variable.assign(value)
    return state


def _checked(state: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A state, if it is one; raises ValueError where it is not."""
    if not isinstance(state, dict):
        raise ValueError(f"its {_STATE} is no object but {state!r:.80}")
    for key, kind in kinds.items():
        if type(state.get(key)) is not kind:
            found = repr(state[key]) if key in state else "missing"
            raise ValueError(f"{key} of its {_STATE} is {found:.80}")
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
        keep: how many of the newest are kept; an older one serves where the newest is damaged.
    """

    def __init__(self, path: str | os.PathLike, keep: int = 2):
        self.path = pathlib.Path(path)
        self.keep = keep

    def save(self, step: int, state: dict[str, Any], arrays: Arrays) -> None:
        """Writes the checkpoint of a step, then removes all but the newest."""
        save(self.path / f"step_{step:09d}.npz", state, arrays)
        for old in self._files()[: -self.keep]:
            old.unlink(missing_ok=True)

    def load_newest(
        self,
        optional: Sequence[str] = (),
        kinds: Mapping[str, type] | None = None,
        **groups: Variables,
    ) -> dict[str, Any] | None:
        """Restores the newest checkpoint that is whole; None where there is none at all.

        A damaged one is reported and the one before it is used. Arguments as those of `load`.

        Raises:
            FailureError: there are checkpoints, but none of them can be read.
        """
        errors = []
        for path in reversed(self._files()):
            try:
                return load(path, optional, kinds, **groups)
            except FailureError as error:
                errors.append(str(error))
                _log.warning("%s Trying the one before it.", error)
        if errors:
            raise FailureError(
                f"No checkpoint in {self.path} can be read. {errors[0]} "
                "Restore one from a copy, or remove the folder to train anew."
            )
        return None

    def newest(self) -> pathlib.Path | None:
        """The file of the newest checkpoint."""
        return self._files()[-1] if self._files() else None

    def _files(self) -> list[pathlib.Path]:
        pattern = re.compile(r"step_\d{9}\.npz")
        found = self.path.glob("step_*.npz")
        return sorted(path for path in found if pattern.fullmatch(path.name))
