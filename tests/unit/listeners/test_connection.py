"""netsrvd.listeners.connection"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.linux.outgoing import unacknowledged_bytes
from netsrvd.listeners.connection import Connection, identities
from netsrvd.services.echo import Stream
from netsrvd.settings import ListenerSettings
from tests.support.patience import eventually

PEER, LOCAL = ("192.0.2.1", 40_000), ("192.0.2.9", 7)
SETTINGS = ListenerSettings("lab", idle_seconds=10.0, write_seconds=3.0)


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Return a connection that was accepted at 100 seconds."""
    near, far = socket.socketpair()
    with near, far:
        yield Connection(near, "c-1", PEER, LOCAL, SETTINGS, Stream, lambda: None, 100.0)


def test_its_two_records_belong_together(connection: Connection) -> None:
    """The first record says who came, the last one with the same id how it went and why."""
    connection.bytes_received, connection.bytes_sent = 5, 4
    assert connection.accepted() == Accepted("c-1", "lab", "echo", *PEER, *LOCAL)
    assert connection.closed("write", 102.5, "oh") == Closed(
        "c-1", "lab", "echo", *PEER, *LOCAL, "write", 2.5, 5, 4, "oh"
    )


def test_its_records_name_the_proxy(connection: Connection) -> None:
    """If another one connected for the peer, all records say who, in fields of their own."""
    connection.proxy = ("2001:db8::9", 443)
    accepted, closed = connection.accepted(), connection.closed("client", 101.0, "")
    for record in (accepted, closed, connection.service_failed(ValueError())):
        assert (record.peer_address, record.peer_port) == PEER
        assert (record.proxy_address, record.proxy_port) == ("2001:db8::9", "443")
    assert accepted.text() == (
        "lab: 192.0.2.1:40000 connected to 192.0.2.9:7 via [2001:db8::9]:443 [c-1]"
    )


@pytest.mark.parametrize(
    ("backlog", "seconds", "reason"),
    [
        (None, 9.9, ""),
        (None, 10.0, "idle"),
        (b"x", 2.9, ""),
        (b"x", 3.0, "write"),
        (b"x", 100.0, "write"),
    ],
)
def test_it_is_overdue_by_what_it_waits_for(
    connection: Connection, backlog: bytes | None, seconds: float, reason: str
) -> None:
    """The idle time-out counts while the client is waited for, the write time-out while it does
    not take its answer.
    """
    connection.backlog = backlog and memoryview(backlog)
    assert connection.overdue(100.0 + seconds) == reason


@pytest.mark.parametrize("backlog", [None, memoryview(b"x")])
def test_zero_is_never(connection: Connection, backlog: memoryview | None) -> None:
    """A time-out of 0 never comes."""
    connection.settings = SETTINGS._replace(idle_seconds=0.0, write_seconds=0.0)
    connection.backlog = backlog
    assert connection.overdue(1e9) == ""


def test_activity_counts(connection: Connection) -> None:
    """Time-outs run from the last byte, not from the beginning."""
    connection.active_at = 105.0
    assert connection.overdue(110.0) == ""
    assert connection.overdue(115.0) == "idle"


def test_it_makes_its_service_when_it_begins(connection: Connection) -> None:
    """A service that cannot be made fails in the worker, where it ends one connection."""
    assert connection.begin() == b""
    assert connection.service.respond(b"x") == b"x"


def test_a_client_that_reads_slowly_takes_something(connection: Connection) -> None:
    """The kernel may have no room for more all the while: what counts is that the client reads."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
    with near, far:
        near.setblocking(False)
        connection.sock, connection.backlog = near, memoryview(b"x")
        with suppress(BlockingIOError):
            while True:
                connection.bytes_sent += near.send(bytes(65536))
        assert connection.overdue(102.9) == ""
        assert connection.overdue(103.0) == "write"
        taken = 0
        while taken < 1 << 20:
            taken += len(far.recv(65536))
        eventually(lambda: unacknowledged_bytes(near) < connection.bytes_sent - (1 << 18))
        assert connection.overdue(103.0) == ""
        assert connection.overdue(105.9) == ""
        assert connection.overdue(106.0) == "write"


class Counting(Stream):
    """A service that greets with what it counts, and remembers it."""

    count = 0
    greeted = False

    def greeting(self) -> bytes:
        self.greeted = True
        return b"0"

    def memory(self) -> int:
        return self.count

    def recall(self, memory: Any) -> None:
        self.count = int(memory)


@pytest.mark.parametrize(
    ("backlog", "limit", "reason"), [(b"", 10.0, "idle"), (b"rest", 3.0, "write")]
)
def test_it_goes_on_where_another_process_left_it(
    connection: Connection, backlog: bytes, limit: float, reason: str
) -> None:
    """What was counted, kept and remembered is there again, and nobody is greeted twice."""
    connection._make_service = Counting
    connection.resume(7, 50.0, 60.0, (5, 4), backlog, client_done=True)
    assert connection.begin() == b""
    service = connection.service
    assert isinstance(service, Counting)
    assert (service.count, service.greeted) == (7, False)
    assert bytes(connection.backlog or b"") == backlog
    assert (connection.backlog is None) == (not backlog)
    assert connection.client_done
    assert connection.overdue(60.0 + limit - 0.1) == ""
    assert connection.overdue(60.0 + limit) == reason
    closed = connection.closed("client", 52.0, "")
    assert (closed.seconds, closed.bytes_received, closed.bytes_sent) == (2.0, 5, 4)


def test_a_service_that_cannot_go_on_raises(connection: Connection) -> None:
    """Whatever it raises; the records of the end have all that was counted."""
    connection._make_service = Counting
    with pytest.raises(ValueError, match="invalid literal"):
        connection.resume("seven", 50.0, 60.0, (5, 4), b"", client_done=False)
    assert connection.closed("error", 52.0, "").bytes_received == 5


def test_every_connection_has_an_id_of_its_own() -> None:
    """Ids are unique on this host, also across restarts."""
    identify = identities()
    ids = [identify() for _ in range(3)]
    assert len({*ids}) == 3
    [prefix] = {each.partition("-")[0] for each in ids}
    assert int(prefix, 16) > 1_700_000_000_000
