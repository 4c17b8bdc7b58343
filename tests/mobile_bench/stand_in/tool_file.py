"""Files that pass for benchmark_model binaries, and what a phone keeps in their place.

A test pushes a file with a real ELF header of a phone's processor. The host's kernel cannot run it,
so the stand-in stores a launcher script of the same size where it was pushed to, and gives the
original bytes back where they are pulled or hashed. Launchers may be moved and copied.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import struct
from pathlib import Path

MACHINES = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62, "x86": 3}  # e_machine
_MARKER = b"stand-in benchmark_model"
_SIZE = 4096  # room for the launcher
_LAUNCHER_HEAD = re.compile(rb"#!/bin/sh\n# in the place of ([0-9a-f]{64})\n")


def make_tool(path: Path, abi: str = "arm64-v8a", version: str = "1") -> Path:
    """Writes a file that the stand-in takes for benchmark_model, and returns its path.

    Args:
        path: Where.
        abi: A key of MACHINES.
        version: Makes files with other contents.
    """
    bits = 2 if abi in ("arm64-v8a", "x86_64") else 1
    ident = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9)
    head = ident + struct.pack("<HHI", 3, MACHINES[abi], 1)  # ET_DYN, as every Android binary
    content = head.ljust(64, b"\0") + _MARKER + b"\0" + version.encode() + b"\0"
    path.write_bytes(content.ljust(_SIZE, b"\0"))
    path.chmod(0o755)
    return path


class Tools:
    """The originals behind the launchers of one device."""

    def __init__(self) -> None:
        self._originals: dict[str, bytes] = {}

    def to_stored(self, content: bytes, runner: Path) -> bytes:
        """Returns what is stored for pushed bytes: they themselves, or a launcher.

        Args:
            content: The pushed bytes.
            runner: The command that a launcher starts, with the ABI and the launcher's own
                path before the arguments.
        """
        if not content.startswith(b"\x7fELF") or content[64 : 64 + len(_MARKER)] != _MARKER:
            return content
        digest = hashlib.sha256(content).hexdigest()
        self._originals[digest] = content
        (machine,) = struct.unpack_from("<H", content, 18)
        abi = next(name for name, number in MACHINES.items() if number == machine)
        launcher = (
            f"#!/bin/sh\n# in the place of {digest}\n"
            f'exec {shlex.quote(str(runner))} {abi} "$0" "$@"\nexit\n'
        )
        return launcher.encode().ljust(len(content), b"\n")

    def to_pushed(self, stored: bytes) -> bytes:
        """Returns the bytes that were pushed, given those that are stored."""
        match = _LAUNCHER_HEAD.match(stored)
        return stored if match is None else self._originals[match[1].decode()]
