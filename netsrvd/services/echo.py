"""The Echo Protocol (RFC 862): what comes in goes out."""

from netsrvd.services import base


class Stream(base.Stream):
    """TCP: every byte goes back, in order, until the client closes."""

    __slots__ = ()

    def respond(self, data: bytes) -> bytes:
        """Return what came."""
        return data


class Datagrams(base.Datagrams):
    """UDP: every datagram goes back, the empty one too."""

    __slots__ = ()
    is_echo = True


def prepare(_settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service."""
    return base.Service(base.shared(Stream()), Datagrams())
