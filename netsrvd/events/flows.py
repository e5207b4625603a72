"""Events of datagrams and of receiving them."""

from netsrvd.addresses import shown, via
from netsrvd.events import NOTICE, WARNING, Event


class FlowBegan(Event):
    """The first datagram of this peer for this listener. One summary will follow when the peer has
    been silent for `flow_timeout`; there is never a record for each datagram.
    """

    __slots__ = ()
    MESSAGE_ID = "44168badc47f4c43865b4e3d0e6922d3"
    SUBJECT = "A datagram flow began"
    listener: str
    service: str
    peer_address: str
    peer_port: int
    local_address: str
    local_port: int
    proxy_address: str = ""
    proxy_port: str = ""

    def text(self) -> str:
        peer = shown(self.peer_address, self.peer_port)
        local = shown(self.local_address, self.local_port)
        return f"{self.listener}: {peer} sends to {local}{via(self.proxy_address, self.proxy_port)}"


class FlowEnded(Event):
    """The summary of a peer's datagrams. `reason`: `silent` for `flow_timeout`, `full` when it made
    room for another peer, `stop` or `reload` when the daemon did.

    Datagrams that exceeded a limit of their source were refused, and are counted as refused.
    """

    __slots__ = ()
    MESSAGE_ID = "6b952d2306e24215821f186eab3d12b7"
    SUBJECT = "A datagram flow ended"
    listener: str
    service: str
    peer_address: str
    peer_port: int
    local_address: str
    local_port: int
    reason: str
    seconds: float
    datagrams_received: int
    datagrams_sent: int
    datagrams_refused: int
    datagrams_truncated: int
    datagrams_unsent: int
    bytes_received: int
    bytes_sent: int
    error: str = ""
    proxy_address: str = ""
    proxy_port: str = ""

    def text(self) -> str:
        peer = shown(self.peer_address, self.peer_port)
        error = f", last error: {self.error}" if self.error else ""
        return (
            f"{self.listener}: datagrams of {peer} ended: {self.reason}, {self.seconds:.3f} s, "
            f"{self.datagrams_received} in, {self.datagrams_sent} out, "
            f"{self.datagrams_refused} refused, {self.datagrams_truncated} truncated, "
            f"{self.datagrams_unsent} unsent{error}"
        )


class FlowRecordsSuppressed(Event):
    """New peers came faster than flows have records (1000 a second): this number of flows has none
    of its own. They are answered. They are often forged senders; see `allow`.
    """

    __slots__ = ()
    MESSAGE_ID = "ccc8bb5cdadc4afc87bbcfefa95e71cd"
    PRIORITY = WARNING
    SUBJECT = "Datagram flows have no records of their own"
    listener: str
    flows: int

    def text(self) -> str:
        return f"{self.listener}: {self.flows} flows began too fast for a record each"


class DatagramsDropped(Event):
    """The kernel dropped datagrams because they came faster than they were read.

    A larger SO_RCVBUF for the listener helps against bursts (and net.core.rmem_max, which caps it).
    """

    __slots__ = ()
    MESSAGE_ID = "5422447abe144cadb1876e3b4e7f4d81"
    PRIORITY = WARNING
    SUBJECT = "The kernel drops datagrams"
    listener: str
    local_address: str
    local_port: int

    def text(self) -> str:
        where = shown(self.local_address, self.local_port)
        return f"{self.listener}: {where}: the kernel drops datagrams, its buffer is full; counting"


class DropsEnded(Event):
    """The kernel has stopped dropping datagrams; the record has the number of those it dropped."""

    __slots__ = ()
    MESSAGE_ID = "a2d369bc93784fc1aa8220ceab999ceb"
    PRIORITY = WARNING
    SUBJECT = "The kernel no longer drops datagrams"
    listener: str
    local_address: str
    local_port: int
    datagrams_dropped: int
    seconds: float

    def text(self) -> str:
        where = shown(self.local_address, self.local_port)
        return (
            f"{self.listener}: {where}: the kernel dropped {self.datagrams_dropped} datagrams "
            f"within {self.seconds:.0f} s"
        )


class ReceiveFailing(Event):
    """The kernel reports an error instead of a datagram. The daemon goes on receiving."""

    __slots__ = ()
    MESSAGE_ID = "041042832abd46239dc743bb3a233cd9"
    PRIORITY = WARNING
    SUBJECT = "Datagrams cannot be received at the moment"
    listener: str
    local_address: str
    local_port: int
    error: str
    pause_ms: int

    def text(self) -> str:
        where = shown(self.local_address, self.local_port)
        again = f"trying again every {self.pause_ms} ms" if self.pause_ms else "going on"
        return f"{self.listener}: receiving on {where}: {self.error}; {again}"


class ReceiveRecovered(Event):
    """Datagrams are received again."""

    __slots__ = ()
    MESSAGE_ID = "8d9b697be4444c9ea8edc8bea09c94fd"
    PRIORITY = NOTICE
    SUBJECT = "Datagrams are received again"
    listener: str
    local_address: str
    local_port: int
    errors: int
    seconds: float

    def text(self) -> str:
        where = shown(self.local_address, self.local_port)
        return (
            f"{self.listener}: receiving on {where} works again after {self.errors} errors "
            f"in {self.seconds:.1f} s"
        )
