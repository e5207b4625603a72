"""Logs that can be told to fail: one in this process, and the far end of a log's socket."""

import re
import socket
import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from netsrvd.log.records import Record
from tests.support import patience


class FakeLog:
    """A log for the log writer. `outcomes` are consumed a write each: True taken, False not now, an
    exception to raise; when they are used up, everything is taken.

    While `shut` it takes nothing. `wait` returns at once, having told `waited`.
    """

    name = "fake"

    def __init__(self, outcomes: Iterable[bool | OSError] = ()) -> None:
        self.taken: list[Record] = []
        self.closed = False
        self.shut = False
        self.waited = threading.Event()
        self._outcomes = iter(outcomes)

    def write(self, record: Record) -> bool:
        """Take a record, or fail as told."""
        outcome = False if self.shut else next(self._outcomes, True)
        if isinstance(outcome, OSError):
            raise outcome
        if outcome:
            self.taken.append(record)
        return outcome

    def wait(self, seconds: float) -> None:
        """Tell that the log writer waits."""
        self.waited.set()

    def close(self) -> None:
        """Note that nobody needs it any more."""
        self.closed = True

    def say(self, *outcomes: bool) -> None:
        """Open it, with these outcomes for the next writes."""
        self._outcomes = iter(outcomes)
        self.shut = False

    @property
    def texts(self) -> list[str]:
        """The texts of the records it took."""
        return [record.text for record in self.taken]


class LogDaemon:
    """A log daemon's socket, at a path of its own. It reads only what `read` asks for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock: socket.socket | None = None

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.bind(str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        """End, and leave nothing behind."""
        assert self._sock is not None
        self._sock.close()
        self.path.unlink()

    def read(self) -> bytes:
        """Return the next datagram."""
        assert self._sock is not None
        patience.wait_readable(self._sock.fileno(), "a datagram")
        return self._sock.recv(1 << 20)


def journal_fields(datagram: bytes) -> dict[str, str]:
    """Read a datagram strictly as systemd.io/JOURNAL_NATIVE_PROTOCOL describes it.

    Fails where a name is none or stands twice, and where a value that is not sent with its length
    has a control character.
    """
    found: dict[str, str] = {}
    while datagram:
        line, newline, datagram = datagram.partition(b"\n")
        assert newline
        name, equals, value = line.partition(b"=")
        if equals:
            assert value.decode().isprintable()
        else:
            [size] = struct.unpack_from("<Q", datagram)
            value, end, datagram = (
                datagram[8 : 8 + size],
                datagram[8 + size :][:1],
                datagram[9 + size :],
            )
            assert (len(value), end) == (size, b"\n")
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found
