"""Small spaces, all of their codes, accuracies and a device that are made up."""

from __future__ import annotations

import functools
import itertools
import pathlib

import numpy as np

from mobile_bench import Measurement, Settings
from mobile_bench.results import (
    Affinity,
    Delegation,
    Device,
    DeviceState,
    Timings,
    Tool,
    Verdict,
)
from ofa_tf.models import build_subnet
from ofa_tf.spaces import Blueprint, SearchSpace, get_space

TINY = get_space("ofa_mbv3_tiny")
LOW, MIDDLE, HIGH = TINY.resolutions[0], TINY.resolutions[-2], TINY.resolutions[-1]
SMALL = TINY.restrict(kernel_sizes=(3, 7), expand_ratios=(2, 4), resolutions=(LOW, MIDDLE))
RESNET = get_space("ofa_resnet_tiny")  # with elastic widths; small enough as it is


def all_codes(space: SearchSpace) -> np.ndarray:
    """Every canonical code of a space, by trying every row of choices."""
    columns = (
        [space.allowed("depth", stage) for stage in range(space.num_stages)]
        + [space.allowed("kernel")] * space.num_positions
        + [space.allowed("expand")] * space.num_positions
        + [space.allowed("width")] * space.family.num_widths
        + [space.allowed("resolution")]
    )
    rows = np.array(list(itertools.product(*columns)), np.int32)
    return np.unique(space.canonical(rows), axis=0)


def made_up_accuracy(space: SearchSpace, seed: int = 0):
    """An accuracy of codes that grows with each choice by a random amount."""
    rng = np.random.default_rng(seed)
    weights = rng.random(space.one_hot(space.encode([space.max()])).shape[1])
    return lambda codes: 0.5 + 0.01 * space.one_hot(codes) @ weights


def measurement(path: str, median_us: float, **changes: object) -> Measurement:
    """A valid record of a model that was not run."""
    now = DeviceState("2025-01-01T00:00:00+00:00")
    fields = {
        "session": "a",
        "round": 0,
        "date": now.date,
        "model": path,
        "sha256": "0" * 64,
        "size_bytes": 10,
        "inputs": ("float32[1,2]",),
        "device": Device("host", "", "", "", "cpu", "Linux", "", (), (None, None)),
        "tool": Tool("ai-edge-litert", "2.3.0", ""),
        "command": "",
        "settings": Settings(),
        "affinity": Affinity(None, (0, 1)),
        "delegation": Delegation("xnnpack", 1, 7, 7, {}, True),
        "timings": Timings(50, median_us, median_us, p5_us=median_us),
        "memory": None,
        "profile": None,
        "before": now,
        "after": now,
        "verdict": Verdict(True, ()),
    }
    return Measurement(**(fields | changes))


@functools.cache  # the same blocks are in the tables of many tests
def _work(plan: Blueprint) -> bytes:
    """How much a model computes, and how many layers it has."""
    model = build_subnet(plan, batch_size=1)
    work = 0.0
    for layer in model.layers:
        if layer.weights:
            pixels = np.prod(layer.output.shape[1:-1])
            work += 1e-3 * pixels * sum(float(np.prod(w.shape)) for w in layer.weights)
    return f"{work} {len(model.layers)}".encode()


class FakeDevice:
    """Converts a model to its layers' names and sizes, and times that as a sum over blocks.

    A whole model takes `slope` times the time of its blocks, and `overhead_us` once. Noise is
    relative and never below zero, as another process on the device would make it.
    """

    def __init__(self, slope: float = 1.0, overhead_us: float = 2.0, noise: float = 0.0):
        self.slope, self.overhead_us, self.noise = slope, overhead_us, noise
        self.rng = np.random.default_rng(0)
        self.converted = 0
        self.measured: list[str] = []

    def convert(self, plan, takes_images) -> bytes:
        self.converted += 1
        return _work(plan)

    def measure(self, paths, on_result) -> None:
        for path in paths:
            self.measured.append(pathlib.Path(path).name)
            on_result(self._time(path))

    def _time(self, path: str) -> Measurement:
        work = float(pathlib.Path(path).read_text().split()[0])
        whole = pathlib.Path(path).name.startswith("subnet-")
        us = self.overhead_us + work * (self.slope if whole else 1.0)
        return measurement(path, us * (1 + self.noise * self.rng.exponential()))
