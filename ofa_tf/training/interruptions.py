"""Interruptions: a signal lets the training step that it finds be finished and saved."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence

_log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came; the step was finished and saved. `exit_code` is 128 + signal."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class SignalWatch:
    """Within the block (`with watch:`), SIGINT and SIGTERM are noted and do nothing else.

    Attributes:
        came: the number of the signal that came last, or None.
    """

    def __init__(self):
        self.came: int | None = None
        self._handlers = {}

    def __enter__(self) -> SignalWatch:
        self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, signal_number: int, _frame) -> None:
        self.came = signal_number
        _log.info("Finishing the step and saving; this run can be continued.")

    def counts(self) -> list[int]:
        """1 for the signal that came, 0 for the other; workers add theirs up."""
        return [int(self.came == number) for number in SIGNALS]


def heed(counts: Sequence[int]) -> None:
    """Raises Interrupted where a signal came, on whichever worker."""
    for number, count in zip(SIGNALS, counts, strict=True):
        if count:
            raise Interrupted(number)
