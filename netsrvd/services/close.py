"""Closes each connection at once and answers no datagram; the record remains.

It detects clients on a port that should have none.
"""

from netsrvd.services import base


def stream(_client: base.Client, _at: float) -> base.Stream:
    """Return a service that has finished."""
    return base.SendOnce(b"")


def prepare(_settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service."""
    return base.Service(stream, base.Datagrams())
