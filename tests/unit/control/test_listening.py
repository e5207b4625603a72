"""netsrvd.control.listening"""

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from netsrvd.commands.daemons import private_path
from netsrvd.control import listening
from netsrvd.control.listening import (
    PAUSE_SECONDS,
    PRIVATE_NAME,
    Control,
    ControlSocket,
    credentials,
)
from netsrvd.errors import SocketError, UsageError
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
    control = ControlSocket(Control(sock), lambda *_: Answering())  # type: ignore[arg-type,return-value]
    control.open(loop)
    control.on_ready(READ, 10.0)
    assert (loop.events, loop.due_at) == (0, 10.0 + PAUSE_SECONDS)
    control.run_due(10.0 + PAUSE_SECONDS)
    assert loop.events == READ
    control.close()
    assert (loop.events, loop.due_at) == (-1, 0.0)


def test_a_caller_that_nothing_can_answer_is_disconnected(tmp_path: Path) -> None:
    """Files of another version may have come before those that answer were imported: the caller
    gets no reason; the loop, and so the clients, go on.
    """

    def broken(*_: object) -> Any:
        raise ImportError

    loop: Any = Loop()
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as client:
        control = ControlSocket(listening.bind(path), broken)
        control.open(loop)
        client.connect(path)
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
    with listening.bind(str(stale)).sock:
        pass


def test_its_file_is_removed_wherever_the_daemon_is_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that leaves its terminal changes its directory; one that gives up root may have lost
    the right to remove it.
    """
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    control = listening.bind("socket")
    monkeypatch.chdir("/")
    with control.sock:
        control.remove()
        assert not [*folder.iterdir()]
        folder.rmdir()
        folder.write_text("no folder any more")
        control.remove()


def test_an_abstract_name_needs_a_user_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one in its user namespace the daemon cannot tell its user from others."""
    monkeypatch.setattr(os, "geteuid", lambda: 2**32 - 1)
    with pytest.raises(SocketError, match="other users have this user ID"):
        listening.bind("@netsrvd-test-unmapped")


def test_no_directory_is_left_without_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the private socket."""

    def refuse(*_: object) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(listening, "DIRECTORIES", ())
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(listening.socket, "socket", refuse)
    assert listening.bind_private() is None
    assert not [*tmp_path.iterdir()]


def test_a_private_socket_has_no_name() -> None:
    """Nothing is left of its path, which leads nowhere; its descriptor does. When it is closed, it
    is refused there as well.
    """
    control = listening.bind_private()
    assert control
    path = Path(control.sock.getsockname())
    assert path.name == PRIVATE_NAME
    assert not path.parent.exists()
    served, loop = ControlSocket(control, lambda *_: Answering()), Loop()  # type: ignore[arg-type,return-value]
    served.open(loop)  # type: ignore[arg-type]
    place = private_path(os.getpid())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place)
        assert credentials(client) == (os.getpid(), os.geteuid())
    served.close()
    with pytest.raises(UsageError, match="it has no socket for that"):
        private_path(os.getpid())


def test_no_directory_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written anywhere: then there is no private socket."""
    monkeypatch.setattr(listening, "DIRECTORIES", ("/nonexistent",))
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    assert listening.bind_private() is None
