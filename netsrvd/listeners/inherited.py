"""What one process leaves to the next, as the listeners have it."""

import socket
from typing import NamedTuple

from netsrvd.events import Event
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.proxies.lobby import Guest


class Inherited(NamedTuple):
    """What the process before left, to be adopted by the house, which owns the sockets then."""

    connections: list[Connection]
    guests: list[Guest]
    """Connections that wait for the headers of their proxies, the first one first."""
    lost: int
    """Connections whose sockets did not come along."""
    given_at: float
    """When they were given, by CLOCK_MONOTONIC; 0 if none were, or nobody can tell."""
    notes: list[Event]

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets of all of them."""
        return [one.sock for one in self.connections] + [guest.sock for guest in self.guests]
