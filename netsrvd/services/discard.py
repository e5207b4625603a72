"""The Discard Protocol (RFC 863): what comes in is thrown away, and nothing is ever said."""

from netsrvd.services import base


def prepare(_wishes: base.Wishes, _present: base.Present) -> base.Service:
    """Return the service."""
    return base.Service(base.Stream, base.Datagrams())
