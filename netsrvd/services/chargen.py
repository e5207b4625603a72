"""The Character Generator Protocol (RFC 864): the pattern that the RFC prints, without an end."""

from itertools import cycle, islice
from random import randrange

from netsrvd.services import base

RING = "".join(map(chr, (*range(ord("!"), ord("~") + 1), ord(" "))))
"""The 95 printing characters in the order of the RFC's example: it begins with "!"."""

LINE_LENGTH = 72

PATTERN = "".join(
    "".join(islice(cycle(RING), start, start + LINE_LENGTH)) + "\r\n" for start in range(len(RING))
).encode()
"""All lines, each beginning one character later; then they begin anew."""

LONGEST_DATAGRAM = 512

CHUNK = PATTERN * 4
"""Sent at once, 28 KB: so that a fast client costs few turns, and a slow one little memory."""


class Stream(base.Stream):
    """TCP: characters until the client closes; what it sends is thrown away."""

    __slots__ = ()
    discards_input = True

    def more(self) -> bytes:
        """Return the whole pattern, a few times: so each piece begins where the last one ended."""
        return CHUNK


class Datagrams(base.Datagrams):
    """UDP: a random number of characters, at most 512 and no more than were sent."""

    __slots__ = ()

    def answer(self, payload: memoryview, client: base.Client, at: float) -> bytes:  # noqa: ARG002
        """Return the first characters of the pattern."""
        return PATTERN[: randrange(LONGEST_DATAGRAM + 1)]  # noqa: S311 - it need not be secret


def prepare(_settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service."""
    return base.Service(base.shared(Stream()), Datagrams())
