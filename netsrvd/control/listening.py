"""The listening control socket. What answers is imported when the first caller connects."""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from netsrvd.errors import SocketError
from netsrvd.event_loop import READ, EventLoop
from netsrvd.upgrade import is_replaced

UPGRADED = b'{"error":"io.netsrvd.Upgraded","parameters":{}}\0'
"""The answer when the code that would answer has been replaced since the start."""

FAILED = b'{"error":"io.netsrvd.Failed","parameters":{"reason":"its code cannot be imported"}}\0'
"""The answer when it cannot be imported for another reason, such as a lack of descriptors."""

CALLERS_REFUSED = 4
"""Callers that wait for that answer at a time; one more ends the wait of the first."""

PAUSE_SECONDS = 0.5
"""How long to leave callers waiting while there is no descriptor for one."""

LONGEST_CALL = 65_536
"""Bytes of a call, with its final NUL."""


if TYPE_CHECKING:

    class Answering(Protocol):
        """What answers: `callers.Callers`."""

        def make_room(self, now: float) -> bool:
            """Return whether one more caller may be accepted; if not, call `on_ready` later."""

        def accept(self, sock: socket.socket, now: float) -> None:
            """Serve a caller."""

        def close_all(self) -> None:
            """Close all connections."""


Import = Callable[[socket.socket, EventLoop], "Answering"]
"""Imports and makes what answers; it may raise any exception."""


def bind(path: str) -> socket.socket:
    """Return a listening socket at a path, or at an abstract name that begins with `@`.

    The file has the mode 0600. A socket that is left there and that no process listens on is
    replaced. Raises SocketError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.startswith("@"):
            sock.bind("\0" + path[1:])
        else:
            _remove_stale(path)
            before = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
        sock.listen()
    except (OSError, ValueError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or error
        raise SocketError(f"control socket {path}: {reason}; choose another --control") from error
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that no process listens on any more."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()


class ControlSocket:
    """The listening socket. Owned by the event loop that serves it, from `open` on."""

    __slots__ = ("_callers", "_import", "_loop", "_path", "_refused", "sock")

    def __init__(self, sock: socket.socket, answerer: Import, *, path: str = "") -> None:
        """Take a socket, and the `path` at which it was bound, which is removed at the end."""
        self.sock = sock
        self._import = answerer
        self._path = path
        self._callers: Answering | None = None
        self._loop: EventLoop
        self._refused: list[RefusedCaller] = []
        sock.setblocking(False)

    def open(self, loop: EventLoop) -> None:
        """Accept callers in a loop (in its thread)."""
        self._loop = loop
        loop.add(self.sock.fileno(), self)

    def close(self) -> None:
        """Close the socket and all callers (in the loop's thread)."""
        if self._callers is not None:
            self._callers.close_all()
        for each in list(self._refused):
            each.close()
        self._loop.forget_timer(self)
        self._loop.remove(self.sock.fileno())
        self.sock.close()
        if self._path and not self._path.startswith("@"):
            Path(self._path).unlink(missing_ok=True)

    def on_ready(self, _events: int, now: float) -> None:
        """Accept one caller: clients of the listeners come first."""
        message = self._load() if self._callers is None else b""
        if self._callers is not None and not self._callers.make_room(now):
            return
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:  # it has gone
            return
        except OSError:  # there is no descriptor: it goes on waiting
            self._loop.modify(self.sock.fileno(), 0)
            self._loop.call_at(now + PAUSE_SECONDS, self)
            return
        if self._callers is not None:
            self._callers.accept(sock, now)
            return
        if len(self._refused) >= CALLERS_REFUSED:
            self._refused[0].close()
        try:
            self._refused.append(RefusedCaller(sock, self._loop, message, self._refused))
        except OSError:  # fs.epoll.max_user_watches
            sock.close()

    def run_due(self, _now: float) -> float:
        """Accept again, after a pause."""
        self._loop.modify(self.sock.fileno(), READ)
        return inf

    def _load(self) -> bytes:
        """Import what answers; return what a caller is told if that cannot be."""
        if is_replaced():
            return UPGRADED
        try:
            callers = self._import(self.sock, self._loop)
        except Exception:  # noqa: BLE001 - whatever it is, it concerns callers alone
            return UPGRADED if is_replaced() else FAILED
        if is_replaced():
            return UPGRADED
        self._callers = callers
        return b""


class RefusedCaller:
    """A caller that is told why it gets no answer, once it has sent a call. Owned by the loop."""

    __slots__ = ("_all", "_loop", "_message", "_received", "_sock")

    def __init__(
        self, sock: socket.socket, loop: EventLoop, message: bytes, everyone: "list[RefusedCaller]"
    ) -> None:
        self._sock = sock
        self._message = message
        self._loop = loop
        self._all = everyone
        self._received = 0
        sock.setblocking(False)
        loop.add(sock.fileno(), self)

    def on_ready(self, events: int, _now: float) -> None:
        """Answer a call, and read on until the caller closes."""
        try:
            data = self._sock.recv(LONGEST_CALL) if events & READ else b""
            self._received += len(data)
            if b"\0" in data:
                self._sock.send(self._message, socket.MSG_NOSIGNAL)
        except OSError:
            data = b""
        if not data or self._received > LONGEST_CALL:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        self._all.remove(self)
        self._loop.remove(self._sock.fileno())
        self._sock.close()
