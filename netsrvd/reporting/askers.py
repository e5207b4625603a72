"""Tells those who asked for a reload how it went (`netsrvd reload`)."""

import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOST_WAITING = 8
"""Each is a descriptor during a reload, of those that are spare (`sockets/descriptors.py`). Further
ones cannot connect before these have been answered.
"""

UCRED = struct.Struct("3i")
"""struct ucred { pid_t pid; uid_t uid; gid_t gid; }."""

LONGEST_ANSWER = 32_768
"""Bytes of an answer; what is cut stands in the log."""

SYSTEM = "/usr"
"""The directory by which two processes see that they have the same files."""

ZONE = Path("/etc/localtime")


class Outside(NamedTuple):
    """What `netsrvd reload` sees of the host. The daemon has a root directory of its own, in which
    a bind mount shows the directory that was there when the daemon started, whatever has its
    name now.
    """

    system: str
    """Device and inode of /usr, as two numbers; empty for a directory that is not there."""
    directory: str
    configuration: str
    """Device and inode of `directory`, in the same form."""
    zone: str
    """The absolute path of the file of the time zone; empty if /etc/localtime is no link."""

    def message(self) -> bytes:
        """Return the message that carries it."""
        return b"\0".join(map(os.fsencode, self))


def look_outside(directory: str) -> Outside:
    """Return what this process sees, with this directory of the configuration."""
    zone = str(ZONE.resolve()) if ZONE.is_symlink() else ""
    return Outside(identity(SYSTEM), directory, identity(directory), zone)


def identity(directory: str) -> str:
    """Return the device and the inode of a directory; an empty text if it is not there."""
    try:
        found = Path(directory).stat()
    except OSError:
        return ""
    return f"{found.st_dev} {found.st_ino}"


def told_outside(asker: socket.socket) -> Outside | None:
    """Return what a process that waits for an answer sees; None if it has not said it."""
    try:
        fields = asker.recv(LONGEST_ANSWER, socket.MSG_DONTWAIT).split(b"\0")
    except OSError:
        return None
    return Outside(*map(os.fsdecode, fields)) if len(fields) == len(Outside._fields) else None


def address(pid: int) -> str:
    """Return the abstract address (unix(7)) at which the daemon with this PID is asked."""
    return f"\0netsrvd/{pid}"


class Askers:
    """The socket at which they wait, one connection each. Owned by the main thread.

    Nobody polls it: who asks connects first and sends SIGHUP then, so at a reload all are there
    whom it is for. The name is anybody's to connect to, but only root and the daemon's own user are
    heard: an answer may have lines of the configuration.
    """

    __slots__ = ("_socket",)

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.bind(address(os.getpid()))
            sock.listen(MOST_WAITING - 1)  # the kernel takes one more
            sock.setblocking(False)
        except OSError:  # somebody else has the name: reloads work, but nobody hears of it
            sock.close()
            return
        self._socket = sock

    def waiting(self) -> list[socket.socket]:
        """Return those who have asked until now; each is to be answered."""
        found: list[socket.socket] = []
        if self._socket is None:
            return found
        with suppress(OSError):
            for _ in range(MOST_WAITING):
                asker = self._socket.accept()[0]
                _, user = credentials(asker)
                if user in (0, os.geteuid()):
                    found.append(asker)
                else:
                    asker.close()
        return found

    def close(self) -> None:
        """Close the socket; whoever asks from now on is refused."""
        if self._socket is not None:
            self._socket.close()


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Return the process and user ID of the other end (SO_PEERCRED in unix(7))."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid, user, _ = UCRED.unpack(raw)
    return pid, user


def answer(askers: Iterable[socket.socket], problem: str) -> None:
    """Tell them how it went, an empty text for well, and close their connections."""
    message = b"\n" + problem.encode(errors="replace")[:LONGEST_ANSWER]
    for asker in askers:
        with asker, suppress(OSError):
            asker.setblocking(False)
            asker.send(message)
            asker.recv(1)  # a close with something unread would take the answer away (ECONNRESET)
