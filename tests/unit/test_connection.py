"""netsrvd.connection: its records, and what depends on the time"""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from netsrvd.connection import LINGER_SECONDS, RECEIVE_BYTES, Connection, connection_ids
from netsrvd.event_loop import READ, WRITE
from netsrvd.events import ERROR
from netsrvd.events.connections import Accepted, Closed, ServiceFailed
from netsrvd.linux.send_queue import unacknowledged_bytes
from netsrvd.services.base import Stream, StreamFactory, shared
from netsrvd.services.echo import Stream as EchoStream
from netsrvd.settings import ListenerSettings
from tests.support.owner import LOCAL, PEER, Owner
from tests.support.patience import eventually

ECHO = shared(EchoStream())
SETTINGS = ListenerSettings("lab", idle_seconds=10.0, write_seconds=3.0)


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner(SETTINGS)
    yield made
    made.close()


@pytest.fixture
def connection(owner: Owner, pair: tuple[socket.socket, socket.socket]) -> Connection:
    """Return a connection that was accepted at 100 seconds."""
    return owner.connection(pair[0])


# --- records ----------------------------------------------------------------------------------


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
    ("reason", "is_logged", "has_record"),
    [
        *((reason, True, True) for reason in ("client", "idle", "error", "access")),
        *((reason, False, False) for reason in ("client", "idle", "write", "reset", "drain")),
        *((reason, False, True) for reason in ("error", "network", "access", "lost")),
    ],
)
def test_the_end_of_an_unlogged_connection_has_a_record_if_something_failed(
    owner: Owner,
    connection: Connection,
    reason: str,
    is_logged: bool,  # noqa: FBT001
    has_record: bool,  # noqa: FBT001
) -> None:
    """Or if the client is refused; it is counted in any case, and its socket is closed."""
    connection.is_logged = is_logged
    connection.bytes_received, connection.bytes_sent = 5, 4
    connection.close(reason)
    assert owner.report.kinds == ["Closed"] * has_record
    counted = owner.counters.closed.total, owner.counters.bytes_received, owner.counters.bytes_sent
    assert counted == (1, 5, 4)
    assert owner.ended == [connection]
    assert connection.sock.fileno() == -1


def test_below_the_level_no_record_is_made(owner: Owner, connection: Connection) -> None:
    """The end is counted all the same."""
    owner.report.level = ERROR
    connection.close("error")
    assert owner.report.kinds == []
    assert owner.counters.closed.total == 1


@pytest.mark.parametrize(
    ("error", "kinds", "reason", "text"),
    [
        (ConnectionResetError(104, "reset"), ["Closed"], "reset", ""),
        (BrokenPipeError(32, "pipe"), ["Closed"], "reset", ""),
        (OSError(113, "no route"), ["Closed"], "network", "[Errno 113] no route"),
        (ValueError("a bug"), ["ServiceFailed", "Closed"], "error", "ValueError('a bug')"),
    ],
)
def test_what_was_raised_is_the_reason(
    owner: Owner,
    connection: Connection,
    error: Exception,
    kinds: list[str],
    reason: str,
    text: str,
) -> None:
    """A network error has no traceback; a bug of a service has one, before the end's record."""
    connection.failed(error)
    assert owner.report.kinds == kinds
    closed = owner.report.events[-1]
    assert isinstance(closed, Closed)
    assert (closed.reason, closed.error) == (reason, text)
    if len(kinds) > 1:
        failure = owner.report.events[0]
        assert isinstance(failure, ServiceFailed)
        assert failure.connection == "c-1"


def test_every_connection_has_an_id_of_its_own() -> None:
    """Ids are unique on this host, also across restarts."""
    new_id = connection_ids()
    ids = [new_id() for _ in range(3)]
    assert len({*ids}) == 3
    [prefix] = {each.partition("-")[0] for each in ids}
    assert int(prefix, 16) > 1_700_000_000_000


# --- time-outs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unsent", "seconds", "reason"),
    [
        (None, 9.9, ""),
        (None, 10.0, "idle"),
        (b"x", 2.9, ""),
        (b"x", 3.0, "write"),
        (b"x", 100.0, "write"),
    ],
)
def test_it_times_out_by_what_it_waits_for(
    connection: Connection, unsent: bytes | None, seconds: float, reason: str
) -> None:
    """The idle time-out counts while the client is waited for, the write time-out while it does
    not take its answer.
    """
    connection.send_buffer = unsent and memoryview(unsent)  # type: ignore[assignment]
    assert connection.timeout_reason(100.0 + seconds) == reason


@pytest.mark.parametrize("unsent", [None, memoryview(b"x")])
def test_zero_is_never(owner: Owner, connection: Connection, unsent: memoryview | None) -> None:
    """A time-out of 0 never comes; the settings in force count, and not those of the beginning."""
    owner.settings = SETTINGS._replace(idle_seconds=0.0, write_seconds=0.0)
    connection.send_buffer = unsent
    assert connection.timeout_reason(1e9) == ""


def test_activity_counts(connection: Connection) -> None:
    """Time-outs run from the last byte, not from the beginning."""
    connection.active_at = 105.0
    assert connection.timeout_reason(110.0) == ""
    assert connection.timeout_reason(115.0) == "idle"


def test_a_client_that_stays_after_the_end_has_a_moment(
    connection: Connection, pair: tuple[socket.socket, socket.socket]
) -> None:
    """It sees the end at once; after the lingering time the connection ends by itself."""
    connection.linger(101.0)
    assert pair[1].recv(1) == b""
    assert connection.timeout_reason(101.0 + LINGER_SECONDS - 0.1) == ""
    assert connection.timeout_reason(101.0 + LINGER_SECONDS) == "finished"


def test_a_client_that_reads_slowly_takes_something(owner: Owner) -> None:
    """The kernel may have no room for more all the while: what counts is that the client reads."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
    with near, far:
        near.setblocking(False)
        connection = owner.connection(near, send_buffer=memoryview(b"x"))
        with suppress(BlockingIOError):
            while True:
                connection.bytes_sent += near.send(bytes(65536))
        assert connection.timeout_reason(102.9) == ""
        assert connection.timeout_reason(103.0) == "write"
        taken = 0
        while taken < 1 << 20:
            taken += len(far.recv(65536))
        left = connection.bytes_sent - (1 << 18)
        eventually(lambda: unacknowledged_bytes(near.fileno()) < left)
        assert connection.timeout_reason(103.0) == ""
        assert connection.timeout_reason(105.9) == ""
        assert connection.timeout_reason(106.0) == "write"


# --- its life before --------------------------------------------------------------------------


class Greeting(Stream):
    """A service that greets."""

    def greeting(self) -> bytes:
        """Return a word."""
        return b"hello"


def test_it_greets_when_it_begins_and_not_when_it_goes_on(
    owner: Owner, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What another process has begun has been greeted there."""
    near, far = pair
    far.setblocking(False)
    first, second = owner.connection(near), owner.connection(near)
    owner.loop.add(near.fileno(), first)
    first.start(shared(Greeting()), is_echo=False)
    assert far.recv(100) == b"hello"
    second.resume(shared(Greeting()), is_echo=False)
    with pytest.raises(BlockingIOError):
        far.recv(100)


@pytest.mark.parametrize("begin", ["start", "resume"])
def test_a_service_that_cannot_be_made_ends_its_connection_alone(
    owner: Owner, connection: Connection, begin: str
) -> None:
    """Whatever it raises has its record, with all that was counted before."""
    connection.bytes_received = 5

    def make(*_: object) -> Stream:
        raise ZeroDivisionError("a bug")

    getattr(connection, begin)(make, is_echo=False)
    assert owner.report.kinds == ["ServiceFailed", "Closed"]
    closed = owner.report.events[-1]
    assert isinstance(closed, Closed)
    assert (closed.reason, closed.bytes_received) == ("error", 5)


class Loop:
    """What drives a connection as the event loop does, with the events that epoll(7) has."""

    def __init__(self, owner: Owner, connection: Connection) -> None:
        self.owner = owner
        self.connection = connection
        owner.loop.add(connection.descriptor, connection)

    def turn(self, now: float = 101.0) -> int:
        """Pass all events on that there are; return how many these were."""
        ready = self.owner.loop._epoll.poll(0)
        for _, events in ready:
            self.connection.on_ready(events, now)
        return len(ready)


def restored(owner: Owner, sock: socket.socket, service: StreamFactory, **seen: object) -> Loop:
    """Return a connection that another process began, after its first step here."""
    connection = owner.connection(sock, **seen)
    made = Loop(owner, connection)
    connection.resume(service, is_echo=service is ECHO)
    return made


def test_what_was_half_sent_is_sent_first(
    owner: Owner, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Then what the client has sent meanwhile is answered; no byte is missing or twice."""
    pair[1].send(b"more")
    loop = restored(owner, pair[0], ECHO, send_buffer=memoryview(b"rest"), bytes_sent=6)
    while loop.turn():
        pass
    assert pair[1].recv(100) == b"restmore"
    assert (loop.connection.bytes_received, loop.connection.bytes_sent) == (4, 14)


@pytest.mark.parametrize("unsent", [b"", b"rest"])
def test_a_half_closed_client_gets_the_rest_and_the_end(
    owner: Owner, pair: tuple[socket.socket, socket.socket], unsent: bytes
) -> None:
    """The client has said in the other process that it sends nothing more."""
    buffer = memoryview(unsent) if unsent else None
    loop = restored(owner, pair[0], ECHO, send_buffer=buffer, eof_received=True)
    while not owner.ended and loop.turn():
        pass
    assert pair[1].recv(100) == unsent
    if unsent:
        assert pair[1].recv(100) == b""
    [closed] = owner.report.events
    assert isinstance(closed, Closed)
    assert closed.reason == "client"


class Finished(Stream):
    """A service that has said all."""

    finished = True
    discards_input = True


@pytest.mark.parametrize("unsent", [b"", b"rest"])
def test_a_service_that_had_finished_ends(
    owner: Owner, pair: tuple[socket.socket, socket.socket], unsent: bytes
) -> None:
    """Its client gets what is left of the answer, and our end; then its end closes."""
    near, far = pair
    buffer = memoryview(unsent) if unsent else None
    loop = restored(owner, near, shared(Finished()), send_buffer=buffer)
    while loop.turn():
        pass
    far.settimeout(5)
    assert far.recv(100) == unsent
    if unsent:
        assert far.recv(100) == b""
    assert loop.connection.close_at
    far.send(b"discarded")
    far.close()
    while not owner.ended:
        assert loop.turn()
    [closed] = owner.report.events
    assert isinstance(closed, Closed)
    assert (closed.reason, closed.bytes_received) == ("finished", 9)


class Endless(Stream):
    """A service that goes on by itself."""

    def more(self) -> bytes:
        """Return the next piece."""
        return b"more"


def test_a_service_without_an_end_goes_on(
    owner: Owner, pair: tuple[socket.socket, socket.socket]
) -> None:
    """It is asked for the next piece when all so far is sent; a turn sends one."""
    loop = restored(owner, pair[0], shared(Endless()), send_buffer=memoryview(b"rest"))
    for sent in (b"rest", b"more", b"more"):
        assert loop.turn() == 1
        assert pair[1].recv(100) == sent


def test_a_wake_up_for_nothing_changes_nothing(owner: Owner, connection: Connection) -> None:
    """Readable is a hint; the event may be of an earlier connection of this descriptor."""
    Loop(owner, connection)
    connection.start(ECHO, is_echo=True)
    connection.on_ready(READ, 150.0)
    assert owner.ended == []
    assert connection.active_at == 100.0
    connection.send_buffer = memoryview(b"x")
    connection.on_ready(READ, 150.0)
    assert bytes(connection.send_buffer) == b"x"


def test_a_client_that_takes_nothing_is_not_read_from(
    owner: Owner, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What an echo holds is bounded by one read; all comes back when the client reads."""
    near, far = pair
    far.setblocking(False)
    connection = owner.connection(near)
    loop = Loop(owner, connection)
    connection.start(ECHO, is_echo=True)
    sent = received = 0
    with suppress(BlockingIOError):
        while True:
            sent += far.send(b"x" * 4096)
            loop.turn()
    assert connection.send_buffer is not None
    assert len(connection.send_buffer) <= RECEIVE_BYTES
    while received < sent:
        with suppress(BlockingIOError):
            while True:
                received += len(far.recv(1 << 20))
        loop.turn()
    assert (connection.bytes_received, connection.bytes_sent) == (sent, sent)
    assert connection.send_buffer is None


def test_a_socket_that_takes_nothing_although_it_has_room_is_left_alone_for_a_moment(
    owner: Owner, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel lacks memory then; epoll(7) would go on reporting room at once."""
    connection = owner.connection(pair[0])
    loop = Loop(owner, connection)
    connection.start(ECHO, is_echo=True)
    connection._buffer(memoryview(b"x"))

    def no_memory(*_: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr("netsrvd.connection.write", no_memory)
    assert loop.turn() == 1
    assert loop.turn() == 0
    assert owner.retries == [connection]
    monkeypatch.undo()
    connection.watch_for_room(WRITE)
    assert loop.turn() == 1
    assert pair[1].recv(9) == b"x"


@pytest.mark.parametrize(("reason", "is_reset"), [("write", True), ("age", True), ("drain", False)])
def test_a_client_that_took_nothing_is_reset(
    owner: Owner,
    reason: str,
    is_reset: bool,  # noqa: FBT001
) -> None:
    """The kernel would go on offering it what is left for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
    with near, far:
        far.settimeout(5)
        near.setblocking(False)
        connection = owner.connection(near, send_buffer=memoryview(b"x"))
        with suppress(BlockingIOError):
            while True:
                near.send(bytes(65536))
        connection.close(reason)
        outcome = "end"
        try:
            while far.recv(1 << 20):
                pass
        except ConnectionResetError:
            outcome = "reset"
    assert outcome == ("reset" if is_reset else "end")


class Heedless(Stream):
    """A service that goes on by itself, whatever it is sent."""

    discards_input = True

    def more(self) -> bytes:
        """Return the next piece."""
        return b"x" * 65536


def test_the_end_of_a_client_is_read_once(
    owner: Owner, pair: tuple[socket.socket, socket.socket]
) -> None:
    """While it takes nothing the loop sleeps: an end would be an event in each turn."""
    near, far = pair
    far.shutdown(socket.SHUT_WR)
    loop = Loop(owner, owner.connection(near))
    loop.connection.start(shared(Heedless()), is_echo=False)

    def sleeps() -> bool:
        return any(loop.turn() == 0 for _ in range(100))

    for _ in range(3):
        assert sleeps()
        assert loop.connection.eof_received
        assert loop.connection.send_buffer
        assert far.recv(1 << 20)
