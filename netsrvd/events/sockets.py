"""Events of listening sockets."""

from netsrvd.addresses import shown
from netsrvd.events import ERROR, WARNING, Event


class Listening(Event):
    """A socket is open. `origin` tells whether the daemon bound it or systemd passed it."""

    __slots__ = ()
    MESSAGE_ID = "b4c32be257ab4ffc80b58124d9e02816"
    SUBJECT = "A listening socket is open"
    listener: str
    service: str
    protocol: str
    local_address: str
    local_port: int
    origin: str

    def text(self) -> str:
        where = shown(self.local_address, self.local_port)
        return f"{self.listener}: serving {self.service} on {self.protocol} {where} ({self.origin})"


class ListeningEnded(Event):
    """A socket was closed because the new configuration does not have it.

    Connections that were accepted through it go on until they end.
    """

    __slots__ = ()
    MESSAGE_ID = "93cb82b53c6d46b9a770357ff1a98770"
    SUBJECT = "A listening socket was closed"
    listener: str
    protocol: str
    local_address: str
    local_port: int

    def text(self) -> str:
        where = shown(self.local_address, self.local_port)
        return f"{self.listener}: no longer serving on {self.protocol} {where}"


class OptionAdjusted(Event):
    """The kernel gave a socket option another value than the configuration asks for.

    For SO_RCVBUF and SO_SNDBUF the limits are net.core.rmem_max and net.core.wmem_max (sysctl).
    """

    __slots__ = ()
    MESSAGE_ID = "b5036d2349de48c58f111841713ad025"
    PRIORITY = WARNING
    SUBJECT = "A socket option has another value than configured"
    listener: str
    protocol: str
    option: str
    asked: str
    given: str

    def text(self) -> str:
        return (
            f"{self.listener}: {self.protocol}: {self.option} = {self.asked} was asked, "
            f"the kernel gave {self.given}; going on"
        )


class InterfaceLost(Event):
    """The network interface that a socket is bound to was deleted, so the socket receives nothing.

    The daemon looks for the interface every five seconds and at a reload. It binds a socket of its
    own anew as soon as there is an interface of that name with the address that is to be served. It
    cannot do so for a socket that systemd passed: stop its socket unit and the service, and start
    both. If the interface comes and goes, let the daemon bind the sockets itself: run the service
    without socket units.
    """

    __slots__ = ()
    MESSAGE_ID = "b0085b2545d84e79b18954b500a19e35"
    PRIORITY = WARNING
    SUBJECT = "A listening socket has lost its network interface"
    listener: str
    protocol: str
    local_address: str
    local_port: int
    interface: str
    problem: str

    def text(self) -> str:
        where = f"{self.protocol} {shown(self.local_address, self.local_port)}"
        return (
            f"{self.listener}: {where} receives nothing: interface {self.interface}: {self.problem}"
        )


class NotInForce(Event):
    """The sockets that systemd passed are not as the files say, so part of the configuration is not
    in force. No more than the files say is served: other connections are reset, other datagrams
    dropped (`refused: configuration`).

    `netsrvd apply` changes the socket units to what the files say, and ends no connection.
    """

    __slots__ = ()
    MESSAGE_ID = "6d3891c150034886a83b63c08676e565"
    PRIORITY = WARNING
    SUBJECT = "Part of the configuration is not in force"
    listener: str
    protocol: str
    problem: str

    def text(self) -> str:
        return f"{self.listener}: {self.problem}; run `netsrvd apply`"


class PortShared(Event):
    """Another program had bound a UDP port before the daemon took its socket: systemd opens sockets
    so that any user can do that (SO_REUSEADDR). It may receive datagrams of the daemon's clients.

    No other program can bind the port since the daemon has the socket: this one cannot come back.
    """

    __slots__ = ()
    MESSAGE_ID = "6283462bc78a4fe0a836ae77441f6024"
    PRIORITY = ERROR
    SUBJECT = "Another program has the same UDP port"
    listener: str
    local_address: str
    local_port: int
    other_address: str

    def text(self) -> str:
        local = shown(self.local_address, self.local_port)
        other = shown(self.other_address, self.local_port)
        return (
            f"{self.listener}: another program has bound udp {other} beside {local} and may "
            f"receive datagrams; `ss -anup` shows it: end it"
        )


class FamilyMissing(Event):
    """The kernel has no IPv6 (or no IPv4), so the listener serves the other family alone."""

    __slots__ = ()
    MESSAGE_ID = "fd0c299f7af34bbeb0ff3eb07e014fa1"
    PRIORITY = WARNING
    SUBJECT = "An address family is missing"
    listener: str
    protocol: str
    family: str

    def text(self) -> str:
        what = f"{self.family} is not available in this kernel"
        return f"{self.listener}: {self.protocol}: {what}; serving the other family alone"
