"""The screen of a phone: kept on or off while it is measured, and left as it was."""

from __future__ import annotations

import re

from mobile_bench.adb.device import AdbDevice
from mobile_bench.phone.description import read_state

_SECS = 20.0
_STAY_ON = ["global", "stay_on_while_plugged_in"]


class Screen:
    """The screen of one phone.

    Args:
        device: The phone.
        wanted: As in `Settings.screen`.

    Raises:
        DeviceError: The phone does not answer.
    """

    def __init__(self, device: AdbDevice, wanted: str) -> None:
        self._device, self._wanted = device, wanted
        self._was_on: bool | None = None
        self._stayed_on = ""
        if wanted == "leave":
            return
        self._was_on = read_state(device).screen_on
        self._stayed_on = self._run("settings", "get", *_STAY_ON)
        self.set()

    def set(self) -> None:
        """Turns it on or off, as wanted; a phone that has restarted needs it again."""
        if self._wanted == "on":
            self._run("svc", "power", "stayon", "true")
            self._turn(True)
        elif self._wanted == "off":
            self._turn(False)

    def restore(self) -> None:
        """Leaves it as it was found. Raises DeviceError."""
        if self._wanted == "on":
            if re.fullmatch(r"\d{1,2}", self._stayed_on, re.ASCII):
                self._run("settings", "put", *_STAY_ON, self._stayed_on)
            else:  # it was never set
                self._run("settings", "delete", *_STAY_ON)
        if self._was_on is not None and self._was_on != (self._wanted == "on"):
            self._turn(self._was_on)

    def _turn(self, on: bool) -> None:
        # These two do nothing where it is so already; POWER would toggle.
        self._run("input", "keyevent", "KEYCODE_WAKEUP" if on else "KEYCODE_SLEEP")

    def _run(self, *words: str) -> str:
        return self._device.shell(words, timeout_secs=_SECS).stdout.strip()
