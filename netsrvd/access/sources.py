"""Sources: peers that share limits, and what is left of these.

A source is an IPv4 address or the /64 of an IPv6 one (`addresses.source`).
"""

from math import inf
from typing import NamedTuple

from netsrvd.access.access_list import AccessList
from netsrvd.addresses import source

IDLE_SOURCES_KEPT = 4096
"""Sources without a connection or flow whose allowance is remembered; the least recent leaves."""


class Bucket:
    """A token bucket: `rate` tokens flow in each second, `burst` is all that it holds; full at
    first. A rate of 0 stands for no limit. Owned by one thread.
    """

    __slots__ = ("_burst", "_rate", "filled_at", "tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self.tokens = burst if rate else inf
        self.filled_at = 0.0
        """`tokens` is right for this time; `refill` first to use it later."""

    def refill(self, now: float) -> None:
        """Add the tokens of the time since the last call."""
        grown = self.tokens + (now - self.filled_at) * self._rate
        self.tokens = min(self._burst, grown)
        self.filled_at = now


UNLIMITED = Bucket(0, 0)
"""Never used up, so all sources without a limit can share it."""


class Limits(NamedTuple):
    """What each source may do in a second: connections or datagrams, and bytes.

    `budget` is one bucket of bytes for all sources together.
    """

    rate: float
    burst: float
    byte_rate: float = 0.0
    byte_burst: float = 0.0
    budget: Bucket = UNLIMITED


class Source:
    """One source: its limits and its live connections or flows. Owned by the event loop.

    Without limits (None) it may do anything.
    """

    __slots__ = ("_budget", "_bytes", "_times", "limited", "live", "name")

    def __init__(self, name: str, limits: Limits | None) -> None:
        self.name = name
        self.live = 0
        """Its live connections or flows."""
        self.renew(limits)

    def renew(self, limits: Limits | None) -> None:
        """Begin anew under these limits."""
        self.limited = limits is not None
        if limits:
            self._times = Bucket(limits.rate, limits.burst)
            self._bytes = Bucket(limits.byte_rate, limits.byte_burst)
            self._budget = limits.budget

    def exceeds(self, size: int, now: float) -> str:
        """Take one connection, or one datagram of `size` bytes, into account.

        Returns nothing if that was within its limits, else the reason: `rate`, `bytes` or
        `budget`; what is refused takes nothing away.
        """
        if not self.limited:
            return ""
        times, volume, budget = self._times, self._bytes, self._budget
        if now > times.filled_at:  # once for all that came together
            times.refill(now)
            volume.refill(now)
        if now > budget.filled_at:
            budget.refill(now)
        if times.tokens < 1:
            return "rate"
        if volume.tokens < size:
            return "bytes"
        if budget.tokens < size:
            return "budget"
        times.tokens -= 1
        volume.tokens -= size
        budget.tokens -= size
        return ""

    def debit(self, size: int) -> None:
        """Charge the bytes by which an answer is longer than its datagram, if it is."""
        if size > 0 and self.limited:
            self._budget.tokens -= size


def share(host: str, unlimited: AccessList, limits: Limits) -> tuple[str, Limits | None]:
    """Return the source of an address and its limits; one without any is a source by itself."""
    return (source(host), limits) if unlimited.denied_by(host) else (host, None)


class Sources:
    """The sources with connections or flows, and the latest of the others. Owned by one loop."""

    __slots__ = ("_active", "_idle")

    def __init__(self) -> None:
        self._active: dict[str, Source] = {}
        self._idle: dict[str, Source] = {}

    def find(self, name: str, limits: Limits | None) -> Source:
        """Return the source of an address; make it if it is new."""
        found = self._active.get(name)
        if found is None:
            found = self._idle.pop(name, None) or Source(name, limits)
            self._keep_idle(found)
        if found.limited is (limits is None):  # a reload has changed which it is
            found.renew(limits)
        return found

    def acquire(self, found: Source) -> None:
        """Count a connection or flow of a source, which is kept until its last `release`."""
        found.live += 1
        if found.live == 1:
            self._idle.pop(found.name, None)
            self._active[found.name] = found

    def release(self, name: str) -> None:
        """Count the end of a connection or flow of a source."""
        found = self._active[name]
        found.live -= 1
        if not found.live:
            del self._active[name]
            self._keep_idle(found)

    def renew(self, limits: Limits) -> None:
        """Reset all sources to these limits; those without limits stay without."""
        for table in (self._active, self._idle):
            for found in table.values():
                found.renew(limits if found.limited else None)

    def _keep_idle(self, found: Source) -> None:
        self._idle[found.name] = found
        while len(self._idle) > IDLE_SOURCES_KEPT:
            del self._idle[next(iter(self._idle))]
