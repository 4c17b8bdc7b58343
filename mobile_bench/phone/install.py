"""What mobile_bench puts on a phone: one folder with the tool and the models, by their hashes.

Nothing on the phone is named after a file of this host.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mobile_bench.adb.device import FOLDER, AdbDevice, Pusher, Script
from mobile_bench.adb.errors import DeviceError, refusal
from mobile_bench.errors import FailureError
from mobile_bench.models import ModelFile
from mobile_bench.phone.batch import end_script
from mobile_bench.phone.screen import restore_script

_SHELL_SECS = 60.0
_HASHED_PER_SEC = 20e6  # bytes, by a slow phone
_HASHED_AT_ONCE = 200
_ATTEMPTS = 2  # to push a file that arrives damaged
_NOT_FOUND = 127  # a shell's exit code for a command that it does not have
_LARGEST_FILE = 2**31
_SUM_LINE = re.compile(r"([0-9a-f]{64})[ *]+(/\S+)", re.ASCII)


def end_session_script() -> str:
    """Returns shell text that ends, and puts right, what a session left that was killed."""
    return restore_script() + end_script(FOLDER)


def make_folders(device: AdbDevice) -> None:
    """Makes the folders, which an app may read as well, and ends what an earlier session left.

    Raises:
        DeviceError: They cannot be made, or the phone does not answer.
    """
    folders = f"{FOLDER} {FOLDER}/models {FOLDER}/jobs"
    script = f"mkdir -p {folders} && chmod 755 {folders} || exit 1\n{end_session_script()}"
    done = device.shell(Script(script), timeout_secs=_SHELL_SECS)
    if done.exit_code:
        raise refusal(f"{device.serial}: {FOLDER}: ", done.stderr or done.stdout)


def remote_model(file: ModelFile) -> str:
    """Returns where a model is put on a phone."""
    return f"{FOLDER}/models/{file.sha256[:32]}.tflite"


def push_tool(device: AdbDevice, path: str) -> tuple[str, str]:
    """Puts the benchmark program on the phone, unless it is there.

    Returns:
        Where it is on the phone, and its sha256.

    Raises:
        FailureError: It cannot be put there; DeviceError where the connection is the reason.
    """
    try:
        content = Path(path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        remote = f"{FOLDER}/tool-{digest[:16]}/benchmark_model"
        wanted = {remote: digest}
        for _ in range(_ATTEMPTS):
            if intact(device, wanted, len(content)):
                return remote, digest
            device.push(content, remote, executable=True)
    except OSError as error:
        raise FailureError(f"benchmark_binary: cannot read {path}: {error.strerror}") from error
    if not intact(device, wanted, len(content)):
        raise FailureError(f"{device.serial}: {path} arrives damaged; is the storage sound?")
    return remote, digest


def push_models(
    device: AdbDevice,
    files: Sequence[ModelFile],
    on_push: Callable[[], None] = lambda: None,
    stop: threading.Event | None = None,
) -> dict[str, str]:
    """Puts models on the phone, unless they are there.

    Args:
        device: The phone.
        files: The models.
        on_push: Called after each that was pushed, which may take minutes.
        stop: Ends it in the middle when it is set.

    Returns:
        Why, by path, for the models that could not be put there.

    Raises:
        DeviceError: The connection is lost, or it was stopped.
    """
    missing = {remote_model(file): file for file in files}
    failures: dict[str, str] = {}
    for _ in range(_ATTEMPTS):
        _drop_intact(device, missing, stop)
        with device.pusher(stop) as pusher:
            for remote, file in list(missing.items()):
                if why := _push_model(pusher, file, remote, device.serial):
                    failures[remote] = why
                    del missing[remote]
                on_push()
    _drop_intact(device, missing, stop)
    failures |= dict.fromkeys(missing, "arrives damaged on the phone; has the file changed?")
    return {file.path: why for file in files if (why := failures.get(remote_model(file)))}


def intact(
    device: AdbDevice,
    wanted: Mapping[str, str],
    size_bytes: int,
    stop: threading.Event | None = None,
) -> set[str]:
    """Returns which files of the phone have the bytes that they should have.

    Args:
        device: The phone.
        wanted: The sha256 of each, by its path on the phone.
        size_bytes: Of all of them together, which the time to wait depends on.
        stop: Ends the waiting when it is set.

    Raises:
        DeviceError: It does not answer in time, or it was stopped.
    """
    secs = _SHELL_SECS + size_bytes / _HASHED_PER_SEC
    found: set[str] = set()
    for remotes in _chunks(wanted, _HASHED_AT_ONCE):
        done = device.shell(["sha256sum", *remotes], timeout_secs=secs, stop=stop)
        if done.exit_code == _NOT_FOUND:  # before Android 6
            return {remote for remote in wanted if _read_hash(device, remote) == wanted[remote]}
        sums = {match[2]: match[1] for match in _SUM_LINE.finditer(done.stdout)}
        found |= {remote for remote in remotes if sums.get(remote) == wanted[remote]}
    return found


def _chunks(wanted: Mapping[str, str], size: int) -> Iterator[list[str]]:
    remotes = iter(wanted)
    while chunk := list(itertools.islice(remotes, size)):
        yield chunk


def _read_hash(device: AdbDevice, remote: str) -> str | None:
    """Hashes a file of a phone that cannot do it itself."""
    try:
        return hashlib.sha256(device.pull(remote, _LARGEST_FILE)).hexdigest()
    except DeviceError as error:
        if error.kind != "refused":
            raise
        return None  # it is not there


def _drop_intact(
    device: AdbDevice, missing: dict[str, ModelFile], stop: threading.Event | None
) -> None:
    wanted = {remote: file.sha256 for remote, file in missing.items()}
    size_bytes = sum(file.size_bytes for file in missing.values())
    for remote in intact(device, wanted, size_bytes, stop):
        del missing[remote]


def _push_model(pusher: Pusher, file: ModelFile, remote: str, serial: str) -> str:
    """Pushes a model and returns why that failed; "" where it did not."""
    try:
        pusher.push(Path(file.path), remote)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except DeviceError as error:
        if error.kind not in ("storage", "refused"):
            raise
        return str(error).removeprefix(f"{serial}: ")
    return ""
