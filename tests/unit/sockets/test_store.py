"""netsrvd.sockets.store, with descriptors that are passed on within this process"""

import os
import socket
from collections.abc import Iterator

import pytest

from netsrvd.linux import memfd
from netsrvd.sockets import store
from netsrvd.sockets.activation import Stored
from netsrvd.sockets.states import ConnectionState, GuestState

STATE = ConnectionState(
    *("a-1", "echo", "echo", ("192.0.2.1", 40_000), ("192.0.2.9", 7)), 1.5, 2.5, 3, 4, b"", False
)
OTHER = STATE._replace(identity="a-2")
GUEST = GuestState("echo", ("10.0.0.1", 443), 1.5, b"PROX", has_header=False)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = socket.socketpair()
    with one, two:
        yield one, two


def kept(sock: socket.socket) -> Stored:
    """Return a socket as it comes out of the store: another descriptor of the same one."""
    return os.dup(sock.fileno()), store.CONNECTION


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_each_socket_finds_its_state(pair: tuple[socket.socket, socket.socket]) -> None:
    """In whatever order they come: the cookie of a socket is the same in every process."""
    states = store.pack([(pair[0], STATE), (pair[1], OTHER)], [], at=9.5)
    estate = store.unpack([kept(pair[1]), (states, store.STATE), kept(pair[0])])
    assert (estate.at, estate.lost, estate.problems) == (9.5, [], [])
    found = {state.identity: sock for sock, state in estate.connections}
    assert {*found} == {"a-1", "a-2"}
    found["a-1"].sendall(b"x")
    assert pair[1].recv(1) == b"x"
    assert not is_open(states)
    for sock in found.values():
        sock.close()


def test_guests_are_told_from_connections(pair: tuple[socket.socket, socket.socket]) -> None:
    """Each has its own state; nobody has heard of a guest that did not come along."""
    with socket.socket() as third:
        guests = [(pair[1], GUEST), (third, GUEST._replace(header=b""))]
        states = store.pack([(pair[0], STATE)], guests, at=9.5)
    estate = store.unpack([kept(pair[1]), (states, store.STATE), kept(pair[0])])
    assert (estate.lost, estate.problems) == ([], [])
    [(sock, state)], [(guest_sock, guest)] = estate.connections, estate.guests
    assert (state, guest) == (STATE, GUEST)
    sock.sendall(b"x")
    assert guest_sock.recv(1) == b"x"
    sock.close()
    guest_sock.close()


def test_what_did_not_come_along_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    """A state without its socket is a lost connection; sockets without states are closed, and told
    together.
    """
    states = store.pack([(pair[0], STATE)], [], at=9.5)
    strays = [kept(pair[1])]
    with socket.socket() as third:
        strays.append(kept(third))
    estate = store.unpack([(states, store.STATE), *strays])
    assert (estate.connections, estate.lost) == ([], [STATE])
    assert estate.problems == ["2 connections came without their states"]
    assert not any(is_open(stray) for stray, _ in strays)


def test_a_store_of_something_else_is_emptied(pair: tuple[socket.socket, socket.socket]) -> None:
    """What is of another kind or from another program is closed, and the rest is used."""
    states = store.pack([(pair[0], STATE)], [], at=9.5)
    reader, writer = os.pipe()
    file = memfd.sealed("state", b"not for us")
    unsealed = os.memfd_create("state")
    strangers = [
        *((reader, store.CONNECTION), (writer, "handover/later")),
        *((file, store.STATE), (unsealed, store.STATE)),
    ]
    estate = store.unpack([*strangers, kept(pair[0]), (states, store.STATE)])
    [(sock, state)] = estate.connections
    sock.close()
    assert state == STATE
    assert len(estate.problems) == 2
    assert not any(is_open(descriptor) for descriptor, _ in strangers)
