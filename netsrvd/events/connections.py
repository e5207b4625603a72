"""Events of TCP connections and of accepting them."""

from netsrvd.addresses import shown, via
from netsrvd.events import ERROR, NOTICE, WARNING, Event, one_line


class Accepted(Event):
    """A client connected. Exactly one record of its end, with the same id, will follow.

    If it came by one of the `proxies`, the peer is the client that the proxy named, and the proxy
    has fields of its own (NETSRVD_PROXY_ADDRESS, NETSRVD_PROXY_PORT).
    """

    __slots__ = ()
    MESSAGE_ID = "e74e7e046733427f800cb7b6d9562706"
    SUBJECT = "A connection was accepted"
    connection: str
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
        proxy = via(self.proxy_address, self.proxy_port)
        return f"{self.listener}: {peer} connected to {local}{proxy} [{self.connection}]"


class Closed(Event):
    """A connection ended. `reason` says why.

    `client`: the client closed, everything it sent was answered. `reset`: the client reset it.
    `idle`: silent for `idle_timeout`. `write`: the client did not take its answer for
    `write_timeout`. `age`: it lasted for `max_connection_seconds`. `drain`: still open when the
    daemon stopped. `finished`: the service had sent all. `network`: the network failed on the way.
    `access`: after a reload the client is no longer admitted. `error`: the service failed; a
    traceback was recorded. `lost`: it was handed over at a restart, and the next process did not
    get it.
    """

    __slots__ = ()
    MESSAGE_ID = "ee7cffd7c4fa4ec9aec7716d8f71f434"
    SUBJECT = "A connection ended"
    connection: str
    listener: str
    service: str
    peer_address: str
    peer_port: int
    local_address: str
    local_port: int
    reason: str
    seconds: float
    bytes_received: int
    bytes_sent: int
    error: str = ""
    proxy_address: str = ""
    proxy_port: str = ""

    def text(self) -> str:
        peer = shown(self.peer_address, self.peer_port)
        error = f" ({self.error})" if self.error else ""
        return (
            f"{self.listener}: {peer} closed: {self.reason}{error}, {self.seconds:.3f} s, "
            f"{self.bytes_received} bytes in, {self.bytes_sent} out [{self.connection}]"
        )


class ServiceFailed(Event):
    """The code of a service raised an exception: a bug. Only this connection or datagram ended."""

    __slots__ = ()
    MESSAGE_ID = "08a0c09bc3774f6c94f4122d8bfaa864"
    PRIORITY = ERROR
    SUBJECT = "A service failed"
    listener: str
    service: str
    peer_address: str
    peer_port: int
    error: str
    traceback: str
    connection: str = ""
    proxy_address: str = ""
    proxy_port: str = ""

    def text(self) -> str:
        peer = shown(self.peer_address, self.peer_port)
        return f"{self.listener}: service {self.service} failed for {peer}: {one_line(self.error)}"


class AcceptFailing(Event):
    """The kernel cannot hand over new connections: a limit on descriptors or memory, or a network
    error that was pending on one.

    Waiting clients stay in the kernel's queue while the daemon tries again. Clients that have
    waited for a descriptor (EMFILE, ENFILE) for a second are refused, with a spare descriptor:
    raise LimitNOFILE= in the unit or lower `max_connections`.
    """

    __slots__ = ()
    MESSAGE_ID = "caf27b9ff8bd4d3a9bce2021643709ef"
    PRIORITY = WARNING
    SUBJECT = "New connections cannot be taken at the moment"
    listener: str
    local_address: str
    local_port: int
    error: str
    pause_ms: int

    def text(self) -> str:
        where = shown(self.local_address, self.local_port)
        again = f"trying again every {self.pause_ms} ms" if self.pause_ms else "going on"
        return f"{self.listener}: accept on {where}: {self.error}; {again}"


class AcceptRecovered(Event):
    """New connections are accepted again."""

    __slots__ = ()
    MESSAGE_ID = "ef79cf3be7f942379d28c1b6c8724096"
    PRIORITY = NOTICE
    SUBJECT = "New connections are taken again"
    listener: str
    local_address: str
    local_port: int
    errors: int
    seconds: float

    def text(self) -> str:
        where = shown(self.local_address, self.local_port)
        return (
            f"{self.listener}: accept on {where} works again after {self.errors} errors "
            f"in {self.seconds:.1f} s"
        )


class ListenerFull(Event):
    """The number of live connections has reached `max_connections`: that of the listener, or that
    of the daemon as a whole.

    Further clients wait in the kernel's queue and are served when a connection ends.
    """

    __slots__ = ()
    MESSAGE_ID = "19937170d8a4447aa5df6ad49821bfff"
    PRIORITY = WARNING
    SUBJECT = "A listener is full"
    listener: str
    connections: int
    limit: str

    def text(self) -> str:
        return (
            f"{self.listener}: full with {self.connections} connections, {self.limit}; others wait"
        )


class ListenerBelowLimit(Event):
    """The listener accepts connections again, and is clearly below `max_connections`."""

    __slots__ = ()
    MESSAGE_ID = "5818fc92c72f408c9981b9b3b681c77f"
    PRIORITY = NOTICE
    SUBJECT = "A listener is no longer full"
    listener: str
    connections: int
    seconds: float

    def text(self) -> str:
        return f"{self.listener}: has room again, it was full for {self.seconds:.1f} s"


class ConnectionsLimited(Event):
    """There are fewer descriptors than the configuration allows connections, so fewer are accepted;
    further clients wait in the kernel's queue.

    Raise LimitNOFILE= in the unit (`ulimit -Hn` elsewhere) or lower `max_connections`.
    """

    __slots__ = ()
    MESSAGE_ID = "0f4857ebafd44e5a974c01b434486bb6"
    PRIORITY = WARNING
    SUBJECT = "There are too few descriptors for all connections"
    connections_configured: int
    connections: int
    descriptors: int

    def text(self) -> str:
        return (
            f"at most {self.connections} connections are taken instead of "
            f"{self.connections_configured}: the limit on descriptors is {self.descriptors}"
        )
