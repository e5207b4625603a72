"""netsrvd.services.active, against RFC 866"""

from typing import NamedTuple

import pytest

from netsrvd.services import active, base
from tests.support.service_client import CLIENT, FakeClient, answered, prepared, said


class Counting(NamedTuple):
    """Live connections, and how often they were asked for."""

    clients: list[base.Client]
    looks: list[int]

    def live(self) -> list[base.Client]:
        self.looks.append(len(self.clients))
        return list(self.clients)


def crowd(*clients: FakeClient) -> tuple[active.ActiveUsers, Counting]:
    """Return the roll of the listener `lab`, and its live connections."""
    connections, counting = base.ServerView(), Counting(list(clients), [])
    connections.live = counting.live
    return active.ActiveUsers(("lab",), connections), counting


def test_each_connection_has_a_line() -> None:
    """The listener and the client, in the order in which they came (RFC 866: a user a line)."""
    service = prepared(
        "active", CLIENT, FakeClient(("2001:db8::1", 7)), FakeClient(("fe80::1%eth0", 8))
    )
    text = b"lab 192.0.2.1:40000\r\nlab [2001:db8::1]:7\r\nlab [fe80::1]:8\r\n"
    assert said(service) == answered(service, bytes(200)) == text


def test_nobody_is_an_empty_list() -> None:
    """Where nobody is connected a connection ends without a word."""
    service = prepared("active")
    assert said(service) == b""
    assert answered(service, bytes(200)) == b""


def test_an_empty_list_is_not_remembered() -> None:
    """At a start there is no connection yet; a client that asks a moment later sees those there."""
    roll, connections = crowd()
    assert roll.make_text(CLIENT, 100.0) == b""
    connections.clients.append(CLIENT)
    assert roll.make_text(CLIENT, 100.001) == b"lab 192.0.2.1:40000\r\n"


def test_an_empty_list_is_remembered_where_others_are() -> None:
    """To look at thousands of connections of other listeners for each datagram would cost as much
    as a list of them.
    """
    roll, connections = crowd(FakeClient(listener="other"))
    assert {roll.make_text(CLIENT, at) for at in (100.0, 100.001, 100.002)} == {b""}
    assert connections.looks == [1]


def test_other_listeners_are_not_told() -> None:
    """Only the connections of those that the configuration names are shown."""
    clients = CLIENT, FakeClient(("192.0.2.2", 2), listener="secret"), FakeClient(listener="web")
    service = prepared("active", *clients, active_listeners=("lab", "web"))
    assert said(service) == b"lab 192.0.2.1:40000\r\nweb 192.0.2.1:40000\r\n"


def test_it_must_be_said_whom_it_may_tell() -> None:
    """Without `active_listeners` there is no such service."""
    with pytest.raises(ValueError, match="active_listeners must name"):
        prepared("active", active_listeners=())


@pytest.mark.parametrize(
    ("asked", "floor", "lines"),
    [(0, 0, 0), (20, 0, 0), (21, 0, 1), (41, 0, 1), (0, 42, 2), (99, 0, 3)],
)
def test_a_datagram_has_whole_lines(asked: int, floor: int, lines: int) -> None:
    """As many as fit what was sent, or the floor: half an address would be somebody else's."""
    clients = (FakeClient(("192.0.2.1", 40_001)),) * 3
    service = prepared("active", *clients, reply_floor_bytes=floor)
    assert answered(service, bytes(asked)) == b"lab 192.0.2.1:40001\r\n" * lines


def test_a_list_has_an_end() -> None:
    """After 500 lines there is only the number of those left out, and it stays below 64 KiB."""
    longest = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
    clients = [FakeClient((longest, 65_535), listener="x" * 63)] * 10_000
    text = said(prepared("active", *clients, active_listeners=("x" * 63,)))
    lines = text.split(b"\r\n")
    assert lines[500:] == [b"and 9500 more", b""]
    assert len(text) <= 1 << 16


def test_who_asks_often_has_the_same_list_again() -> None:
    """Within a hundredth of a second nobody is looked at again; after that, or if the clock was put
    back, live is.
    """
    roll, connections = crowd(CLIENT)
    line = b"lab 192.0.2.1:40000\r\n"
    assert roll.make_text(CLIENT, 1000.0) == line
    connections.clients.clear()
    assert roll.make_text(CLIENT, 1000.009) == line
    assert roll.make_text(CLIENT, 1000.011) == b""
    assert roll.make_text(CLIENT, 900.0) == b""
    assert len(connections.looks) == 3
