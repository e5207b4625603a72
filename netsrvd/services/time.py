"""The Time Protocol (RFC 868): the seconds since 1900, in 32 bits."""

from netsrvd.services import base

FROM_1900_TO_1970 = 2_208_988_800
"""Seconds, as the RFC has them in its table of examples."""

RELEASED = 1_795_910_400
"""When this program was released (2026-11-23, 00:00 UTC), in seconds since 1970.

A clock that reads less is not set: hosts without a battery begin in 1970, or when their systemd was
built, until they have found a time server.
"""


def make_text(_client: base.Client, at: float) -> bytes | None:
    """Return the time in network byte order, 0 again in 2036; None if the clock is not set."""
    if at < RELEASED:
        return None
    return ((int(at) + FROM_1900_TO_1970) % (1 << 32)).to_bytes(4, "big")


def prepare(_settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service."""
    return base.send_once(make_text, 4)
