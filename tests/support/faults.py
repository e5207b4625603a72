"""A real socket whose accept fails when it is told to."""

import os
import socket
from typing import Any


class FaultySocket(socket.socket):
    """A listening socket that raises the errors in `faults`, one a call, before it accepts."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, fileno=sock.detach())
        self.faults: list[int] = []

    def accept(self) -> Any:
        """Return the next connection, or raise the next error."""
        if self.faults:
            number = self.faults.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()
