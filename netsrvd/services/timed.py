"""What services share that ask when a datagram came: UDP services whose answers have times.

Such a service has a method `reply(payload, client, arrival, now)`, which returns an object with
`sent_ns`, `tos` and a method `finish(now_ns)`: see `Reply` in netsrvd/timed.py. Or it returns None
for no answer, or a text that says why the datagram is no packet of its protocol.
"""

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from netsrvd.services import base

MOST_SESSIONS = 4096
"""Sessions that are remembered; the one that was silent for the longest leaves for one more. One
takes about 500 bytes."""

SESSION_SECONDS = 900.0
"""A session that was silent for this time is forgotten (REFWAIT of RFC 5357, 3.1)."""

MAPPED = bytes(10) + b"\xff\xff"

Session = TypeVar("Session")


class Arrival(Protocol):
    """How and when a datagram came."""

    @property
    def destination(self) -> bytes:
        """Return the address that it was sent to: 4 or 16 bytes."""

    @property
    def received_ns(self) -> int:
        """Return when the kernel received it, in ns since 1970; 0 if it took no time."""

    @property
    def ttl(self) -> int | None:
        """Return the TTL or hop limit with which it came; None if that is not known."""

    @property
    def tos(self) -> int:
        """Return the type of service, or traffic class, with which it came."""


class Sessions(Generic[Session]):
    """What is remembered of each session, as long as it is not silent. Owned by one thread."""

    __slots__ = ("_found", "_make", "_most")

    def __init__(self, make: Callable[[], Session], most: int = MOST_SESSIONS) -> None:
        self._make = make
        self._most = most
        self._found: dict[Hashable, tuple[float, Session]] = {}
        """By how long they have been silent, the longest first; with the time of the last packet,
        in seconds of the monotonic clock."""

    def find(self, key: Hashable, now: float) -> Session:
        """Return the session of a packet that came now; begin a new one if it is not known."""
        found = self._found.pop(key, None)
        if found is None or now - found[0] >= SESSION_SECONDS:
            self._forget(now)
            found = now, self._make()
        self._found[key] = now, found[1]
        return found[1]

    def _forget(self, now: float) -> None:
        """Forget the sessions that are over, and one if there is no room."""
        while self._found:
            key = next(iter(self._found))
            if len(self._found) < self._most and now - self._found[key][0] < SESSION_SECONDS:
                break
            del self._found[key]


def needs_udp_alone(settings: base.ServiceSettings) -> None:
    """Raise ValueError for a listener that is to serve TCP as well."""
    if settings.protocols != ("udp",):
        raise ValueError('protocols must be "udp": the service has no form for TCP')
