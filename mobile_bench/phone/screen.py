"""The screen of a phone: kept on or off while it is measured, and left as it was."""

from __future__ import annotations

import re

from mobile_bench.adb.device import FOLDER, AdbDevice, Script
from mobile_bench.phone.description import read_state

_SECS = 20.0
_STAY_ON = ["global", "stay_on_while_plugged_in"]
_KEYS = {True: "KEYCODE_WAKEUP", False: "KEYCODE_SLEEP"}  # these do nothing where it is so already
_AS_FOUND = f"{FOLDER}/screen"  # how a screen was found that is not left so yet

# $stay is what was set, $key what turns the screen on or off again; "-" where all is as it was.
_RESTORE = f"""\
case "$stay" in
-) ;;
'' | *[!0-9]*) settings delete {" ".join(_STAY_ON)} ;;
*) settings put {" ".join(_STAY_ON)} "$stay" ;;
esac
case "$key" in
{" | ".join(_KEYS.values())}) input keyevent "$key" ;;
esac
rm -f {_AS_FOUND}
"""


def restore_script() -> str:
    """Returns shell text that leaves the screen as a session found it that was killed."""
    return f"""\
if [ -f {_AS_FOUND} ]; then
read -r stay key <{_AS_FOUND}
{{
{_RESTORE}}} >/dev/null 2>&1
fi
"""


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
        self._stay = self._key = "-"
        if wanted == "leave":
            return
        was_on = read_state(device).screen_on
        if was_on is not None and was_on != (wanted == "on"):
            self._key = _KEYS[was_on]
        if wanted == "on":
            stay = self._run(["settings", "get", *_STAY_ON])
            self._stay = stay if re.fullmatch(r"\d{1,2}", stay, re.ASCII) else "null"
        self._run(Script(f"echo {self._stay} {self._key} >{_AS_FOUND}"))
        self.set()

    def set(self) -> None:
        """Turns it on or off, as wanted; a phone that has restarted needs it again."""
        if self._wanted == "on":
            self._run(["svc", "power", "stayon", "true"])
        if self._wanted != "leave":
            self._run(["input", "keyevent", _KEYS[self._wanted == "on"]])

    def restore(self) -> None:
        """Leaves it as it was found. Raises DeviceError."""
        if self._wanted != "leave":
            self._run(Script(f"stay={self._stay}\nkey={self._key}\n{_RESTORE}"))

    def _run(self, command: list[str] | Script) -> str:
        return self._device.shell(command, timeout_secs=_SECS).stdout.strip()
