"""A lock on a phone, so that two sessions, of one host or of two, do not measure at once.

The lock is a folder on the phone, since making one is atomic. It tells who holds it and carries a
stamp, the phone's time since its start, which the holder renews. A lock is taken over when its
process has ended, its stamp is old, or the phone was started again.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mobile_bench.adb.device import FOLDER, AdbDevice, Script
from mobile_bench.adb.errors import DeviceError, refusal
from mobile_bench.errors import one_line
from mobile_bench.processes import is_running, this_host

_held: set[str] = set()  # the holder's lines of this process's locks

_LOCK = f"{FOLDER}/lock"
_ANSWER_SECS = 20.0
_ATTEMPTS = 3
_PAUSE_SECS = 1.0  # for a session that has made a lock to write its name into it
_STRANGE_SECS = 600  # for which a lock is kept that another version wrote, or that is damaged

# The stamp comes before the holder's line, so that a holder always has one.
_WRITE = f"""\
{{ cat /proc/uptime >{_LOCK}/stamp; }} 2>/dev/null
echo "$line" >{_LOCK}/holder || exit 1
echo taken
"""
_READ_HOLDER = f"""\
holder=
{{ read -r holder <{_LOCK}/holder; }} 2>/dev/null
"""
# A full disk refuses a folder, too, or what root or somebody else has put in its place: then nobody
# has the lock, and mkdir's own words say why. One that is given back just now is tried once more.
_ACQUIRE = f"""\
mkdir -p {FOLDER} || exit 1
for attempt in 1 2; do
if said=$(mkdir {_LOCK} 2>&1); then
{_WRITE}exit
fi
if [ -d {_LOCK} ] && [ ! -h {_LOCK} ]; then
said=
break
fi
done
if [ "$said" ]; then
echo "$said" >&2
exit 1
fi
{_READ_HOLDER}echo "holder $holder"
{{ read -r stamp <{_LOCK}/stamp; }} 2>/dev/null
echo "stamp $stamp"
read -r now </proc/uptime
echo "now $now"
"""
# Whoever changes the holder of a lock that is there has to make the guard first: of two sessions
# that find the same old lock one gets it, and the other then reads another holder. A guard is there
# for moments; one that is seen for seconds was left by a connection that broke.
_TAKE_OVER = f"""\
if [ -n "$force" ]; then rmdir {_LOCK}/guard 2>/dev/null; fi
if ! said=$(mkdir {_LOCK}/guard 2>&1); then
if [ -d {_LOCK}/guard ] || [ ! -d {_LOCK} ]; then exit; fi
echo "$said" >&2
exit 1
fi
{_READ_HOLDER}if [ "$holder" = "$old" ]; then
{_WRITE}fi
rmdir {_LOCK}/guard
"""
# A disk that is full by now gives no room for the guard.
_RELEASE = f"""\
if ! mkdir {_LOCK}/guard 2>/dev/null && [ -d {_LOCK}/guard ]; then exit; fi
{_READ_HOLDER}if [ "$holder" = "$line" ]; then
rm -rf {_LOCK}
else
rmdir {_LOCK}/guard 2>/dev/null
fi
exit 0
"""


class DeviceLock:
    """One session's lock on a phone.

    Args:
        device: The phone.
        lasting_secs: How long after its last stamp others may not take the lock over, while they
            cannot see whether this process has ended.
        sleep: How to wait; the tests have their own.
    """

    def __init__(
        self,
        device: AdbDevice,
        lasting_secs: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._device = device
        self._sleep = sleep
        self._line = f"{secrets.token_hex(16)} {round(lasting_secs)} {os.getpid()} {this_host()}"

    def acquire(self) -> None:
        """Takes the lock, or stamps it where this session has it already.

        Raises:
            DeviceError: "locked", with who has it; "storage" or "refused" where none can be made;
                or the device does not answer.
        """
        _held.add(self._line)
        found = _Found("", None, None)
        for attempt in range(_ATTEMPTS):
            answer = self._run(_ACQUIRE)
            if answer.startswith("taken"):
                return
            found = _Found.read(answer)
            if found.line == self._line or found.is_over(is_new=attempt == 0):
                force = "yes" if attempt == _ATTEMPTS - 1 else ""
                if self._run(_TAKE_OVER, old=found.line, force=force).startswith("taken"):
                    return
            elif found.line:
                break
            self._sleep(_PAUSE_SECS)
        raise DeviceError("locked", f"{self._device.serial}: {found.describe()}")

    def stamp_script(self) -> str:
        """Returns shell text that renews the stamp, to be put into a longer script."""
        return f"{{ cat /proc/uptime >{_LOCK}/stamp; }} 2>/dev/null\n"

    def release(self) -> None:
        """Gives the lock back where this session still has it.

        Raises:
            DeviceError: The device does not answer.
        """
        self.forget()
        self._run(_RELEASE)

    def forget(self) -> None:
        """Lets other sessions of this process take the lock over, where it cannot be released."""
        _held.discard(self._line)

    def _run(self, script: str, **values: str) -> str:
        values = {"line": self._line} | values
        head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        result = self._device.shell(
            Script(head + script), timeout_secs=_ANSWER_SECS, max_bytes=8192
        )
        if result.exit_code != 0:
            raise refusal(f"{self._device.serial}: {_LOCK}: ", result.stderr or result.stdout)
        return result.stdout.lstrip()


@dataclass(frozen=True)
class _Found:
    """A lock that is there already: the holder's line, its stamp and the time now, in seconds."""

    line: str
    stamp: float | None
    now: float | None

    @classmethod
    def read(cls, answer: str) -> _Found:
        found = dict(line.partition(" ")[::2] for line in answer.splitlines())
        times = [
            re.match(r"\s*(\d{1,12}(?:\.\d{1,6})?)(?!\S)", found.get(name, ""), re.ASCII)
            for name in ("stamp", "now")
        ]
        return cls(found.get("holder", "").strip(" \t"), *(t and float(t[1]) for t in times))

    def is_over(self, *, is_new: bool) -> bool:
        """Returns whether its holder is gone; a new lock may not have its holder's name yet."""
        if not self.line:
            return not is_new
        holder = self._holder()
        if holder.host == this_host():
            was_ours = holder.process == os.getpid() and self.line not in _held
            if was_ours or not is_running(holder.process):
                return True
        if self.now is None:
            return False
        if self.stamp is None or self.stamp > self.now:
            return True
        return self.now - self.stamp > holder.lasting_secs

    def describe(self) -> str:
        """Returns who has it, and what to do."""
        holder = self._holder()
        who = one_line(self.line, 80)
        if holder.process is not None:
            who = f"process {holder.process} on {holder.host.partition('/')[0]}"
        if self.line in _held:
            who += ", this very one: is the phone there twice, by cable and by Wi-Fi?"
        return (
            f"another session measures on it ({who}); wait for its end: should it be gone, its "
            f"lock ends {holder.lasting_secs} s after its last sign of life"
        )

    def _holder(self) -> _Holder:
        match = re.fullmatch(
            r"[0-9a-f]{32} (\d{1,9}) (\d{1,9}) ([\w.-]{1,100}/\d{0,20})", self.line, re.ASCII
        )
        if match is None:
            return _Holder(_STRANGE_SECS, None, "")
        return _Holder(int(match[1]), int(match[2]), match[3])


class _Holder(NamedTuple):
    """What a lock's line tells; no process where the line is strange."""

    lasting_secs: int
    process: int | None
    host: str
