"""What a training run tells while it goes: metrics.jsonl, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import tensorflow as tf

from ofa_tf.errors import FailureError
from ofa_tf.files import append_json, write_bytes


class MetricsLog:
    """Rows of a run, in metrics.jsonl and as TensorBoard scalars.

    Args:
        path: the JSON lines file.
        tensorboard: the folder of TensorBoard's event files.
        step: where the run goes on; what a killed run wrote after it is dropped and comes again.

    Raises:
        FailureError: the disk refuses.
    """

    def __init__(self, path: pathlib.Path, tensorboard: pathlib.Path, step: int):
        self._path = path
        _drop_rows_after(path, step)
        try:
            self._writer = tf.summary.create_file_writer(os.fspath(tensorboard))
        except tf.errors.OpError as error:
            raise FailureError(f"{tensorboard} could not be written: {error.message}.") from error

    def write(self, step: int, **row: Any) -> None:
        """Appends a row: numbers, texts, and dicts of them."""
        append_json(self._path, {"step": step, **row})
        with self._writer.as_default():
            for name, value in _scalars(row):
                tf.summary.scalar(name, value, step)
        self._writer.flush()


def _scalars(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in row.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            found.append((prefix + name, value))
    return found


def _comes_again(row: dict[str, Any], step: int) -> bool:
    """Whether a run that goes on at a step writes the row: what stands "before" a phase has the
    step at which the phase before it ended."""
    return row["step"] > step or (row["step"] == step and row.get("when") == "before")


def _drop_rows_after(path: pathlib.Path, step: int) -> None:
    """Also drops a last line that is not whole."""
    if not path.exists():
        return
    content = path.read_text()
    kept = []
    for line in content.splitlines(keepends=True):
        try:
            if not _comes_again(json.loads(line), step):
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # written by halves when the run was killed
    if "".join(kept) != content:
        write_bytes(path, "".join(kept).encode())
