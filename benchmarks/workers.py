"""Each side of a comparison in a process of its own: own memory, own threads, idle in between."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """What a side is built with: `elastic` and `xla` are ours, `channels_last` the reference's."""

    space: str
    resolution: int
    batch_size: int
    dtype: str
    threads: int
    num_classes: int = 1000
    elastic: str = "slice"
    xla: bool = False
    channels_last: bool = False


class Worker:
    """Runs the `Side` of a module in a new process.

    Args:
        module: "ours" or "reference"; its class `Side` is made there, with the setting.
        setting: of the side.
    """

    def __init__(self, module: str, setting: Setting):
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawn, _make_side, (module, setting))

    def __call__(self, method: str, *args) -> Any:
        """Calls a method of the side and waits for its answer."""
        return self._process.submit(_call, method, args).result()

    def peak_memory(self) -> float:
        """In MB, since the start of the process."""
        usage = self._process.submit(resource.getrusage, resource.RUSAGE_SELF).result()
        return usage.ru_maxrss / 1024


_sides: list[Any] = []  # in the new process: its one side


def _make_side(module: str, setting: Setting) -> None:
    _sides.append(importlib.import_module(module).Side(setting))


def _call(method: str, args: tuple) -> Any:
    return getattr(_sides[0], method)(*args)
