"""The `sync:` service, with which adb pushes, pulls, lists and asks for sizes.

Written from the public description (SYNC.TXT in the Android sources). A request is four letters, a
length and a path; the forms that end in 2 have wider fields.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from stand_in.adbd import Stream

if TYPE_CHECKING:
    from stand_in.device import StandInDevice

_CHUNK = 64 * 1024
_STAT_1 = struct.Struct("<4s3I")  # id, mode, size, time of change
# id, error, device, inode, mode, links, user, group, size, times of access, change, status change
_STAT_2 = struct.Struct("<4sIQQ4IQ3q")
_MISSING = 2  # errno's ENOENT, as the protocol writes it


class SyncService:
    """Serves one `sync:` stream.

    Args:
        device: Whose files are read and written.
        stream: The open stream.
    """

    def __init__(self, device: StandInDevice, stream: Stream) -> None:
        self._device = device
        self._stream = stream

    def run(self) -> None:
        """Answers requests until the host says QUIT or goes away."""
        while True:
            kind, length = struct.unpack("<4sI", self._stream.read(8))
            path = self._stream.read(length).decode("utf-8", "surrogateescape")
            if kind == b"QUIT":
                return
            try:
                self._answer(kind, path)
            except OSError as error:
                self._fail(error.strerror or str(error))

    def _answer(self, kind: bytes, path: str) -> None:
        if kind == b"STAT":
            self._stream.write(_STAT_1.pack(kind, *_short_stat(self._device, path)))
        elif kind in (b"STA2", b"LST2"):
            self._stream.write(_STAT_2.pack(kind, *_long_stat(self._device, path)))
        elif kind in (b"LIST", b"LIS2"):
            self._list(path, long=kind == b"LIS2")
        elif kind == b"SEND":
            name, _, mode = path.rpartition(",")
            self._receive_file(name, int(mode))
        elif kind == b"SND2":
            _, mode, _ = struct.unpack("<4sII", self._stream.read(12))
            self._receive_file(path, mode)
        elif kind in (b"RECV", b"RCV2"):
            if kind == b"RCV2":
                self._stream.read(8)
            self._send_file(path)
        else:
            raise OSError(f"unknown request {kind!r}")

    def _fail(self, message: str) -> None:
        text = message.encode()
        self._stream.write(struct.pack("<4sI", b"FAIL", len(text)) + text)

    def _list(self, path: str, long: bool) -> None:
        try:
            names = sorted(os.listdir(self._device.files.path(path)))
        except OSError:
            names = []  # an unreadable folder is an empty one here
        for name in names:
            text = name.encode("utf-8", "surrogateescape")
            inside = f"{path}/{name}"
            if long:
                head = _STAT_2.pack(b"DNT2", *_long_stat(self._device, inside))
            else:
                head = _STAT_1.pack(b"DENT", *_short_stat(self._device, inside))
            self._stream.write(head + struct.pack("<I", len(text)) + text)
        self._stream.write(b"DONE" + bytes((_STAT_2 if long else _STAT_1).size))

    def _receive_file(self, name: str, mode: int) -> None:
        content = bytearray()
        fault = self._device.faults.take("push", name)
        while True:
            kind, length = struct.unpack("<4sI", self._stream.read(8))
            if kind == b"DONE":  # its length is the file's time
                break
            content += self._stream.read(length)
            if fault is not None and fault.kind in ("unplug", "reboot"):
                self._device.act(fault)
        if fault is not None and fault.kind == "damage":
            content[-1] ^= 0xFF
        self._device.files.store(name, bytes(content), mode & 0o777)
        self._device.transfers.append(("push", name, len(content)))
        self._stream.write(struct.pack("<4sI", b"OKAY", 0))

    def _send_file(self, name: str) -> None:
        content = self._device.files.content(name)
        self._device.transfers.append(("pull", name, len(content)))
        for start in range(0, len(content), _CHUNK):
            part = content[start : start + _CHUNK]
            self._stream.write(struct.pack("<4sI", b"DATA", len(part)) + part)
        self._stream.write(struct.pack("<4sI", b"DONE", 0))


def _short_stat(device: StandInDevice, path: str) -> tuple[int, int, int]:
    try:
        info = os.lstat(device.files.path(path))
    except OSError:
        return 0, 0, 0
    return info.st_mode, info.st_size & 0xFFFFFFFF, int(info.st_mtime)


def _long_stat(device: StandInDevice, path: str) -> tuple[int, ...]:
    try:
        info = os.stat(device.files.path(path))
    except OSError as error:
        return (error.errno or _MISSING, *[0] * 10)
    times = int(info.st_atime), int(info.st_mtime), int(info.st_ctime)
    return (
        0,
        info.st_dev,
        info.st_ino,
        info.st_mode,
        info.st_nlink,
        info.st_uid,
        info.st_gid,
        info.st_size,
        *times,
    )
