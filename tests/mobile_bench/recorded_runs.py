"""The recorded runs of the real benchmark_model, where they are at hand."""

from __future__ import annotations

import json
import os
import pathlib

import pytest


def folder() -> pathlib.Path:
    """Where the recordings are; skips the test where there are none."""
    if "OFA_SHARED" not in os.environ:
        pytest.skip("OFA_SHARED is not set: the recorded runs are not at hand")
    return pathlib.Path(os.environ["OFA_SHARED"], "data", "benchmark_model")


def recorded(name: str) -> dict:
    """One recorded run: command, exit_code, stdout, stderr."""
    return json.loads((folder() / f"{name}.json").read_text(encoding="utf-8"))
