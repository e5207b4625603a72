"""What each thread counts. Its owner writes; anybody may read a figure that is a moment old."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(slots=True)
class Counters:
    """Totals since the start of their owner: one acceptor, worker or datagram thread."""

    accepted: int = 0
    refused: int = 0
    closed: int = 0
    accept_errors: int = 0
    proxy_late: int = 0
    """Connections of proxies whose header did not come in time."""
    proxy_long: int = 0
    """Headers of proxies that were too long, of connections and datagrams."""
    proxy_wrong: int = 0
    """Headers of proxies that were wrong otherwise."""
    proxy_probes: int = 0
    """Connections of proxies that only looked whether we are there."""
    flows: int = 0
    datagrams_received: int = 0
    datagrams_sent: int = 0
    datagrams_refused: int = 0
    datagrams_truncated: int = 0
    datagrams_unsent: int = 0
    """Replies that the kernel did not take: network unreachable, buffers full, firewall."""
    datagrams_dropped: int = 0
    """Datagrams that the kernel dropped before they could be read, for want of buffer space."""
    bytes_received: int = 0
    bytes_sent: int = 0

    def __add__(self, other: Self) -> Self:
        """Return the sums, a new object."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return type(self)(*(mine + theirs for mine, theirs in pairs))
