"""What a training run tells while it goes: rows in metrics.jsonl and TensorBoard."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ofa_tf.errors import FailureError
from ofa_tf.files import append_json, parse_json, write_bytes
from ofa_tf.training.step import StepResult


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

    def write(self, step: int, of: dict[str, Any] | None = None, **row: Any) -> None:
        """Appends a row: numbers, texts, and dicts of them.

        Args:
            step: of the run.
            of: what the row was obtained from; not for TensorBoard.
            **row: what it tells.
        """
        append_json(self._path, {"step": step, **row, **(of or {})})
        with self._writer.as_default():
            for name, value in _scalars(row):
                tf.summary.scalar(name, value, step)
        self._writer.flush()


class EpochSummary:
    """Sums up the steps of an epoch.

    Args:
        batch_size: images per step.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._results: list[StepResult] = []
        self._start = time.monotonic()
        self._cpu_start = time.process_time()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a batch."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def add(self, result: StepResult) -> None:
        self._results.append(result)

    def summary(self) -> dict[str, float | None]:
        """Means over the steps that were not skipped; null where all were."""
        seconds = time.monotonic() - self._start
        good = [result for result in self._results if result.applied]
        return {
            "loss": float(np.mean([r.loss for r in good])) if good else None,
            "gradient_norm": float(np.mean([r.gradient_norm for r in good])) if good else None,
            "skipped_steps": len(self._results) - len(good),
            "seconds": seconds,
            # Of all threads of this process: what it took beside other work, too.
            "cpu_seconds": time.process_time() - self._cpu_start,
            "images_per_second": len(self._results) * self._batch_size / seconds,
            # What training lost to the input pipeline.
            "input_wait_share": self._waited / seconds,
        }


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
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FailureError(f"{path} could not be read: {error.strerror}.") from error
    kept = []
    for line in content.splitlines(keepends=True):
        try:
            if not _comes_again(parse_json(line), step):
                kept.append(line)
        except (AttributeError, ValueError, KeyError, TypeError):
            continue  # written by halves when the run was killed
    if b"".join(kept) != content:
        write_bytes(path, b"".join(kept))
