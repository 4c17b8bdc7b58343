"""Each side of a comparison in a process of its own: own memory, own threads, idle in between."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
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
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end, module, setting), daemon=True)
        self._process.start()
        end.close()

    def __call__(self, method: str, *args) -> Any:
        """Calls a method of the side and waits for its answer."""
        self._pipe.send((method, args))
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe, module: str, setting: Setting) -> None:
    side = importlib.import_module(module).Side(setting)
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        if method == "peak_memory":
            # In MB; of this process since its start.
            pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        else:
            pipe.send(getattr(side, method)(*args))
