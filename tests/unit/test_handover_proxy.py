"""netsrvd.handover: what a connection that came by a proxy keeps"""

import os
import socket
from collections.abc import Sequence

from netsrvd import handover
from netsrvd.events.connections import Closed
from netsrvd.listeners.connection import Connection
from netsrvd.services import prepare
from netsrvd.services.base import Present
from netsrvd.services.echo import Stream
from netsrvd.settings import ListenerSettings, Settings

PEER, LOCAL, PROXY = ("192.0.2.7", 4711), ("192.0.2.9", 7), ("10.0.0.1", 443)


class Shelf:
    """A descriptor store within this process."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, str]] = []

    def store(self, name: str, descriptors: Sequence[int]) -> None:
        self.kept += [(os.dup(each), name) for each in descriptors]

    def settle(self) -> None:
        """Have nothing to wait for."""


def test_its_proxy_outlives_a_restart() -> None:
    """The next process writes the same client and the same proxy into its last record, also of one
    whose socket was lost.
    """
    listener, shelf = ListenerSettings("lab"), Shelf()
    pairs = [socket.socketpair() for _ in range(2)]
    given = []
    for near, _ in pairs:
        given.append(Connection(near, "c", PEER, LOCAL, listener, Stream, list, 1.0, PROXY))
        given[-1].begin()
    handover.give(given, [], shelf)  # type: ignore[arg-type]
    os.close(shelf.kept.pop(0)[0])
    known = {"lab": prepare("echo", listener, Present())}
    taken = handover.take_up(shelf.kept, Settings(listeners=(listener,)), known, Present())
    [connection], [lost] = taken.connections, taken.notes
    assert (connection.peer, connection.proxy) == (PEER, PROXY)
    assert isinstance(lost, Closed)
    for record in (connection.closed("client", 2.0, ""), lost):
        assert (record.peer_address, record.proxy_address, record.proxy_port) == (
            *(PEER[0], "10.0.0.1", "443"),
        )
    for sock in (connection.sock, *pairs[0], *pairs[1]):
        sock.close()
