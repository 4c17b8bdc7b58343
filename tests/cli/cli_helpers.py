"""Runs commands: in this process where it can be, else as `python -m ofa_tf.cli...`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import logging
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = (
    "train",
    "eval",
    "latency",
    "predictor",
    "search",
    "finetune",
    "export",
    "import",
    "report",
    "quickstart",
)
TRAIN = (
    "--space=ofa_mbv3_tiny",
    "--phases=largest,kernel",
    "--epochs=1,1",
    "--base_lr=0.05,0.05",
    "--batch_size=16",
    "--crop_scale_min=0.5",
    "--eval_crop=1.0",
    "--calibration_images=32",
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The last line of stderr, which says why it failed."""
        return self.err.strip().splitlines()[-1]


@contextlib.contextmanager
def own_flags() -> Iterator[None]:
    """What is defined in absl's global FLAGS within the block is gone after it."""
    app.define_help_flags()
    before = set(flags.FLAGS)
    try:
        yield
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    logger = logging.getLogger("ofa_tf")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        yield
    finally:
        logger.handlers, logger.level, logger.propagate = before[0], before[1], before[2]


def run(command: str, *args: object) -> Ended:
    """Runs a command's `main` in this process; any error but SystemExit is a test failure."""
    module = importlib.import_module(f"ofa_tf.cli.{command}")
    argv = [f"ofa-{command}", *map(str, args)]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        own_flags(),
        _own_logging(),
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            module.main()
        except SystemExit as end:
            code = end.code or 0
    return Ended(code, out.getvalue(), err.getvalue())


def assert_one_message(ended: Ended, code: int, *parts: str) -> None:
    """It ended with the code and one line that has all the parts, and without a traceback."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    assert ended.message.startswith("ofa-") or ".py: " in ended.message
    for part in parts:
        assert part in ended.message
    assert ended.err.count(ended.message) == 1


def start(command: str, *args: object, **options) -> subprocess.Popen:
    """Starts `python -m ofa_tf.cli.COMMAND` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-m", f"ofa_tf.cli.{command}", *map(str, args)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen) -> Ended:
    try:
        out, err = process.communicate(timeout=400)
    finally:
        process.kill()
    return Ended(process.returncode, out, err)


def wait_for_step(process: subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
    """Returns when the process has written the checkpoint of a step, or of a later one."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        for path in (workdir / "checkpoints").glob("step_*.npz"):
            if int(path.stem.removeprefix("step_")) >= step:
                return
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.stderr.read()}")
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"no checkpoint of step {step}")


def write_images(folder: pathlib.Path, counts: dict[str, int], seed: int = 0) -> None:
    """Writes `counts[name]` images in a folder per class: noise of the class's own color."""
    rng = np.random.default_rng(seed)
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 120, (28, 28, 3), dtype=np.uint8)
            pixels[..., number % 3] += 100
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")


def weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint file."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name != "state.json"}
