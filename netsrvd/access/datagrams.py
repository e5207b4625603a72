"""Which datagrams are answered: one policy for all services, so that none harms a third party.

The sender of a datagram can be forged, and the answer goes to the address that it names.
"""

from collections.abc import Callable, Collection

from netsrvd.access.access_list import AccessList
from netsrvd.access.source_ports import SourcePorts
from netsrvd.access.sources import Bucket, Limits, Source, Sources, share
from netsrvd.addresses import UNKNOWN
from netsrvd.settings import LARGEST_DATAGRAM, ListenerSettings

STAMP_PORT = 862

IsBroadcast = Callable[[str], bool]
"""Whether an IPv4 address is the broadcast address of a network that this host is in."""


class DatagramPolicy:
    """The policy of a listener's datagrams. Owned by the udp event loop."""

    __slots__ = (
        *("_access", "_given", "_is_broadcast", "_limits", "_ports", "_proxies", "_rules"),
        *("_sources", "_stamp_senders", "_unlimited", "_unlogged"),
    )

    def __init__(
        self, settings: ListenerSettings, own_ports: Collection[int], is_broadcast: IsBroadcast
    ) -> None:
        self._is_broadcast = is_broadcast
        self._sources = Sources()
        self._given: tuple[ListenerSettings, Collection[int]] | None = None
        self.update(settings, own_ports)

    def update(self, settings: ListenerSettings, own_ports: Collection[int]) -> bool:
        """Use new settings from now on; known sources are kept, with their limits anew.

        Return False, with nothing done, if they are the same as before.
        """
        if self._given == (settings, own_ports):
            return False
        self._given = settings, own_ports
        is_stamp = settings.service == "stamp"
        self._access = AccessList(settings.allow, settings.deny, settings.proxies)
        self._proxies = AccessList(settings.proxies, settings.deny)
        self._ports = SourcePorts(settings.refused_ports, own_ports)
        self._stamp_senders = AccessList(settings.stamp_senders if is_stamp else ())
        self._unlimited = AccessList(settings.unlimited)
        self._unlogged = AccessList(settings.unlogged)
        self._limits = Limits(
            settings.datagram_rate,
            settings.datagram_burst,
            settings.byte_rate,
            settings.byte_burst,
            Bucket(settings.reply_rate, max(settings.reply_rate, LARGEST_DATAGRAM)),
        )
        self._rules = {
            "rate": f"datagram_rate = {settings.datagram_rate:g} a second is exceeded",
            "bytes": f"byte_rate = {settings.byte_rate} a second is exceeded",
            "budget": f"reply_rate = {settings.reply_rate} bytes a second are used up",
        }
        self._sources.renew(self._limits)
        return True

    def refusal(
        self,
        peer: tuple[str, int],
        destination: str,
        local: str,
        proxy: tuple[str, int] | None = None,
    ) -> tuple[str, str] | None:
        """Return None to answer this peer, else the reason and the rule that decided.

        With a `proxy`, which has named the peer, the answer is sent to the proxy: its address and
        port are checked as well.

        `destination` is the address that it sent to, `local` the one of this host that received it:
        where these differ, it was a broadcast or multicast, which is never answered, or one forged
        request would draw an answer from every host of a network. "0.0.0.0" means unknown.
        """
        if destination != UNKNOWN and (kind := kind_of(destination)):
            return "destination", f"{destination} is {kind}"
        if local not in (destination, UNKNOWN):
            return "destination", f"{destination} is a broadcast address"
        if rule := self._access.denied_by(peer[0]):
            return self._sender_refusal(peer) or ("access", rule)
        return self._sender_refusal(peer) or (self._sender_refusal(proxy) if proxy else None)

    def _sender_refusal(self, sender: tuple[str, int]) -> tuple[str, str] | None:
        """Return why an address and port must not be answered, before the access lists."""
        host, port = sender
        if kind := kind_of(host):
            return "sender", f"{host} is {kind}"
        if (rule := self._ports.denied_by(port)) and not self._may_be_stamp_sender(sender):
            return "port", rule
        if self._is_broadcast(host):
            return "sender", f"{host} is a broadcast address of this host's networks"
        return None

    def _may_be_stamp_sender(self, sender: tuple[str, int]) -> bool:
        """Return whether a source port that reflectors have is that of a listed sender."""
        return sender[1] == STAMP_PORT and not self._stamp_senders.denied_by(sender[0])

    def is_proxy(self, host: str) -> bool:
        """Return whether datagrams of this address name their clients."""
        return not self._proxies.denied_by(host)

    def is_unlogged(self, host: str) -> bool:
        """Return whether flows of this address have no records of their beginning and end."""
        return not self._unlogged.denied_by(host)

    def acquire(self, host: str) -> Source:
        """Return the source of a peer whose flow begins, with its limits."""
        found = self._sources.find(*share(host, self._unlimited, self._limits))
        self._sources.acquire(found)
        return found

    def release(self, name: str) -> None:
        """Count the end of a flow of this source."""
        self._sources.release(name)

    def rule(self, reason: str) -> str:
        """Return the rule behind a reason that `Source.exceeds` gave."""
        return self._rules[reason]


def kind_of(host: str) -> str:
    """Return what an address is that no single host has; nothing for the address of a host."""
    if host in (UNKNOWN, "::"):
        return "the unspecified address"
    if ":" in host:
        return "a multicast address" if host.startswith("ff") else ""  # RFC 4291, 2.7
    first = int(host.partition(".")[0])
    if host == "255.255.255.255":
        return "the broadcast address"  # RFC 919
    if first >= RESERVED:
        return "a reserved address (240.0.0.0/4)"  # RFC 1112, 4
    return "a multicast address" if first >= MULTICAST else ""


MULTICAST, RESERVED = 224, 240
"""The first bytes with which 224.0.0.0/4 (RFC 5771) and 240.0.0.0/4 begin."""
