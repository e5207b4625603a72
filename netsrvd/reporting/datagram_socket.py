"""A Unix datagram socket to a log daemon, which may be slow, stopped or absent."""

import errno
import select
import socket
from contextlib import suppress
from pathlib import Path

SEND_BUFFER_BYTES = 1 << 20
"""Room for records that the log daemon has not read yet; net.core.wmem_max may cap it."""


class DatagramSocket:
    """Sends datagrams without ever blocking. Owned by the reporter's thread.

    It is opened at the first `send`, so never before a daemon has left its terminal: a descriptor
    that was opened before could by then belong to a client.
    """

    __slots__ = ("_path", "_sock")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock: socket.socket | None = None

    def send(self, datagram: bytes) -> bool:
        """Send one datagram. False if the daemon is absent or does not take it now.

        Raises OSError with EMSGSIZE if it is too long, and whatever else speaks of this datagram.
        """
        try:
            if self._sock is None:
                self._sock = self._open()
            self._sock.send(datagram)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            self.close()
            return False
        return True

    def wait(self, seconds: float) -> None:
        """Wait until the daemon takes more, at most so long; if it is absent, just so long."""
        poll = select.poll()  # select(2) ends at descriptor 1023, which clients may have by now
        if self._sock is not None:
            poll.register(self._sock, select.POLLOUT)
        poll.poll(seconds * 1000)

    def close(self) -> None:
        """Close the socket; the next `send` opens a new one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        return sock


ABSENT = frozenset(
    {
        *(errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE),
        *(errno.EACCES, errno.EPROTOTYPE, errno.EBADF, errno.ENOBUFS, errno.ENOMEM),
    }
)
"""Errors of a daemon that is not there, or of a host that is short of memory: worth another try."""
