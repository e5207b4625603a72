"""netsrvd.handover, from a process to itself; tests/integration and tests/functional have two"""

import errno
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd import handover
from netsrvd.connection import Connection
from netsrvd.events.connections import Closed
from netsrvd.events.handover import HandoverUnusable
from netsrvd.handover import CONNECTION, FIELDS, OPTIONAL, PENDING, STATE, ConnectionState
from netsrvd.linux import memfd
from netsrvd.settings import Endpoint, ListenerSettings
from netsrvd.sockets.bind import ListeningSocket
from tests.support.fdstore import Store
from tests.support.listening import FakeSocket, failure
from tests.support.owner import LOCAL, PEER, Owner

LAB = ListenerSettings("lab", service="echo")
ADDRESSES = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))
COUNTS, TIMES = st.integers(0, 1 << 62), st.floats(0, 1e9)
VALUES = {
    "connection_id": st.text(max_size=20),
    "service_name": st.text(max_size=20),
    "peer": ADDRESSES,
    "local": ADDRESSES,
    "proxy": st.none() | ADDRESSES,
    "opened_at": TIMES,
    "active_at": TIMES,
    "bytes_received": COUNTS,
    "bytes_sent": COUNTS,
    "send_buffer": st.none() | st.binary(min_size=1, max_size=100).map(memoryview),
    "eof_received": st.booleans(),
    "is_logged": st.booleans(),
}
"""What each attribute of a connection may be, written down once more: the codec must carry it."""

SEEN = {
    "connection_id": "c-1",
    "service_name": "chargen",
    "peer": PEER,
    "local": LOCAL,
    "proxy": ("2001:db8::9", 443),
    "opened_at": 50.0,
    "active_at": 60.0,
    "bytes_received": 5,
    "bytes_sent": 4,
    "send_buffer": memoryview(b"\0rest"),
    "eof_received": True,
    "is_logged": False,
}
"""A connection in which nothing is as it is at first."""


@pytest.fixture(scope="module")
def owner() -> Iterator[Owner]:
    made = Owner(LAB)
    yield made
    made.close()


@pytest.fixture
def systemd() -> Iterator[Any]:
    made = Store()
    yield made
    made.close()


class Clients:
    """Connections with a client at the far end."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.near: list[socket.socket] = []
        self.far: list[socket.socket] = []

    def come(self, **attributes: Any) -> Connection:
        """Return a connection that has been served for a while."""
        near, far = socket.socketpair()
        self.near.append(near)
        self.far.append(far)
        values = SEEN | {"connection_id": f"c-{len(self.near)}"} | attributes
        return self._owner.connection(near, **values)


@pytest.fixture
def clients(owner: Owner) -> Iterator[Clients]:
    made = Clients(owner)
    yield made
    for sock in made.near + made.far:
        sock.close()


def entry(**changes: Any) -> dict[str, Any]:
    """Return the entry of a connection with fields changed; those that are None are left out."""
    owner = Owner(LAB)
    found = handover.encode(owner.connection(FakeSocket(), **SEEN)) | changes
    owner.close()
    return {key: value for key, value in found.items() if value is not None}


def attributes(connection: Connection) -> dict[str, Any]:
    """Return the attributes of a connection that the next process must know."""
    return {name: getattr(connection, name) for name in VALUES}


# --- the fields -------------------------------------------------------------------------------


@given(values=st.fixed_dictionaries(VALUES))
def test_what_is_written_is_read(owner: Owner, values: dict[str, Any]) -> None:
    """Each attribute is, in the next process, what it was in this one, whatever it was."""
    before = owner.connection(FakeSocket(), **values)
    state = ConnectionState.decoded(json.loads(json.dumps(handover.encode(before))))
    assert (state.listener, state.service_name) == ("lab", values["service_name"])
    assert attributes(state.connection(owner, FakeSocket())) == values  # type: ignore[arg-type]


def test_connections_of_a_service_share_its_name() -> None:
    """A file with thousands of connections leaves one text of it in the memory."""
    text = json.dumps([entry(), entry()])
    one, two = map(ConnectionState.decoded, json.loads(text))
    assert one.service_name == "chargen"
    assert one.service_name is two.service_name


def test_every_attribute_has_its_field() -> None:
    """An attribute of a connection that is handed over is in the table; what is new has to be
    judged: it goes on (a field), or every process makes it anew (named here).
    """
    own = {"owner", "sock", "descriptor", "service", "is_echo", "source", "_acknowledged"}
    own |= {"close_at"}  # those with a time there are not handed over
    attributes = {*Connection.__slots__} - {"_peer_host", "_peer_port"} | {"peer"}
    assert {field.attribute for field in FIELDS} == attributes - own == {*VALUES}


def test_the_form_of_the_file_is_kept() -> None:
    """An older or newer process reads these keys; to change one is to raise the version."""
    assert json.loads(json.dumps(entry())) == {
        "listener": "lab",
        "identity": "c-1",
        "service": "chargen",
        "peer": ["192.0.2.1", 40_000],
        "local": ["192.0.2.9", 7],
        "proxy": ["2001:db8::9", 443],
        "opened_at": 50.0,
        "active_at": 60.0,
        "bytes_received": 5,
        "bytes_sent": 4,
        "backlog": "AHJlc3Q=",
        "client_done": True,
        "is_logged": False,
    }
    assert (handover.VERSION, STATE, CONNECTION) == (1, "handover/state", "handover/connection")
    assert PENDING == "handover/pending/"


def test_what_an_older_process_does_not_say_is_as_in_a_new_connection(owner: Owner) -> None:
    """It wrote no proxy, and had records of all connections."""
    state = ConnectionState.decoded(entry(proxy=None, is_logged=None))
    made = state.connection(owner, FakeSocket())  # type: ignore[arg-type]
    assert attributes(made) == SEEN | {"proxy": None, "is_logged": True}
    assert {"proxy", "is_logged"} == OPTIONAL
    assert state.lost().proxy_address == ""


def test_what_only_a_newer_process_says_is_left_out(owner: Owner) -> None:
    """Its memory of a service, too, as an older version wrote it."""
    state = ConnectionState.decoded(entry(invented="later", memory=[1, {"x": 2}]))
    assert attributes(state.connection(owner, FakeSocket())) == SEEN  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [field.key for field in FIELDS if field.key not in OPTIONAL])
def test_no_other_field_may_be_missing(key: str) -> None:
    """A connection without it could not go on."""
    with pytest.raises(KeyError, match=key):
        ConnectionState.decoded(entry(**{key: None}))


WRONG: list[tuple[str, Any]] = [
    *(("peer", value) for value in ("192.0.2.1", ["192.0.2.1"], ["nowhere", 7], 7, {})),
    *(("peer", ["192.0.2.1", value]) for value in ("7", 7.0, True, None)),
    *(("local", ["a\0b", 7]), ("local", []), ("proxy", 7), ("proxy", ["192.0.2", 7])),
    *(("bytes_sent", value) for value in ("many", True, 1.5, [])),
    *(("bytes_received", "0"), ("opened_at", "now"), ("active_at", True)),
    *(("backlog", value) for value in ("?", "AHJlc3Q", "ä", 7, [])),
    *(("client_done", 1), ("is_logged", "no"), ("identity", 7), ("service", [])),
    ("listener", 7),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_malformed_entry_costs_one_connection(key: str, value: Any) -> None:
    """Whatever the mistake is, the other connections of the file are read, and it is told."""
    content = {"1": entry(), "2": entry() | {key: value}, "3": entry(identity="c-3")}
    restored = restore_file({"version": 1, "at": 9.5, "connections": content})
    assert [note.connection for note in restored.notes if isinstance(note, Closed)] == [
        "c-1",
        "c-3",
    ]
    [problem] = [note for note in restored.notes if isinstance(note, HandoverUnusable)]
    assert "the state of a connection is malformed" in problem.text()


@given(number=st.text(max_size=5) | st.floats().map(str))
def test_a_key_that_is_no_cookie_costs_one_connection(number: str) -> None:
    """It is told unless it is a number after all."""
    restored = restore_file({"version": 1, "at": 1, "connections": {number: entry()}})
    assert len(restored.notes) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(changes=st.dictionaries(st.sampled_from([field.key for field in FIELDS]), JSON, max_size=3))
def test_no_value_ends_more_than_its_connection(changes: dict[str, Any]) -> None:
    """Whatever JSON may say in a field, the state is either read or told."""
    content = {"1": _ENTRY | changes, "2": _ENTRY}
    restored = restore_file({"version": 1, "at": 1, "connections": content})
    assert len(restored.notes) == 2
    assert restored.lost in (1, 2)


_ENTRY = entry()


def restore_file(content: Any) -> handover.Restored:
    """Return what is restored of a file alone."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return handover.restore([(memfd.sealed(STATE, data), STATE)])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "malformed|Expecting"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "malformed"),
        ({"version": 2, "at": 1, "connections": {}}, "it is of version 2, known is 1"),
        ({"version": "1", "at": 1, "connections": {}}, "malformed"),
        ({"version": 1, "at": 10**400, "connections": {}}, "malformed"),
        ({"version": 1, "connections": {}}, "malformed"),
        ({"version": 1, "at": 1, "connections": [1]}, "malformed"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(content: Any, why: str) -> None:
    """Then nothing is known of any connection; the start goes on."""
    restored = restore_file(content)
    assert (restored.sockets, restored.lost, restored.saved_at) == ([], 0, 0.0)
    [note] = restored.notes
    assert isinstance(note, HandoverUnusable)
    assert re.search(why, note.text())


# --- select -----------------------------------------------------------------------------------


def buffered(owner: Owner, *sizes: int) -> list[Connection]:
    """Return connections with this number of bytes, each, that their clients have not taken."""
    return [
        owner.connection(
            FakeSocket(), str(size), send_buffer=memoryview(bytes(size)) if size else None
        )
        for size in sizes
    ]


def test_as_many_go_along_as_the_store_has_room_for(owner: Owner) -> None:
    """The others are drained."""
    given = buffered(owner, 0, 0, 0)
    saved, left = handover.select(given, 2)
    assert (len(saved), len(left)) == (2, 1)
    assert {*saved, *left} == {*given}
    assert handover.select(given, 3) == (given, [])
    assert handover.select([], 3) == ([], [])
    assert handover.select(given, 0) == ([], given)


def test_what_is_unsent_is_carried_along_up_to_a_limit(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with the least of it first, so that as many as possible go along."""
    monkeypatch.setattr(handover, "MAX_UNSENT_BYTES", 10)
    saved, left = handover.select(buffered(owner, 8, 0, 6, 4, 1), 9)
    assert [each.connection_id for each in saved] == ["0", "1", "4"]
    assert [each.connection_id for each in left] == ["6", "8"]
    saved, left = handover.select(buffered(owner, 10, 11), 9)
    assert [each.connection_id for each in saved] == ["10"]


@given(sizes=st.lists(st.integers(0, 20), max_size=8), room=st.integers(0, 8))
def test_nobody_is_forgotten(owner: Owner, sizes: list[int], room: int) -> None:
    """Each connection is saved or left, once."""
    given = buffered(owner, *sizes)
    saved, left = handover.select(given, room)
    assert sorted(map(id, saved + left)) == sorted(map(id, given))
    assert len(saved) <= room


# --- save -------------------------------------------------------------------------------------


STEPS = [f"store {CONNECTION}", f"store {PENDING}lab", f"store {STATE}", "barrier"]


def test_what_is_saved_is_restored(systemd: Any, clients: Clients, owner: Owner) -> None:
    """First the sockets, the file at last, and systemd has them all when it returns; here they
    are closed. Each socket meets its own state.
    """
    began = monotonic()
    with socket.socket() as waiting:
        handover.save([clients.come(), clients.come()], [("lab", waiting)], {}, systemd)
        assert waiting.fileno() == -1
    assert systemd.steps == STEPS
    assert [sock.fileno() for sock in clients.near] == [-1, -1]
    restored = handover.restore(reversed(systemd.passed_on()))
    assert (restored.lost, restored.notes) == (0, [])
    assert began <= restored.saved_at <= monotonic()
    found = {}
    for sock, state in restored.connections:
        made = state.connection(owner, sock)
        found[made.connection_id] = made
        assert attributes(made) == SEEN | {"connection_id": made.connection_id}
    for number, far in enumerate(clients.far, 1):
        found[f"c-{number}"].sock.send(b"%d" % number)
        assert far.recv(9) == b"%d" % number
    [(name, sock)] = restored.pending
    assert name == "lab"
    assert {*restored.sockets} == {sock, *(each.sock for each in found.values())}
    for each in restored.sockets:
        each.close()


@pytest.mark.parametrize("step", STEPS)
def test_all_are_saved_or_none(systemd: Any, clients: Clients, step: str) -> None:
    """Where systemd does not take them it is told to forget what it has, and all stay open."""
    systemd.fails = {step: failure(errno.ENOTCONN)}
    with socket.socket() as waiting:
        connections = [clients.come(), clients.come()]
        before = open_descriptors()
        with pytest.raises(OSError, match="not connected"):
            handover.save(connections, [("lab", waiting)], {}, systemd)
        assert open_descriptors() == before
        assert waiting.fileno() >= 0
    forgotten = [f"forget {name}" for name in (STATE, CONNECTION, f"{PENDING}lab")]
    assert systemd.steps[-3:] == forgotten
    assert systemd.stored == []
    for near, far in zip(clients.near, clients.far, strict=True):
        near.send(b"x")
        assert far.recv(1) == b"x"


def test_a_store_that_does_not_keep_the_file_keeps_nothing(systemd: Any, clients: Clients) -> None:
    """systemd closes what it has no room for and does not say so; all stay open here."""
    systemd.has_no_room_for = STATE
    before = open_descriptors()
    with pytest.raises(OSError, match="FileDescriptorStoreMax="):
        handover.save([clients.come()], [], {}, systemd)
    assert systemd.stored == []
    assert clients.near[0].fileno() >= 0
    assert open_descriptors() == before + 2  # the connection of the client


def test_a_file_that_cannot_be_made_hands_nothing_over(
    systemd: Any, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients may have all descriptors; what was stored before is forgotten."""

    def fail(*_: object) -> int:
        raise failure(errno.EMFILE)

    monkeypatch.setattr(memfd, "sealed", fail)
    with pytest.raises(OSError, match="Too many open files"):
        handover.save([clients.come()], [], {}, systemd)
    assert systemd.stored == []
    assert clients.near[0].fileno() >= 0


def test_listening_sockets_go_along_as_far_as_there_is_room(systemd: Any) -> None:
    """Each under a name of its own; they stay open here. No room is no error."""
    listener = ListenerSettings("lab", port=7007)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        bound = [
            (Endpoint("lab", "tcp", host, 7007), ListeningSocket(sock, "tcp", listener, "bound"))
            for host, sock in (("127.0.0.1", one), ("0.0.0.0", two))
        ]
        for room, count in ((0, 0), (1, 1), (5, 2)):
            systemd.store_room = room
            assert handover.keep(bound, systemd) == count
            names = [name for _, name in systemd.stored]
            assert len({*names}) == count
            for name in names:
                systemd.fdstore_remove(name)
        assert one.fileno() >= 0
        assert two.fileno() >= 0


def test_a_systemd_that_takes_no_socket_costs_no_connection(systemd: Any) -> None:
    """The next process has to bind it again; what may be in the store takes its room."""
    systemd.store_room = 5
    systemd.fails = {"barrier": failure(errno.ETIMEDOUT)}
    listener = ListenerSettings("lab", port=7007)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        opened = ListeningSocket(sock, "tcp", listener, "bound")
        assert handover.keep([(Endpoint("lab", "tcp", "127.0.0.1", 7007), opened)], systemd) == 1


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_connection_that_cannot_be_described_hands_nothing_over(
    systemd: Any, clients: Clients
) -> None:
    """systemd hears nothing of it, and all stay open."""
    with pytest.raises(TypeError):
        handover.save([clients.come(), clients.come(bytes_sent=object())], [], {}, systemd)
    assert systemd.steps == []
    assert all(sock.fileno() >= 0 for sock in clients.near)


def test_what_is_saved_or_restored_is_forgotten_by_name(systemd: Any, clients: Clients) -> None:
    """Only then are the sockets ours alone."""
    with socket.socket() as one, socket.socket() as two:
        handover.save([clients.come()], [("lab", one), ("web", two)], {}, systemd)
    handover.clear(systemd, ["lab", "web"])
    assert systemd.stored == []


# --- restore ----------------------------------------------------------------------------------


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_did_not_come_along_is_told(systemd: Any, clients: Clients) -> None:
    """A state without its socket is a lost connection, with all that was counted; sockets without
    states are closed, and told together.
    """
    handover.save([clients.come()], [], {}, systemd)
    [file] = [descriptor for descriptor, name in systemd.stored if name == STATE]
    stored = [(os.dup(file), STATE)]
    strays = [(os.dup(clients.far[0].fileno()), CONNECTION)]
    with socket.socket() as other:
        strays.append((os.dup(other.fileno()), CONNECTION))
    restored = handover.restore([*stored, *strays])
    assert (restored.sockets, restored.lost) == ([], 1)
    problem, lost = restored.notes
    assert isinstance(problem, HandoverUnusable)
    assert "2 connections came without their states" in problem.text()
    assert isinstance(lost, Closed)
    assert (lost.connection, lost.listener, lost.service) == ("c-1", "lab", "chargen")
    assert (lost.peer_address, lost.peer_port, lost.reason) == (*PEER, "lost")
    assert (lost.local_address, lost.local_port) == LOCAL
    assert (lost.bytes_received, lost.bytes_sent) == (5, 4)
    assert (lost.proxy_address, lost.proxy_port) == ("2001:db8::9", "443")
    assert lost.seconds == pytest.approx(monotonic() - 50.0, abs=5)
    assert not any(is_open(descriptor) for descriptor, _ in stored + strays)


def test_a_store_of_something_else_is_emptied(systemd: Any, clients: Clients) -> None:
    """What is of another kind or from another program is closed, and the rest is used."""
    handover.save([clients.come()], [], {}, systemd)
    reader, writer = os.pipe()
    strangers = [
        *((reader, CONNECTION), (writer, "handover/later"), (os.dup(writer), f"{PENDING}lab")),
        *((memfd.sealed("state", b"not for us"), STATE), (os.memfd_create("state"), STATE)),
    ]
    restored = handover.restore([*strangers, *systemd.passed_on()])
    [(sock, state)] = restored.connections
    sock.close()
    assert state.listener == "lab"
    assert len(restored.notes) == 2
    assert not any(is_open(descriptor) for descriptor, _ in strangers)


def test_nothing_may_be_left() -> None:
    """An empty store is no handover."""
    assert handover.restore([]) == handover.Restored([], [], 0, 0.0, [], {})


def test_counters_of_drops_go_along(systemd: Any) -> None:
    """Without any connection, too; of two files the newer one decides, in whichever order."""
    handover.save([], [], {7: 3, 8: 0}, systemd)
    handover.save([], [], {7: 5}, systemd)
    for stored in (systemd.passed_on(), systemd.passed_on()[::-1]):
        restored = handover.restore(stored)
        assert (restored.drops, restored.notes) == ({7: 5, 8: 0}, [])


def test_counters_of_drops_of_an_older_version() -> None:
    """It writes none."""
    restored = restore_file({"version": 1, "at": 1, "connections": {}})
    assert (restored.drops, restored.notes) == ({}, [])


@pytest.mark.parametrize("drops", [[], {"x": 1}, {"7": "1"}, {"7": None}, 3])
def test_counters_of_drops_that_are_malformed_are_told(drops: object) -> None:
    """They cost no connection."""
    content = {"version": 1, "at": 1, "connections": {"1": _ENTRY}, "drops": drops}
    restored = restore_file(content)
    assert (restored.drops, restored.lost) == ({}, 1)
    assert "the counts of dropped datagrams are malformed" in restored.notes[0].text()


def test_two_files_are_both_used(systemd: Any, clients: Clients) -> None:
    """As when a process was killed before it had the store forget the one that it had read."""
    handover.save([clients.come()], [], {}, systemd)
    handover.save([clients.come()], [], {}, systemd)
    restored = handover.restore(systemd.passed_on())
    assert len(restored.connections) == 2
    for sock in restored.sockets:
        sock.close()
