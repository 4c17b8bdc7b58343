"""What goes wrong with a device: an error of a known kind that says what to do."""

from __future__ import annotations

from mobile_bench.adb import FOLDER
from mobile_bench.errors import FailureError, one_line

ADVICE = {
    "offline": "unplug it and plug it in again, by Wi-Fi turn Wireless debugging off and on, or run"
    " `adb reconnect offline`",
    "unauthorized": "unlock the phone and accept its dialog `Allow USB debugging?`",
    "authorizing": "unlock the phone and accept its dialog `Allow USB debugging?`",
    "connecting": "wait some seconds and try again",
    "no permissions": "this user may not use the USB device: add adb's udev rules, then plug it in"
    " again",
    "bootloader": "restart the phone into Android",
    "recovery": "restart the phone into Android",
    "rescue": "restart the phone into Android",
    "sideload": "restart the phone into Android",
    "detached": "give it back to adb: `adb attach`, with `-s` and its serial",
    "host": "it is another computer's adb and no phone",
    "unknown": "unplug it and plug it in again, or run `adb kill-server`",
}
_KINDS = {  # of the errors that tell these states; "offline" of the others
    "unauthorized": "unauthorized",
    "authorizing": "unauthorized",
    "no permissions": "refused",
}
_GONE_ADVICE = (
    "check its cable or Wi-Fi and that USB debugging is on; `mobile-bench devices` shows what is"
    " there"
)
_FULL = "free some space on the phone; `mobile-bench clean` removes what was put there"
_IN_ITS_PLACE = "something else is in its place: `mobile-bench clean` removes it"


class DeviceError(FailureError):
    """A device, or adb, could not do what was asked.

    Attributes:
        kind: "gone", "offline", "unauthorized", "server" (adb's is gone), "storage" (full),
            "timeout", "stopped" (as asked), "output" (more than allowed), "refused" or "locked" (by
            another session).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def unusable(label: str, state: str) -> DeviceError:
    """Returns the error for a device that adb knows, in a state of `ADVICE`."""
    kind = _KINDS.get(state, "offline")
    return DeviceError(kind, f"{label}adb says that it is `{state}`; {ADVICE[state]}")


def refusal(label: str, answer: str) -> DeviceError:
    """Returns the error for an answer of the adb server, or of the device, that refuses."""
    answer = one_line(answer.strip().partition("\n")[0])
    for word, kind, advice in (
        ("No space left", "storage", _FULL),
        ("Disk quota exceeded", "storage", _FULL),
        ("Permission denied", "refused", "root's own files are in the way, as `adb root` makes"
         f" them: `adb root`, then `adb shell rm -rf {FOLDER}`"),
        ("File exists", "refused", _IN_ITS_PLACE),
        ("Not a directory", "refused", _IN_ITS_PLACE),
        ("Is a directory", "refused", _IN_ITS_PLACE),
        ("Read-only file system", "refused", "its storage takes no files: restart the phone"),
        ("unauthorized", "unauthorized", ADVICE["unauthorized"]),
        ("authorizing", "unauthorized", ADVICE["authorizing"]),
        ("offline", "offline", ADVICE["offline"]),
        ("connecting", "offline", ADVICE["connecting"]),
        ("not found", "gone", _GONE_ADVICE),
        ("no devices", "gone", _GONE_ADVICE),
        ("permissions", "refused", ADVICE["no permissions"]),
        ("closed", "gone", "the phone ended the connection, as one that restarts does; try again"),
    ):  # fmt: skip
        if word in answer:
            return DeviceError(kind, f"{label}{answer}; {advice}")
    return DeviceError("refused", f"{label}the phone or adb refused: {answer}")
