"""netsrvd.log.datagram_socket"""

import errno
import fcntl
import itertools
import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from netsrvd.log.datagram_socket import ABSENT, DatagramSocket
from tests.support.listening import failure
from tests.support.logs import LogDaemon

FD_SETSIZE = 1024
"""Descriptors from here on are beyond select(2)."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def sock(path: Path) -> Iterator[DatagramSocket]:
    made = DatagramSocket(path)
    yield made
    made.close()


def fill(sock: DatagramSocket) -> int:
    """Send until the daemon takes no more; return how many it took."""
    sent = 0
    while sock.send(b"x" * 1000):
        sent += 1
    return sent


def test_nothing_is_open_before_the_first_send(sock: DatagramSocket, path: Path) -> None:
    """A descriptor from before the daemon left its terminal could by now be a client's."""
    with LogDaemon(path):
        assert sock._sock is None
        assert sock.send(b"one")
        assert sock._sock is not None


def test_an_absent_daemon_takes_nothing(sock: DatagramSocket) -> None:
    """Without a socket at the path, or with a dead one, nothing is sent and nothing raised."""
    assert not sock.send(b"one")
    sock.wait(0)
    assert sock._sock is None


def test_a_daemon_that_comes_back_is_found(sock: DatagramSocket, path: Path) -> None:
    """After a restart of the daemon the next record goes to its new socket."""
    with LogDaemon(path) as daemon:
        assert sock.send(b"one")
        assert daemon.read() == b"one"
    assert not sock.send(b"two")
    with LogDaemon(path) as daemon:
        assert sock.send(b"three")
        assert daemon.read() == b"three"


def test_a_daemon_that_does_not_read_stops_nobody(sock: DatagramSocket, path: Path) -> None:
    """A full socket is an answer, not a wait; when the daemon reads again it takes more."""
    with LogDaemon(path) as daemon:
        assert fill(sock) > 0
        sock.wait(0)
        assert not sock.send(b"more")
        daemon.read()
        sock.wait(10)
        assert sock.send(b"more")


def test_it_waits_with_any_descriptor(sock: DatagramSocket, path: Path) -> None:
    """With thousands of clients the log's descriptor is beyond what select(2) can take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * FD_SETSIZE), hard))
    with LogDaemon(path):
        fill(sock)
        assert sock._sock is not None
        high = fcntl.fcntl(sock._sock, fcntl.F_DUPFD_CLOEXEC, FD_SETSIZE)
        sock._sock.close()
        sock._sock = socket.socket(fileno=high)
        sock.wait(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Failing:
    """A connected socket whose send fails."""

    def __init__(self, number: int) -> None:
        self.number, self.closed = number, False

    def send(self, datagram: bytes) -> int:
        raise failure(self.number)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("number", sorted(ABSENT), ids=lambda number: errno.errorcode[number])
def test_what_may_pass_is_tried_again_with_a_new_socket(number: int, path: Path) -> None:
    """Errors of a daemon that has gone, or of a host short of memory, close the socket."""
    sock, failing = DatagramSocket(path), Failing(number)
    sock._sock = failing  # type: ignore[assignment]
    assert not sock.send(b"one")
    assert failing.closed
    assert sock._sock is None


@pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.EINVAL, errno.EPERM])
def test_what_speaks_of_the_datagram_is_raised(number: int, path: Path) -> None:
    """A datagram that can never be sent must not be offered for ever."""
    sock, failing = DatagramSocket(path), Failing(number)
    sock._sock = failing  # type: ignore[assignment]
    with pytest.raises(OSError, match=os.strerror(number)):
        sock.send(b"one")
    assert not failing.closed


def test_a_full_socket_stays_open(path: Path) -> None:
    """EAGAIN is routine: journald's queue may be as short as ten datagrams."""
    sock, failing = DatagramSocket(path), Failing(errno.EAGAIN)
    sock._sock = failing  # type: ignore[assignment]
    assert not sock.send(b"one")
    assert sock._sock is failing


def test_a_stream_takes_records_in_parts(tmp_path: Path) -> None:
    """With a daemon that reads slowly a record is sent in parts, the next one is not taken before,
    and none is mixed with another; what is left at the close is sent then.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.listen()
        stream = DatagramSocket(tmp_path / "log", or_stream=True)
        records = [bytes([number]) * 300_000 for number in range(1, 40)]
        taken = list(itertools.takewhile(stream.send, records))
        assert 0 < len(taken) < len(records)
        reader, _ = listening.accept()
        with reader, ThreadPoolExecutor(1) as pool:
            closing = pool.submit(stream.close)
            found = b"".join(iter(lambda: reader.recv(1 << 20), b""))
            closing.result()
    assert found == b"".join(record + b"\0" for record in taken)
