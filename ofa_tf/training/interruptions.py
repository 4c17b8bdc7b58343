"""Interruptions of a training: its step is finished and saved before a signal ends it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

from mobile_bench.signals import TO_END, Interrupted

_log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, *TO_END)


class SignalWatch:
    """Within the block (`with watch:`), SIGNALS are noted and do nothing else.

    Those that are ignored stay so.

    Attributes:
        came: the number of the signal that came last, or None.
    """

    def __init__(self):
        self.came: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> SignalWatch:
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, signal_number: int, _frame: FrameType | None) -> None:
        self.came = signal_number
        _log.info("Finishing the step and saving; this run can be continued.")

    def counts(self) -> list[int]:
        """1 for the signal that came, 0 for the others; workers add theirs up."""
        return [int(self.came == number) for number in SIGNALS]


def heed(counts: Sequence[int]) -> None:
    """Raises Interrupted where a signal came, on whichever worker."""
    for number, count in zip(SIGNALS, counts, strict=True):
        if count:
            raise Interrupted(number)
