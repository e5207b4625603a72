"""A Unix socket to a log daemon, which may be slow, stopped or absent."""

import errno
import select
import socket
from contextlib import suppress
from pathlib import Path

SEND_BUFFER_BYTES = 1 << 20
"""Room for records that the log daemon has not read yet; net.core.wmem_max may cap it."""


LAST_SECONDS = 2.0
"""How long `close` waits for a log daemon to take the rest of a record on a stream."""

STREAM_END = b"\0"
"""What ends each record on a stream, as glibc's syslog(3) does it."""


class DatagramSocket:
    """Sends datagrams without ever blocking. Owned by the log thread.

    With `or_stream` the log daemon may listen on a stream socket instead, as syslog-ng does with
    `unix-stream`; a NUL then ends each record. It is opened at the first `send`, so never before a
    daemon has left its terminal: a descriptor that was opened before could by then belong to a
    client.
    """

    __slots__ = ("_or_stream", "_path", "_rest", "_sock")

    def __init__(self, path: Path, *, or_stream: bool = False) -> None:
        self._path = path
        self._or_stream = or_stream
        self._sock: socket.socket | None = None
        self._rest = b""
        """What the stream has not taken yet of the last record."""

    def send(self, datagram: bytes) -> bool:
        """Send one datagram. False if the daemon is absent or does not take it now.

        Raises OSError with EMSGSIZE if it is too long, and whatever else speaks of this datagram.
        """
        try:
            if self._sock is None:
                self._sock = connected(self._path, or_stream=self._or_stream)
            if self._or_stream and self._sock.type == socket.SOCK_STREAM:
                return self._send_on_stream(self._sock, datagram)
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
        """Wait until the daemon takes more, at most `seconds`; if it is absent, just `seconds`."""
        poll = select.poll()  # select(2) ends at descriptor 1023, which clients may have by now
        if self._sock is not None:
            poll.register(self._sock, select.POLLOUT)
        poll.poll(seconds * 1000)

    def close(self) -> None:
        """Close the socket; the next `send` opens a new one."""
        if self._sock is not None:
            if self._rest:
                with suppress(OSError):
                    self._sock.settimeout(LAST_SECONDS)
                    self._sock.sendall(self._rest)
            self._sock.close()
            self._sock, self._rest = None, b""

    def _send_on_stream(self, sock: socket.socket, record: bytes) -> bool:
        """Send a record after what is left of the one before; False if that is not gone yet."""
        if self._rest:
            self._rest = self._rest[sock.send(self._rest) :]
        if self._rest:
            return False
        data = record + STREAM_END
        self._rest = data[sock.send(data) :]
        return True


def connected(path: Path, *, or_stream: bool) -> socket.socket:
    """Return a socket that is connected to a log daemon and never blocks. Raises OSError."""
    try:
        return _connected(path, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE or not or_stream:
            raise
        return _connected(path, socket.SOCK_STREAM)


def _connected(path: Path, kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def fault_of(path: Path, *, or_stream: bool = False) -> str:
    """Return why nothing can be sent to a log daemon, an empty text if something can."""
    try:
        connected(path, or_stream=or_stream).close()
    except BlockingIOError:  # it is there, and busy
        return ""
    except FileNotFoundError:
        return f"{path} does not exist"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


ABSENT = frozenset(
    {
        *(errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE),
        *(errno.EACCES, errno.EPROTOTYPE, errno.EBADF, errno.ENOBUFS, errno.ENOMEM),
    }
)
"""Errors of a daemon that is not there, or of a host that is short of memory: worth another try."""
