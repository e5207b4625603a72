"""The listening control sockets. What answers is imported when the first caller connects."""

import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from netsrvd.errors import SocketError
from netsrvd.event_loop import READ, EventLoop

PAUSE_SECONDS = 0.5
"""How long to leave callers waiting while there is no descriptor for one."""

PRIVATE_NAME = "netsrvd-control"
"""The last part of the path to which a private socket is bound for a moment."""

DIRECTORIES = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - of mode 0700 is what is made there
"""Where a directory for a private socket is made, in the first one that can be written to."""

UCRED = struct.Struct("3i")
"""struct ucred { pid_t pid; uid_t uid; gid_t gid; }."""

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


class Control(NamedTuple):
    """A listening control socket."""

    sock: socket.socket
    is_passed: bool = False
    """Whether systemd has passed it. The mode of its file says then who may look; otherwise only
    root and the daemon's own user are answered."""
    path: str = ""
    """Where the daemon has bound it and a file or an abstract name is; empty if there is none."""
    inode: int = -1
    """The O_PATH descriptor of a private one; -1 for others."""

    def remove(self) -> None:
        """Remove its file, if it has one."""
        if self.path and not self.path.startswith("@"):
            with suppress(OSError):  # its folder may be another user's: root has bound it
                Path(self.path).unlink()


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Return the process and user ID of the other end (SO_PEERCRED in unix(7))."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid, user, _ = UCRED.unpack(raw)
    return pid, user


def bind(path: str) -> Control:
    """Return a listening socket at a path, or at an abstract name that begins with `@`.

    The file has the mode 0600. A socket that is left there and that no process listens on is
    replaced. Raises SocketError.
    """
    if path.startswith("@") and not _is_mapped(os.geteuid()):
        why = "other users have this user ID here, and an abstract name has no mode"
        raise SocketError(f"control socket {path}: {why}; give --control a path")
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
    # A daemon that leaves its terminal changes its directory.
    return Control(sock, path=path if path.startswith("@") else str(Path(path).absolute()))


def _is_mapped(user: int) -> bool:
    """Return whether the user namespace has this user ID, as it is not that of all who have none
    there (user_namespaces(7)).
    """
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = [[int(field) for field in line.split()] for line in lines]
    return any(first <= user < first + count for first, _, count in ranges)


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


def bind_private() -> Control | None:
    """Return a listening socket for root and this user alone, found by the process ID of the
    daemon; None if no directory can be written to.

    It has no name that another user could take, and no path by which one could fill its queue: it
    is bound in a directory of mode 0700 and unlinked at once. An O_PATH descriptor of its inode
    stays open, and /proc/PID/fd/N leads to it. The kernel lets only root and this user follow that
    link, after `--detach --user` root alone; the mount, network and PID namespaces of the two
    processes do not matter.
    """
    for parent in (os.environ.get("TMPDIR") or DIRECTORIES[0], *DIRECTORIES):
        with suppress(OSError):  # it cannot be written to, or its path is too long
            return _bound_private(Path(parent) / f"netsrvd-{os.urandom(8).hex()}")
    return None


def _bound_private(directory: Path) -> Control:
    """Raise OSError, with nothing left open or on disk, if it cannot be."""
    bound = directory / PRIVATE_NAME
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory.mkdir(mode=0o700)
        try:
            sock.bind(str(bound))
            try:
                sock.listen()
                inode = os.open(bound, os.O_PATH | os.O_CLOEXEC)
            finally:
                bound.unlink()
        finally:
            directory.rmdir()
    except OSError:
        sock.close()
        raise
    return Control(sock, inode=inode)


class ControlSocket:
    """A control socket that is served. Owned by the event loop that serves it, from `open` on."""

    __slots__ = ("_callers", "_control", "_import", "_loop", "sock")

    def __init__(self, control: Control, answerer: Import) -> None:
        self.sock = control.sock
        self._control = control
        self._import = answerer
        self._callers: Answering | None = None
        self._loop: EventLoop
        self.sock.setblocking(False)

    def open(self, loop: EventLoop) -> None:
        """Accept callers in a loop (in its thread)."""
        self._loop = loop
        loop.add(self.sock.fileno(), self)

    def close(self) -> None:
        """Close the socket and all callers (in the loop's thread)."""
        if self._callers is not None:
            self._callers.close_all()
        self._loop.forget_timer(self)
        self._loop.remove(self.sock.fileno())
        self.sock.close()
        if self._control.inode >= 0:
            os.close(self._control.inode)
        self._control.remove()

    def on_ready(self, _events: int, now: float) -> None:
        """Accept one caller: clients of the listeners come first."""
        if self._callers is None:
            with suppress(Exception):  # files of another version: `preload` reports them as well
                self._callers = self._import(self.sock, self._loop)
        callers = self._callers
        if callers is not None and not callers.make_room(now):
            return
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:  # it has gone
            return
        except OSError:  # there is no descriptor: it goes on waiting
            self._loop.modify(self.sock.fileno(), 0)
            self._loop.call_at(now + PAUSE_SECONDS, self)
            return
        if callers is None:
            sock.close()
        else:
            callers.accept(sock, now)

    def run_due(self, _now: float) -> float:
        """Accept again, after a pause."""
        self._loop.modify(self.sock.fileno(), READ)
        return inf
