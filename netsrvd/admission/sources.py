"""Sources: who shares a limit, and what is left to them of it.

A source is an IPv4 address or the /64 of an IPv6 one (`addresses.source`).
"""

from dataclasses import dataclass, field
from math import inf

RESTING_KEPT = 4096
"""Sources without a connection or flow whose allowance is remembered; the least recent leaves."""


class Bucket:
    """A token bucket: `rate` tokens flow in each second, `burst` is all that it holds; full at
    first. A rate of 0 stands for no limit. Owned by one thread.
    """

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._tokens = burst if rate else inf
        self._filled_at = 0.0

    def holds(self, tokens: float, now: float) -> bool:
        """Return whether so many tokens are in it now."""
        if now > self._filled_at:
            grown = self._tokens + (now - self._filled_at) * self._rate
            self._tokens = min(self._burst, grown)
            self._filled_at = now
        return self._tokens >= tokens

    def take(self, tokens: float) -> None:
        """Take tokens that it holds."""
        self._tokens -= tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """What each source may do in a second: connections or datagrams, and bytes.

    `budget` is one bucket of bytes for all sources together.
    """

    rate: float
    burst: float
    byte_rate: float = 0.0
    byte_burst: float = 0.0
    budget: Bucket = field(default_factory=lambda: Bucket(0, 0))


class Source:
    """What is known of one source. Owned by the thread of its listener.

    Without limits (None) it may do anything.
    """

    __slots__ = ("_budget", "_bytes", "_times", "limited", "name", "present")

    def __init__(self, name: str, limits: Limits | None) -> None:
        self.name = name
        self.present = 0
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
        if not self._times.holds(1, now):
            return "rate"
        if not self._bytes.holds(size, now):
            return "bytes"
        if not self._budget.holds(size, now):
            return "budget"
        self._times.take(1)
        self._bytes.take(size)
        self._budget.take(size)
        return ""


class Sources:
    """Those who are present, and of those who were the most recent. Owned by one thread."""

    __slots__ = ("_present", "_resting")

    def __init__(self) -> None:
        self._present: dict[str, Source] = {}
        self._resting: dict[str, Source] = {}

    def __len__(self) -> int:
        """Return how many are known."""
        return len(self._present) + len(self._resting)

    def find(self, name: str, limits: Limits | None) -> Source:
        """Return what is known of a source, which is nothing yet if it is a new one."""
        source = self._present.get(name)
        if source is None:
            source = self._resting.pop(name, None) or Source(name, limits)
            self._rest(source)
        if source.limited is (limits is None):  # a reload has changed which it is
            source.renew(limits)
        return source

    def arrive(self, source: Source) -> None:
        """Keep a source until it has left as often as it has arrived."""
        source.present += 1
        if source.present == 1:
            self._resting.pop(source.name, None)
            self._present[source.name] = source

    def leave(self, name: str) -> None:
        """Let go of a source that has arrived."""
        source = self._present[name]
        source.present -= 1
        if not source.present:
            del self._present[name]
            self._rest(source)

    def renew(self, limits: Limits | None) -> None:
        """Have all of them begin anew, those without limits as well as before."""
        for table in (self._present, self._resting):
            for source in table.values():
                source.renew(limits if source.limited else None)

    def _rest(self, source: Source) -> None:
        self._resting[source.name] = source
        while len(self._resting) > RESTING_KEPT:
            del self._resting[next(iter(self._resting))]
