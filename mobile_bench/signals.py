"""Signals that end a command in order, as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

# Windows has no SIGHUP.
TO_END = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n))


class Interrupted(KeyboardInterrupt):
    """A signal asks for the end. `exit_code` is 128 + signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise Interrupted, as Ctrl-C raises KeyboardInterrupt.

    So what the block began is cleared up: half files, processes, what runs on phones. A signal
    that is ignored, as SIGHUP under nohup, stays ignored. Threads other than the main one get no
    signals: there the block changes nothing.
    """

    def interrupt(signal_number: int, _: object) -> None:
        raise Interrupted(signal_number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in TO_END:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
