"""Rows of results.json for the tests of the report, made from real blueprints."""

from __future__ import annotations

from typing import Any

import numpy as np

from ofa_tf.spaces import Blueprint, get_space


def results(space_name: str, count: int) -> tuple[list[dict[str, Any]], list[Blueprint]]:
    """Rows with plausible numbers, and the blueprint of each."""
    space, rng = get_space(space_name), np.random.default_rng(1)
    archs = [space.min(), space.max(), *(space.sample(rng) for _ in range(count - 2))]
    plans = [space.blueprint(arch, 10) for arch in archs]
    rows = []
    for i, (arch, plan) in enumerate(zip(archs, plans, strict=True)):
        latency, accuracy = 0.25 + 0.5 * i, 0.7 + 0.02 * i
        rows.append(
            {
                "name": f"budget_{i}",
                "budget_ms": latency + 0.01,
                "predicted_latency_ms": latency,
                "measured_latency_ms": {"float32": latency * 1.1, "int8": latency * 0.7},
                "predicted_accuracy": accuracy,
                "accuracy": {
                    "keras": accuracy - 0.011,
                    "tflite_float32": accuracy - 0.012,
                    "tflite_int8": accuracy - 0.02,
                },
                "macs": plan.macs,
                "params": plan.params,
                "resolution": plan.resolution,
                "file_bytes": {"tflite_float32": 4 * plan.params, "tflite_int8": plan.params},
                "arch": arch.to_dict(),
            }
        )
    return rows, plans
