"""What the service manager says in the environment: sockets or ActivationError, a span or none."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Self
from unittest import mock

from netsrvd.errors import ActivationError
from netsrvd.settings import ListenerSettings
from netsrvd.sockets import activation
from netsrvd.systemd.notify import Notifier
from tests.support.listening import FakeSocket

VARIABLES = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID")
OWN = b"self"
"""Stands for the number of this process, which no input can know."""

FIRST, HELD = 3, 4
"""The first descriptor of sd_listen_fds(3), and the number of those that a run is told to have."""

LISTENERS = (
    ListenerSettings("echo"),
    ListenerSettings("lab", port=7, hosts=("::1",), protocols=("tcp",)),
)
KINDS = (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 51423)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 7)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 51423)),
    (socket.AF_INET6, socket.SOCK_DGRAM, ("::", 9)),
    (socket.AF_UNIX, socket.SOCK_STREAM, ("", 0)),
)


class Inherited(FakeSocket):
    """A passed socket, which is closed when it is not wanted. Nobody waits in its queue."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def accept(self) -> None:
        """Have nobody."""
        raise BlockingIOError

    def recv(self, _: int) -> None:
        """Have nothing."""
        raise BlockingIOError


def check(data: bytes) -> None:
    """Take the lines of the input for the variables; what follows tells the kinds of the sockets.

    No real descriptor becomes a socket: a fake stands in for Python's constructor.
    """
    *texts, kinds = [*data.split(b"\n", len(VARIABLES)), *[b""] * 5][: len(VARIABLES) + 1]
    made: list[Inherited] = []

    def open_fake(*_: object, fileno: int | None = None) -> Inherited:
        kind = kinds[fileno - FIRST] % (2 * len(KINDS)) if fileno - FIRST < len(kinds) else 0
        if kind == 2 * len(KINDS) - 1:
            raise OSError
        family, style, address = KINDS[kind % len(KINDS)]
        made.append(Inherited(family, style, address=address, listens=kind < len(KINDS)))
        return made[-1]

    with _variables(texts), _descriptors():
        with closing(Notifier()) as notifier:
            assert 0.0 <= notifier.watchdog_seconds < float("inf")
        with mock.patch.object(activation.socket, "socket", open_fake):
            _adopts(made)


def _adopts(made: list[Inherited]) -> None:
    try:
        passed, _ = activation.passed()
        opened = activation.adopt(passed, LISTENERS, {})
    except ActivationError as error:
        assert str(error)
        assert all(line.isprintable() for line in str(error).split("\n")), str(error)
    else:
        assert [each.sock for each in opened] == made
        assert all(not each.blocking for each in made)


@contextmanager
def _variables(texts: list[bytes]) -> Iterator[None]:
    """Set the variables; an empty text is one that is not set, and a NUL cannot be in any."""
    own = str(os.getpid()).encode()
    given = {
        name.encode(): text.replace(b"\0", b"").replace(OWN, own)
        for name, text in zip(VARIABLES, texts, strict=True)
        if text
    }
    with mock.patch.dict(os.environ):
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environb.update({b"NOTIFY_SOCKET": b"@netsrvd-nobody"} | given)
        yield


@contextmanager
def _descriptors() -> Iterator[None]:
    """Have the descriptors that may be passed open, and leave them as they were."""
    with ExitStack() as stack:
        for descriptor in range(FIRST, FIRST + HELD):
            try:
                flag = os.get_inheritable(descriptor)
                stack.callback(os.set_inheritable, descriptor, flag)
            except OSError:
                null = os.open(os.devnull, os.O_RDONLY)
                if null != descriptor:
                    os.dup2(null, descriptor)
                    os.close(null)
                stack.callback(os.close, descriptor)
        yield
