"""The services by name, one row each."""

from collections.abc import Callable
from typing import NamedTuple

from netsrvd.services import echo


class Service(NamedTuple):
    """What serves a TCP connection, what serves datagrams, and how long an answer may be.

    A datagram's answer is never longer than the datagram, but for so many bytes: a sender can be
    forged, and nobody may have more sent to others than he sends himself.
    """

    stream: Callable[[], echo.Stream]
    datagrams: Callable[[], echo.Datagrams]
    reply_floor_bytes: int


SERVICES = {
    "echo": Service(echo.Stream, echo.Datagrams, reply_floor_bytes=0),
}
