"""A listening socket whose connections are served by threads."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Listener:
    """Serves connections until it is closed.

    Args:
        listening: The socket, which is owned from here on.
        serve: Called in a thread of its own with each connected socket.
    """

    def __init__(self, listening: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        self._socket = listening
        self._serve = serve
        self._in_thread(self._accept)

    @property
    def port(self) -> int:
        """The port, of a TCP socket."""
        return self._socket.getsockname()[1]

    def close(self) -> None:
        """Lets no more connections in; those that exist go on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._socket.accept()
            except OSError:
                return  # closed
            self._in_thread(self._serve, connected)

    def _in_thread(self, target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True, name="stand-in").start()
