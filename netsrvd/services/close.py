"""Closes each connection at once and answers no datagram: what is left is the record of it.

The tutorial's base server, and a trip-wire on a port where nobody has any business.
"""

from netsrvd.services import base


def stream(_client: base.Client, _at: float) -> base.Stream:
    """Return the service of a connection about which nothing is to be said."""
    return base.Announcement(b"")


def prepare(_wishes: base.Wishes, _present: base.Present) -> base.Service:
    """Return the service."""
    return base.Service(stream, base.Datagrams())
