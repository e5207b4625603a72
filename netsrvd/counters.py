"""The counts of each listener. Its owner writes; any thread may read a slightly old figure."""

from typing import Self


class Counters:
    """Totals since the start of their owner: one listener."""

    accepted: int
    refused: int
    closed: int
    accept_errors: int
    proxy_late: int
    """Connections of proxies whose header did not come in time."""
    proxy_long: int
    """Headers of proxies that were too long, of connections and datagrams."""
    proxy_wrong: int
    """Headers of proxies that were wrong otherwise."""
    proxy_probes: int
    """Connections of proxies that closed without data, as health checks do."""
    flows: int
    datagrams_received: int
    datagrams_sent: int
    datagrams_refused: int
    datagrams_truncated: int
    datagrams_unsent: int
    """Replies that the kernel did not take: network unreachable, buffers full, firewall."""
    datagrams_dropped: int
    """Datagrams that the kernel dropped before they could be read, for want of buffer space."""
    bytes_received: int
    bytes_sent: int

    def __init__(self, **counted: int) -> None:
        vars(self).update(dict.fromkeys(type(self).__annotations__, 0), **counted)

    def __add__(self, other: Self) -> Self:
        """Return the sums, a new object."""
        return type(self)(**{name: n + vars(other)[name] for name, n in vars(self).items()})

    def __eq__(self, other: object) -> bool:
        """Return whether the same was counted."""
        return isinstance(other, Counters) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment] # it changes
