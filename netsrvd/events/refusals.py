"""Events of refused connections and datagrams."""

from netsrvd.addresses import shown, via
from netsrvd.events import NOTICE, Event


class Refused(Event):
    """A connection was refused and closed, or a datagram is not answered; `reason` and `rule` say
    why. Further ones of the same source for the same reason are summed up, see `refusal_window`.

    `access`: `allow` and `deny` do not admit the address; add it to `allow` (one word, `any`,
    admits all addresses) and reload. `source`: it has `max_connections_per_source`. `rate`,
    `bytes`: its connections or datagrams come faster than its limits. `budget`: all answers
    together have reached `reply_rate`. `port`: the source port is one of `refused_ports`.
    `configuration`: the files do not name the address or port that it asked for, for which systemd
    still has a socket; `netsrvd apply` changes the socket units. `destination`: it was sent to a
    multicast or broadcast address. `sender`: its sender is such an address. `descriptors`: there
    was none left for a connection. `busy`: the handler has no thread for a datagram, and too many
    wait already; see `handler_threads`. `packet`: it is no valid packet of the service: not one of
    its protocol, or without the right key; `rule` says what is wrong with it.

    The peer is one of the `proxies` where what it sent is no header of the PROXY protocol
    (`proxy-header`) or is too long for one (`proxy-long`), or none came within `proxy_timeout`
    (`proxy-late`): switch the protocol on in the proxy, or take it out of `proxies`.

    The source is an IPv4 address or the /64 of an IPv6 one. `others` are all sources
    beyond a thousand that have records of their own at a time.
    """

    __slots__ = ()
    MESSAGE_ID = "bbd6090e7db943f2b19abe3cf52fe2ff"
    PRIORITY = NOTICE
    SUBJECT = "A connection or a datagram was refused"
    listener: str
    service: str
    protocol: str
    peer_address: str
    peer_port: int
    local_address: str
    local_port: int
    source: str
    reason: str
    rule: str
    proxy_address: str = ""
    proxy_port: str = ""

    def text(self) -> str:
        peer = shown(self.peer_address, self.peer_port)
        peer += via(self.proxy_address, self.proxy_port)
        return f"{self.listener}: {self.protocol} {peer} refused: {self.reason}: {self.rule}"


class RefusedAgain(Event):
    """More connections or datagrams of this source were refused, for the same reason, since the
    last record about it.
    """

    __slots__ = ()
    MESSAGE_ID = "68ef2e95541f4d2e9c28ab67ed7e5b74"
    PRIORITY = NOTICE
    SUBJECT = "More connections or datagrams were refused"
    listener: str
    service: str
    protocol: str
    source: str
    reason: str
    times: int
    seconds: float

    def text(self) -> str:
        return (
            f"{self.listener}: {self.protocol} of {self.source} refused {self.times} more times "
            f"in {self.seconds:.1f} s: {self.reason}"
        )
