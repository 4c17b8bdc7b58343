"""Interruptions: signals end commands in order; a training step is finished and saved first."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Sequence

_log = logging.getLogger(__name__)
# Windows has no SIGHUP.
_TO_END = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n))
SIGNALS = (signal.SIGINT, *_TO_END)


class Interrupted(KeyboardInterrupt):
    """A signal asks for the end. `exit_code` is 128 + signal."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise Interrupted, as Ctrl-C raises KeyboardInterrupt.

    So what the block began is cleared up: half files, processes, what runs on phones. A signal
    that is ignored, as SIGHUP under nohup, stays ignored. Threads other than the main one get no
    signals: there the block changes nothing.
    """

    def interrupt(signal_number: int, _frame) -> None:
        raise Interrupted(signal_number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _TO_END:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SignalWatch:
    """Within the block (`with watch:`), SIGNALS are noted and do nothing else.

    Those that are ignored stay so.

    Attributes:
        came: the number of the signal that came last, or None.
    """

    def __init__(self):
        self.came: int | None = None
        self._handlers = {}

    def __enter__(self) -> SignalWatch:
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, signal_number: int, _frame) -> None:
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
