"""The socket by which `netsrvd reload` gets the result of a reload."""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOST_WAITING = 8
"""Callers at a time. Each takes a spare descriptor during a reload (`sockets/descriptors.py`).
Further ones cannot connect before these have been answered.
"""

UCRED = struct.Struct("3i")
"""struct ucred { pid_t pid; uid_t uid; gid_t gid; }."""

LONGEST_ANSWER = 32_768
"""Bytes of an answer; what is cut stands in the log."""

NAME = "netsrvd-reload"
"""The last part of the path to which the socket is bound for a moment."""

DIRECTORIES = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - of mode 0700 is what is made there
"""Where a directory for the socket is made, in the first one that can be written to."""


SYSTEM = "/usr"
"""The directory by which two processes find that they have the same files."""

ZONE = Path("/etc/localtime")


class Outside(NamedTuple):
    """What `netsrvd reload` sees of the host. The daemon has a root directory of its own, in which
    a bind mount shows the directory that was there when the daemon started, even if another one
    has its name now.
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


def told_outside(caller: socket.socket) -> Outside | None:
    """Return what a caller has sent of its view of the host; None if it has not sent it."""
    try:
        fields = caller.recv(LONGEST_ANSWER, socket.MSG_DONTWAIT).split(b"\0")
    except OSError:
        return None
    return Outside(*map(os.fsdecode, fields)) if len(fields) == len(Outside._fields) else None


def path(pid: int) -> str:
    """Return the path at which the daemon with this PID is asked.

    Raises FileNotFoundError if there is no such process or it has no such socket, PermissionError
    if the kernel does not let the caller look at its descriptors (PTRACE_MODE_READ in ptrace(2)).
    """
    directory = Path(f"/proc/{pid}/fd")
    for link in sorted(directory.iterdir(), key=lambda link: int(link.name)):
        with suppress(FileNotFoundError):  # closed meanwhile
            if link.readlink().name == f"{NAME} (deleted)":
                return str(link)
    raise FileNotFoundError(errno.ENOENT, "it has no socket for that")


class ReloadSocket:
    """The socket to which the callers connect, one connection each. Owned by the main thread.

    The main thread does not poll it: a caller connects first and sends SIGHUP then, so a reload
    finds the connections of all callers that it answers.

    The socket has no name that another user could take, or could fill the queue of: it is bound in
    a directory of mode 0700 and unlinked at once. An O_PATH descriptor of its inode stays open, and
    /proc/PID/fd/N leads to it. Only root and the daemon's own user may follow that link; the mount,
    network and PID namespaces of the two processes do not matter.
    """

    __slots__ = ("_inode", "_socket")

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._inode = -1
        for directory in (os.environ.get("TMPDIR") or DIRECTORIES[0], *DIRECTORIES):
            with suppress(OSError):  # it cannot be written to, or its path is too long
                self._socket, self._inode = _listening(directory)
                return

    def waiting(self) -> list[socket.socket]:
        """Return the callers that have connected so far; each is to be answered."""
        found: list[socket.socket] = []
        if self._socket is None:
            return found
        with suppress(OSError):
            for _ in range(MOST_WAITING):
                caller = self._socket.accept()[0]
                _, user = credentials(caller)
                if user in (0, os.geteuid()):
                    found.append(caller)
                else:
                    caller.close()
        return found

    def close(self) -> None:
        """Close the socket; later callers are refused."""
        if self._socket is not None:
            self._socket.close()
            os.close(self._inode)
            self._socket = None


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Return the process and user ID of the other end (SO_PEERCRED in unix(7))."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid, user, _ = UCRED.unpack(raw)
    return pid, user


WARNING = "warning: "
"""Begins each line of an answer that does not speak of a failure."""


def answer(callers: Iterable[socket.socket], problem: str, warnings: Iterable[str] = ()) -> None:
    """Send the callers the result, an empty problem for success; close their connections."""
    text = problem or "\n".join(WARNING + each for each in warnings)
    message = b"\n" + text.encode(errors="replace")[:LONGEST_ANSWER]
    for caller in callers:
        with caller, suppress(OSError):
            caller.setblocking(False)
            caller.send(message)
            caller.recv(1)  # a close with something unread would take the answer away (ECONNRESET)


def _listening(parent: str) -> tuple[socket.socket, int]:
    """Return a listening socket that no path leads to, and the O_PATH descriptor of its inode.

    Raises OSError, with nothing left open or on disk.
    """
    directory = Path(parent) / f"netsrvd-{os.urandom(8).hex()}"
    directory.mkdir(mode=0o700)
    bound = directory / NAME
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind(str(bound))
        try:
            sock.listen(MOST_WAITING - 1)  # the kernel takes one more
            sock.setblocking(False)
            inode = os.open(bound, os.O_PATH | os.O_CLOEXEC)
        finally:
            bound.unlink()
    except OSError:
        sock.close()
        raise
    finally:
        directory.rmdir()
    return sock, inode
