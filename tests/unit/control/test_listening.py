"""netsrvd.control.listening"""

import errno
import socket
from pathlib import Path
from typing import Any

import pytest

from netsrvd.control import listening
from netsrvd.control.listening import PAUSE_SECONDS, ControlSocket
from netsrvd.errors import SocketError
from netsrvd.event_loop import READ


class Loop:
    """Notes what is watched."""

    def __init__(self) -> None:
        self.events = -1
        self.due_at = 0.0

    def add(self, descriptor: int, watched: object, events: int = READ) -> None:
        self.events = events

    def modify(self, descriptor: int, events: int) -> None:
        self.events = events

    def call_at(self, when: float, timer: object) -> None:
        self.due_at = when

    def forget_timer(self, timer: object) -> None:
        self.due_at = 0.0

    def remove(self, descriptor: int) -> None:
        self.events = -1


class Short:
    """A listening socket for which there is no descriptor."""

    def setblocking(self, flag: object) -> None:
        """Do nothing."""

    def fileno(self) -> int:
        return 99

    def accept(self) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    def close(self) -> None:
        """Do nothing."""


class Answering:
    """Has room."""

    def make_room(self, now: float) -> bool:
        return True

    def close_all(self) -> None:
        """Do nothing."""


def test_without_a_descriptor_callers_wait() -> None:
    """The loop does not spin: the socket is left alone for a while, and then accepts again."""
    loop: Any = Loop()
    sock: Any = Short()
    control = ControlSocket(sock, lambda *_: Answering())  # type: ignore[arg-type,return-value]
    control.open(loop)
    control.on_ready(READ, 10.0)
    assert (loop.events, loop.due_at) == (0, 10.0 + PAUSE_SECONDS)
    control.run_due(10.0 + PAUSE_SECONDS)
    assert loop.events == READ
    control.close()
    assert (loop.events, loop.due_at) == (-1, 0.0)


def test_a_caller_that_cannot_be_watched_is_disconnected(tmp_path: Path) -> None:
    """With no room left in epoll(7) it gets no reason; the loop, and so the clients, go on."""

    class Full(Loop):
        def add(self, descriptor: int, watched: object, events: int = READ) -> None:
            if watched is not control:
                raise OSError(errno.ENOSPC, "No space left on device")

    def broken(*_: object) -> Any:
        raise ImportError

    full: Any = Full()
    with listening.bind(str(tmp_path / "socket")) as sock, socket.socket(socket.AF_UNIX) as client:
        control = ControlSocket(sock, broken)
        control.open(full)
        client.connect(str(tmp_path / "socket"))
        control.on_ready(READ, 0.0)
        client.settimeout(5)
        assert client.recv(1) == b""
        control.close()


@pytest.mark.parametrize("path", ["/nowhere/socket", "/" + "x" * 200, "a\0b"])
def test_a_path_that_cannot_be_is_an_error(path: str) -> None:
    """It names the path and the option."""
    with pytest.raises(SocketError, match="choose another --control"):
        listening.bind(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """Only a socket that nothing listens on is replaced."""
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(SocketError):
        listening.bind(str(file))
    assert file.read_text() == "precious"
    stale = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    with listening.bind(str(stale)):
        pass
