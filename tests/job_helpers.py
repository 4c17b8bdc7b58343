"""A job's config.json, for tests that need one where nothing was trained."""

from __future__ import annotations

from typing import Any


def make_config(space: str = "ofa_mbv3_tiny", **entries: Any) -> dict[str, Any]:
    """Of two classes, as ofa-import writes it; `entries` replace or add to its own."""
    return {
        "space": space,
        "data": None,
        "class_names": ["cat", "dog"],
        "eval_crop": 1.0,
        "calibration_images": 8,
        "recipe": {},
        **entries,
    }
