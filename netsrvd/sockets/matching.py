"""Compares a socket that systemd passed with what the files say: pure, and without the socket.

The files contradict a socket only by keys that they name (`host`, `port`, `interface`), or by a
protocol that the listener does not have. What they do not name is the choice of the socket unit.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from netsrvd.addresses import shown, without_scope
from netsrvd.settings import EVERYWHERE, ListenerSettings

Named = Mapping[str, Collection[str]]
"""The keys that the files have in each listener's table, by the listener's name."""

EVERY_IPV4, EVERY_IPV6 = EVERYWHERE
NO_ADDRESS: frozenset[str] = frozenset()


class Facts(NamedTuple):
    """What a passed socket is."""

    name: str
    """Its FileDescriptorName=."""
    protocol: str
    host: str
    port: int
    interface: str = ""
    """The interface that it is bound to; empty for none."""
    is_dual: bool = False
    """True for an IPv6 socket that takes IPv4 as well."""

    @property
    def where(self) -> str:
        """The protocol, address and port, for people."""
        return f"{self.protocol} {shown(self.host, self.port)}"


class Match(NamedTuple):
    """The listener that a socket is for, and how far it serves it."""

    listener: ListenerSettings
    addresses: frozenset[str] | None
    """The local addresses that are served; None for every one. "0.0.0.0" and "::" stand for all of
    their family."""
    problem: str = ""
    """What of the files this socket cannot put into force; empty for nothing."""

    @property
    def serves(self) -> bool:
        """Whether any of its addresses is served."""
        return self.addresses != NO_ADDRESS


class Listeners:
    """Finds the listener of a socket, without comparing it with all of them."""

    __slots__ = ("_all", "_by_name", "_by_port", "_named")

    def __init__(self, listeners: Sequence[ListenerSettings], named: Named) -> None:
        """Find those of these listeners. `named` are the keys that the files have for each."""
        self._all = listeners
        self._named = named
        self._by_name = {each.name: each for each in listeners}
        self._by_port: dict[int, list[ListenerSettings]] = {}
        for each in listeners:
            self._by_port.setdefault(each.port, []).append(each)

    def match(self, facts: Facts) -> Match:
        """Return the listener for a socket: the one of its name, else the one of its address.

        A listener whose port the files name counts before one that has the name alone. A socket
        that the files contradict, or that no listener is for, is matched as well: it serves no
        address, and `problem` says why.
        """
        named = self._named
        by_name = [self._by_name[facts.name]] if facts.name in self._by_name else []
        by_address = [
            each for each in self._by_port.get(facts.port, ()) if _has_address(each, facts)
        ]
        candidates = sorted(
            (*by_name, *by_address), key=lambda each: "port" not in named.get(each.name, ())
        )
        for listener in candidates:
            found = _compared(facts, listener, named)
            if found.serves:
                return found
        for listener in by_name:
            return _compared(facts, listener, named)
        nothing = ListenerSettings(facts.name or "none")
        return Match(nothing, NO_ADDRESS, _no_listener(facts, self._all))


def uncovered(
    listeners: Sequence[ListenerSettings], named: Named, matched: Sequence[tuple[Facts, Match]]
) -> list[tuple[ListenerSettings, str, str]]:
    """Return each listener and protocol with an address that the files name and no socket has.

    Only listeners and protocols are looked at for which a passed socket serves: for the others the
    daemon binds its own.
    """
    by_listener: dict[tuple[str, str], list[Facts]] = {}
    for facts, one in matched:
        if one.serves:
            by_listener.setdefault((one.listener.name, facts.protocol), []).append(facts)
    found = []
    for listener in listeners:
        if "host" not in named.get(listener.name, ()):
            continue
        for protocol in listener.protocols:
            sockets = by_listener.get((listener.name, protocol), [])
            for host in listener.hosts:
                if sockets and not any(_covers(facts, host) for facts in sockets):
                    where = f"{protocol} {shown(host, sockets[0].port)}"
                    problem = f"{where} is not served: systemd has no socket for it"
                    found.append((listener, protocol, problem))
    return found


def _compared(facts: Facts, listener: ListenerSettings, named: Named) -> Match:
    keys = named.get(listener.name, ())
    contradiction, addresses = "", None
    if facts.protocol not in listener.protocols:
        contradiction = f"protocols = {_toml(listener.protocols)}"
    elif "port" in keys and listener.port != facts.port:
        contradiction = f"port = {listener.port}"
    elif "interface" in keys and facts.interface and facts.interface != listener.interface:
        contradiction = f'interface = "{listener.interface}"'
    elif "host" in keys:
        addresses = _addresses(facts, listener.hosts)
        if addresses == NO_ADDRESS:
            contradiction = f"host = {_toml(listener.hosts)}"
    if contradiction:
        bound = f" on interface {facts.interface}" if facts.interface else ""
        problem = f"{facts.where}{bound} is not served, as the files say {contradiction}"
        return Match(listener, NO_ADDRESS, problem)
    return Match(listener, addresses, _partly(facts, addresses, keys))


def _partly(facts: Facts, addresses: frozenset[str] | None, keys: Collection[str]) -> str:
    """Return what is wrong with a socket that serves."""
    if addresses is not None:
        return (
            f"{facts.where} is open on every address; only "
            f"{', '.join(sorted(addresses))} is served there"
        )
    if facts.interface and "interface" not in keys and "%" not in facts.host:
        return (
            f"{facts.where} is bound to interface {facts.interface}, which the files do not name "
            "(interface =)"
        )
    return ""


def _addresses(facts: Facts, hosts: Sequence[str]) -> frozenset[str] | None:
    """Return the addresses of a socket that are among `hosts`; None if all of them are."""
    if not hosts:
        return None
    if facts.host not in EVERYWHERE:
        return None if any(_covers_host(host, facts.host) for host in hosts) else NO_ADDRESS
    found = frozenset(host for host in hosts if _covers(facts, host))
    families = {facts.host, EVERY_IPV4} if facts.is_dual else {facts.host}
    return None if families <= found else found


def _covers(facts: Facts, host: str) -> bool:
    """Return whether datagrams and connections to this configured host reach the socket."""
    if facts.host == EVERY_IPV6:
        return ":" in host or facts.is_dual
    return _covers_host(facts.host, host)


def _covers_host(wide: str, host: str) -> bool:
    if wide in EVERYWHERE:
        return (":" in wide) == (":" in host)
    return without_scope(wide) == without_scope(host)


def _has_address(listener: ListenerSettings, facts: Facts) -> bool:
    if listener.port != facts.port or facts.protocol not in listener.protocols:
        return False
    return _addresses(facts, listener.hosts) != NO_ADDRESS


def _no_listener(facts: Facts, listeners: Sequence[ListenerSettings]) -> str:
    known = ", ".join(each.name for each in listeners)
    name = f" ({facts.name})" if facts.name else ""
    return f"{facts.where}{name} is not served, as no listener is for it; configured are: {known}"


def _toml(values: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{each}"' for each in values) + "]"
