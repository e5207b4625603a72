"""Finds endpoints that overlap, without comparing each with all the others."""

from collections.abc import Iterable, Iterator
from itertools import product

from netsrvd.settings import EVERYWHERE, Endpoint

MOST_SHOWN = 4
"""Addresses that a line names: all of a listener without `host`."""

Key = tuple[object, ...]
"""Protocol, port, family, host and interface; None for any host, or for any interface."""


class PortConflicts:
    """Endpoints that have their place. Owned by the function that is comparing."""

    __slots__ = ("_owners",)

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self._owners: dict[Key, Endpoint] = {}
        for endpoint in endpoints:
            self.add(endpoint)

    def add(self, endpoint: Endpoint) -> None:
        """Take the place of an endpoint; one that has it already is kept as the owner."""
        for key in _keys(endpoint, (endpoint.host, None), (endpoint.interface, None)):
            self._owners.setdefault(key, endpoint)

    def find_conflict(self, endpoint: Endpoint) -> Endpoint | None:
        """Return one that the kernel would not let be bound at the same time, None if all may be.

        All addresses overlap each of their family, and so do all interfaces. The sockets that
        systemd passed have no place of their own.
        """
        everywhere, anything = endpoint.host in EVERYWHERE, not endpoint.interface
        hosts = (None,) if everywhere else (endpoint.host, *EVERYWHERE)
        interfaces = (None,) if anything else (endpoint.interface, "")
        keys = _keys(endpoint, hosts, interfaces)
        return next((self._owners[key] for key in keys if key in self._owners), None)


def shown(endpoints: list[Endpoint]) -> str:
    """Return the endpoints of one listener in one line, such as "port 7 (tcp ::, udp ::)"."""
    sockets = [f"{each.protocol} {each.host}" for each in endpoints[:MOST_SHOWN]]
    sockets += ["…"] if len(endpoints) > MOST_SHOWN else []
    return f"port {endpoints[0].port} ({', '.join(sockets)})"


def _keys(
    endpoint: Endpoint, hosts: Iterable[str | None], interfaces: Iterable[str | None]
) -> Iterator[Key]:
    if endpoint.port:
        family = ":" in endpoint.host
        for host, interface in product(hosts, interfaces):
            yield endpoint.protocol, endpoint.port, family, host, interface
