"""The stand-in's files: a folder that is the root of every path that the phone knows."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from stand_in.commands import Commands, to_list
from stand_in.tool_file import Tools

_HERE = Path(__file__).parent
# What toybox has and the host's coreutils do in the same way.
_HOST_COMMANDS = (
    *("awk", "basename", "cat", "cmp", "cut", "date", "dd", "dirname", "echo", "env", "expr"),
    *("false", "find", "grep", "head", "kill", "ln", "ls", "mktemp", "nice", "nohup", "od"),
    *("printf", "ps", "pwd", "readlink", "realpath", "sed", "seq", "setsid", "sleep", "sort"),
    *("stat", "sync", "tail", "tee", "test", "timeout", "tr", "true", "uniq", "wc", "which"),
    "xargs",
)
# Of those that change files, the ones with which a mistake in the tested code could hurt the host.
_GUARDED_COMMANDS = ("chmod", "cp", "mkdir", "mv", "rm", "rmdir", "touch")
RUNNER = "benchmark_model_runner"  # the command that the launchers of pushed tools start
_BLOCK_BYTES = 4096  # what a folder takes of the disk
_UNREADABLE = "unreadable"  # a link to itself: see FileSystem.forbid


class FileSystem:
    """The phone's files and commands.

    Args:
        root: An empty folder. Its path has only letters, digits, `/`, `_`, `.` and `-`.
        socket_path: Where the phone's own commands ask for their answers.
    """

    def __init__(self, root: Path, socket_path: Path) -> None:
        self.root = root
        self.tools = Tools()
        self.free_bytes: int | None = None
        self.has_inodes = True
        self._socket_path = socket_path
        self._contents: dict[str, str] = {}
        self._bin = root / "system/bin"
        for folder in ("data/local/tmp", "sdcard/Download", "proc", "system/bin"):
            (root / folder).mkdir(parents=True)
        shutil.copy(_HERE / "commands/sh", self._bin / "sh")
        (self._bin / "sh").chmod(0o755)
        for name in _HOST_COMMANDS:
            found = shutil.which(name)
            if found is not None:
                (self._bin / name).symlink_to(found)
        for name in _GUARDED_COMMANDS:
            self._write_command(name, "/bin/sh", _HERE / "commands/guard", shutil.which(name))
        for name in (*Commands.NAMES, RUNNER):
            self.add_command(name)

    @property
    def is_full(self) -> bool:
        """Whether no new file or folder can be made."""
        no_block = self.free_bytes is not None and self.free_bytes < _BLOCK_BYTES
        return no_block or not self.has_inodes

    @property
    def command_path(self) -> str:
        """PATH of the phone's shell."""
        return str(self._bin)

    @property
    def runner(self) -> Path:
        """Path of RUNNER."""
        return self._bin / RUNNER

    def add_command(self, name: str) -> None:
        """Makes a command one that asks the device object, in place of the host's."""
        client = (sys.executable, "-I", "-S", _HERE / "client.py")
        self._write_command(name, *client, self._socket_path, name)

    def remove_command(self, name: str) -> None:
        """Makes a command unknown."""
        (self._bin / name).unlink(missing_ok=True)

    def _write_command(self, name: str, *words: object) -> None:
        self.remove_command(name)
        line = " ".join(shlex.quote(str(word)) for word in words)
        path = self._bin / name
        path.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        path.chmod(0o755)

    def path(self, name: str) -> Path:
        """Returns the host's path of one of the phone's.

        Raises:
            PermissionError: It would be outside of the root, through a link.
        """
        host = self.root / os.path.normpath("/" + name).lstrip("/")
        if self.root not in (real := Path(os.path.realpath(host))).parents and real != self.root:
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return host

    def content(self, name: str) -> bytes:
        """Returns a file's bytes as they were pushed, or written on the phone.

        Raises:
            OSError: It cannot be read.
        """
        try:
            stored = self.path(name).read_bytes()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise PermissionError(errno.EACCES, "Permission denied", name) from error
            raise
        return self.tools.to_pushed(stored).replace(os.fsencode(self.root), b"")

    def store(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Writes a file as a push does.

        Raises:
            OSError: It cannot be written: no space is left, or it is a folder.
        """
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        too_large = self.free_bytes is not None and len(content) > self.free_bytes
        if too_large or not (self.has_inodes or path.exists()):
            raise OSError(errno.ENOSPC, "No space left on device")
        path.unlink(missing_ok=True)
        path.write_bytes(self.tools.to_stored(content, self.runner))
        path.chmod(mode)

    def write(self, name: str, text: str) -> None:
        """Writes one of the kernel's files, if its text changed."""
        if self._contents.get(name) == text:
            return
        self._contents[name] = text
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def forbid(self, name: str) -> None:
        """Makes a file unreadable, even to root: a link to itself.

        The shell service prints the error's text as that of a missing permission.
        """
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(path.name)
        self._contents[name] = _UNREADABLE

    def is_forbidden(self, name: str) -> bool:
        return self._contents.get(name) == _UNREADABLE

    def write_status(self, shell: str | int, cpus: Iterable[int], cores: int) -> None:
        """Writes what a command of one shell service reads as /proc/self/status."""
        cpus = list(cpus)
        mask = sum(1 << cpu for cpu in cpus)
        width = max(1, (cores + 3) // 4)
        folder = self.root / "proc" / str(shell)
        folder.mkdir(exist_ok=True)
        (folder / "status").write_text(
            f"Name:\tsh\nState:\tR (running)\nUid:\t2000\t2000\t2000\t2000\n"
            f"Cpus_allowed:\t{mask:0{width}x}\nCpus_allowed_list:\t{to_list(cpus)}\n"
        )
