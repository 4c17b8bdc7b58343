"""What can go wrong with a phone, told beforehand by the test."""

from __future__ import annotations

import dataclasses
import threading

# What each event can be spoiled by. A run's faults strike between its warm-up and its result,
# except for "rubbish" and "silent", which leave no line of the real output.
KINDS = {
    "run": (
        "crash", "exit", "hang", "truncate", "flood", "rubbish", "silent",
        "unplug", "reboot", "freeze",
    ),
    "shell": ("unplug", "reboot", "freeze", "late", "drop"),
    "push": ("unplug", "reboot", "damage"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: crash (killed by `signal`), exit (with `code`), hang (for ever), truncate (exit 0 in
            the middle of a line), flood (prints for ever), rubbish (binary output), silent (exit
            0, nothing printed), unplug (the cable is pulled; the tool's process lives on), reboot,
            freeze (the phone stops answering), damage (the pushed file differs), late (adbd before
            Android 9: what the host says of a command's stdin comes to it when the command has
            ended, and where it is that stdin is closed, the exit code is lost), drop (the exit
            code is lost).
        on: The event that is spoiled: "run" (benchmark_model), "shell" (a command) or "push".
        match: Only events with this text in their command line or path count.
        skip: How many matching events pass before.
        times: How many events are spoiled; None for all that follow.
        signal: Of a crash: 11 for SIGSEGV, 6 for SIGABRT.
        code: Of an exit.
        refuse: After unplug and reboot: how many connections are refused before the phone is
            back; None keeps it away until `plug_in()`.
    """

    kind: str
    on: str = "run"
    match: str = ""
    skip: int = 0
    times: int | None = 1
    signal: int = 11
    code: int = 1
    refuse: int | None = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS.get(self.on, ()):
            raise ValueError(f"no fault {self.kind!r} on {self.on!r}; there are: {KINDS}")


class Faults:
    """The faults of one device that are still to come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[list] = []  # [fault, matching events until now]

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._seen.append([fault, 0])

    def clear(self) -> None:
        with self._lock:
            self._seen.clear()

    def take(self, on: str, text: str) -> Fault | None:
        """Counts an event and returns the first fault that strikes it.

        Args:
            on: "run", "shell" or "push".
            text: The command line or path.
        """
        struck = None
        with self._lock:
            for entry in self._seen:
                fault, count = entry
                if fault.on != on or fault.match not in text:
                    continue
                entry[1] += 1
                last = None if fault.times is None else fault.skip + fault.times
                if count >= fault.skip and (last is None or count < last):
                    struck = struck or fault
        return struck
