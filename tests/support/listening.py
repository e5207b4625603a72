"""Sockets that no network stands behind, and that can be told to fail."""

import errno
import os
import socket
from collections.abc import Iterable
from typing import Self

Outcome = tuple[socket.socket, tuple[str, int]] | OSError


def failure(number: int) -> OSError:
    """Return the exception of a system call that failed with an errno."""
    return OSError(number, os.strerror(number))


class FakeSocket:
    """As much of a bound socket as looking at it needs."""

    def __init__(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        *,
        proto: int | None = None,
        address: tuple[str, int] = ("127.0.0.1", 51423),
        listens: bool = True,
        fails: dict[int | str, OSError] | None = None,
    ) -> None:
        usual = socket.IPPROTO_TCP if kind == socket.SOCK_STREAM else socket.IPPROTO_UDP
        self.family, self.type, self.proto = family, kind, usual if proto is None else proto
        self.address = address
        self.options: dict[tuple[int, int], object] = {}
        self.blocking = True
        self.closed = False
        self._listens = listens
        self._fails = fails or {}
        """The options that cannot be set, by their numbers, and the calls, by their names."""
        self.steps: list[str] = []

    def getsockname(self) -> tuple[str, int]:
        """Return the address it was made with."""
        return self.address

    def fileno(self) -> int:
        """Return a number that no real descriptor has."""
        return 99_999

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - as in socket.socket
        """Note the mode."""
        self.blocking = flag

    def setsockopt(self, level: int, number: int, value: object) -> None:
        """Keep an option, or fail as told."""
        self._step("setsockopt")
        if number in self._fails:
            raise self._fails[number]
        self.options[level, number] = value

    def getsockopt(self, level: int, number: int, size: int = 0) -> object:
        """Return what was set; whether it listens is as it was made."""
        if (level, number) == (socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return int(self._listens)
        return self.options.get((level, number), b"\0\0\0\0" if size else 0)

    def bind(self, address: object) -> None:
        """Be bound, or fail as told."""
        self._step("bind")

    def listen(self, backlog: int) -> None:
        """Listen, or fail as told."""
        self._step(f"listen {backlog}")

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def _step(self, name: str) -> None:
        if name not in self.steps:
            self.steps.append(name)
        if error := self._fails.get(name.partition(" ")[0]):
            raise error


class Accepted(socket.socket):
    """One end of a socket pair that takes itself for an accepted TCP connection."""

    def getsockname(self) -> tuple[str, int]:
        """Return the local address."""
        return "127.0.0.1", 51423


def accepted() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection, ours first."""
    near, far = socket.socketpair()
    return Accepted(fileno=near.detach()), far


class FakeListener(FakeSocket):
    """A listening socket whose accept does what it is told, one outcome a call.

    It is readable until the outcomes are used up; then `accept` would block.
    """

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        super().__init__()
        self.accepts = 0
        self._outcomes: list[Outcome] = []
        self._far, self._near = socket.socketpair()
        self.come(*outcomes)

    def fileno(self) -> int:
        """Return a real descriptor, for poll."""
        return self._near.fileno()

    def come(self, *outcomes: Outcome) -> None:
        """Have these be the next outcomes, while there are no others."""
        if outcomes:
            self._outcomes = list(outcomes)
            self._far.send(b"!")

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Return the next connection, or raise the next error."""
        self.accepts += 1
        if not self._outcomes:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        outcome = self._outcomes.pop(0)
        if not self._outcomes:
            self._near.recv(1)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Close both ends."""
        super().close()
        self._far.close()
        self._near.close()

    def __enter__(self) -> Self:
        """Be its own context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()
