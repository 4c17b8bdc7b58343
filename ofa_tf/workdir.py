"""Workdir: the folder of one job, where every command finds what the one before it left."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import read_json, write_json

_NUM_NAMED = 8  # settings that an error names

# What ofa-train records of a job.
_SETTINGS = {"space", "data", "class_names", "eval_crop", "calibration_images", "recipe"}


class Workdir:
    """The files of a job, by name. Nothing is read or written until it is asked for.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.config_file = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.teacher = self.checkpoints / "teacher.npz"
        self.metrics = self.path / "metrics.jsonl"
        self.accuracy_rows = self.path / "accuracy_rows.jsonl"
        self.accuracy_predictor = self.path / "accuracy_predictor.npz"
        self.accuracy_report = self.path / "accuracy_report.json"
        self.search_result = self.path / "search.json"
        self.subnets = self.path / "subnets"
        self.measurements = self.path / "measurements.jsonl"
        self.results = self.path / "results.json"
        self.pictures = self.path / "pictures"

    def latency_table(self, target: str, threads: int) -> pathlib.Path:
        """The latency table of a target, float32, with so many threads."""
        return self.path / f"latency_{target}_float32_{threads}t.json"

    def start(self, config: dict[str, Any]) -> None:
        """Records the settings of a job, or checks that they are those of the job that is here.

        Raises:
            UsageError: the folder holds a job with other settings; they are named.
            FailureError: the folder cannot be written.
        """
        # As JSON has it, so that tuples and lists compare equal.
        config = json.loads(json.dumps(config))
        if self.config_file.exists():
            there = self.config()
            different = _differences(there, config)
            if different:
                named = different[:_NUM_NAMED]
                if len(different) > len(named):
                    named.append(f"{len(different) - len(named)} more")
                raise UsageError(
                    f"{self.path} holds a job with other settings: {'; '.join(named)}. "
                    "Give another --workdir, or the same settings to go on with it."
                )
            return
        write_json(self.config_file, config)

    def config(self) -> dict[str, Any]:
        """The settings of the job.

        Raises:
            UsageError: nothing was trained here.
            FailureError: the settings are damaged.
        """
        if not self.config_file.exists():
            raise UsageError(f"{self.path} holds no job. Run ofa-train with this --workdir first.")
        config = read_json(self.config_file)
        missing = _SETTINGS - set(config)
        if missing:
            raise FailureError(
                f"{self.config_file} is damaged: {', '.join(sorted(missing))} are missing. "
                "Restore it from a copy."
            )
        return config


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """`name was A, is B` for every setting that differs; lists of one length entry by entry."""
    if there == here:
        return []
    if isinstance(there, dict) and isinstance(here, dict):
        prefix = f"{name}." if name else ""
        keys = sorted(set(there) | set(here))
        pairs = [(there.get(key), here.get(key), f"{prefix}{key}") for key in keys]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(*pair, f"{name}[{i}]") for i, pair in enumerate(zip(there, here, strict=True))]
    else:
        return [f"{name} was {_short(there)}, is {_short(here)}"]
    return [line for pair in pairs for line in _differences(*pair)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
