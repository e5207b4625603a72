"""Real sockets and C functions that fail when they are told to."""

import ctypes
import os
import socket
from collections.abc import Callable
from typing import Any


class FaultySocket(socket.socket):
    """A listening socket that raises the errors in `faults`, one a call, before it accepts."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, fileno=sock.detach())
        self.faults: list[int] = []

    def _accept(self) -> Any:
        """Return the next connection, or raise the next error; `accept` calls it, too."""
        if self.faults:
            number = self.faults.pop(0)
            raise OSError(number, os.strerror(number))
        return super()._accept()  # type: ignore[misc]


class FaultyCall:
    """A function of the C library that fails with the errors in `faults`, one a call, at first."""

    def __init__(self, real: Callable[..., int]) -> None:
        self.faults: list[int] = []
        self._real = real

    def __call__(self, *arguments: Any) -> int:
        """Make the call, or fail."""
        if self.faults:
            ctypes.set_errno(self.faults.pop(0))
            return -1
        return self._real(*arguments)
