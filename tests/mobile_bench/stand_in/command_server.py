"""Answers the phone's own commands, which ask over a socket (client.py), and its benchmark runs."""

from __future__ import annotations

import contextlib
import marshal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stand_in.commands import Answer, Commands, Execute, Request
from stand_in.file_system import RUNNER
from stand_in.listener import Listener
from stand_in.runs import Run

if TYPE_CHECKING:
    from stand_in.device import StandInDevice


class CommandServer:
    """Answers commands, once it is started.

    Args:
        device: Whose commands they are.
        path: Of the socket.

    Attributes:
        answers: What some commands print in place of what they would.
    """

    def __init__(self, device: StandInDevice, path: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self._device = device
        self._commands = Commands(device)
        self._path = path
        self._listener: Listener | None = None

    def start(self) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self._path))
        listening.listen(64)
        self._listener = Listener(listening, self._serve)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def _serve(self, connected: socket.socket) -> None:
        gone = contextlib.suppress(EOFError, OSError)  # the command was ended
        with gone, connected, connected.makefile("rwb") as pipe:
            request = Request(**marshal.load(pipe))
            if request.name in self.answers:
                _reply(pipe, self.answers[request.name])
            elif request.name == RUNNER:
                self._serve_run(pipe, request)
            else:
                with self._device.lock:
                    answer = self._commands.answer(request)
                _reply(pipe, answer)

    def _serve_run(self, pipe: BinaryIO, request: Request) -> None:
        """Tells one run of benchmark_model what to do, and spoils it where a fault says so."""
        device = self._device
        abi, name, *arguments = (a.replace(str(device.root), "") for a in request.arguments)
        if abi not in device.properties["ro.product.cpu.abilist"].split(","):
            bits = "64" if abi in ("arm64-v8a", "x86_64") else "32"
            error = f"/system/bin/sh: {name}: not executable: {bits}-bit ELF file\n"
            _reply(pipe, Answer(stderr=error, code=126))
            return
        run = Run(arguments, request.cpus, request.pid)
        with device.lock:
            fault = device.faults.take("run", " ".join(arguments))
            device.runs.append(run)
            if device.on_run is not None:
                device.on_run(device, run)
            device.battery_celsius += device.heat_per_run
            device.write_kernel_files()
        orders = device.tool.orders(arguments) | {
            "root": str(device.root),
            "fault": None if fault is None else vars(fault),
        }
        marshal.dump({"orders": orders}, pipe)
        pipe.flush()
        marshal.load(pipe)  # where nothing comes it is at its end
        device.act(fault)
        marshal.dump("go on", pipe)


def _reply(pipe: BinaryIO, answer: Answer | Execute) -> None:
    if isinstance(answer, Execute):
        fields = {"command": answer.command, "environment": answer.environment}
    else:
        streams = {
            name: text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
            for name, text in (("stdout", answer.stdout), ("stderr", answer.stderr))
        }
        fields = {"code": int(answer.code)} | streams
    marshal.dump(fields, pipe)
