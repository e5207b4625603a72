"""The settings as every other part sees them: frozen, complete and already checked.

`config/` makes them once at start and anew at each reload; they are not changed. Durations are in
seconds, sizes in bytes; the texts of the configuration file ("10min", "1M") have been converted.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from netsrvd.errors import UsageError

DEFAULT_PORT = 51423
DEFAULT_SERVICE = "echo"

LARGEST_DATAGRAM = 65_536
"""Bytes that each datagram fits; a smaller burst would never let the largest ones through."""

OptionValue = bool | int | float | str

DEFAULT_OPTIONS: Mapping[str, OptionValue] = MappingProxyType(
    {"TCP_NODELAY": True, "TCP_NOTSENT_LOWAT": 128 << 10, "SO_OOBINLINE": True}
)
"""An answer is complete when it is sent, so there is nothing that Nagle's wait could join to it.

A client that reads nothing keeps 0.15 MiB of the kernel's memory with this limit on unsent bytes,
and 4 MiB (net.ipv4.tcp_wmem) without it; some hundreds of them would exhaust net.ipv4.tcp_mem.

Urgent data stays where it stands in the stream: otherwise its last byte would be missing.
"""


TIMED_SERVICES = ("stamp", "echoplus")
"""Services that need the time at which the kernel received a datagram."""

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - a listener without `host` means all addresses


class Endpoint(NamedTuple):
    """One address that a listener serves with one protocol: what becomes one socket.

    Without a host and a port it stands for the sockets that systemd passed for the two.
    """

    listener: str
    protocol: str
    host: str = ""
    port: int = 0
    interface: str = ""


class ListenerSettings(NamedTuple):
    """One `[listener.NAME]` table: the service, its addresses, access lists and limits."""

    name: str
    service: str = DEFAULT_SERVICE
    protocols: tuple[str, ...] = ("tcp", "udp")
    hosts: tuple[str, ...] = ()
    """Addresses to listen on; empty for all of them, IPv4 and IPv6."""
    port: int = DEFAULT_PORT
    interface: str = ""
    """The only network interface to be reached through (SO_BINDTODEVICE); empty for any."""
    backlog: int = 4096
    """Connections the kernel keeps waiting for accept; net.core.somaxconn caps it."""
    options: Mapping[str, OptionValue] = DEFAULT_OPTIONS
    """Socket options by their names, as in `sockets/options.py`."""
    allow: tuple[str, ...] = ("local",)
    deny: tuple[str, ...] = ()
    unlogged: tuple[str, ...] = ()
    """Addresses whose connections and flows have no records of their beginning and end."""
    unlimited: tuple[str, ...] = ("loopback",)
    """Addresses to which no limit of a source applies. Loopback cannot be forged from outside."""
    proxies: tuple[str, ...] = ()
    """Peers whose connections and datagrams begin with a header that names the client."""
    proxy_seconds: float = 5.0
    """How long a proxy has for the header of a connection; 3 at least, says its specification."""
    max_connections: int = 10_000
    """Live TCP connections; further ones wait in the kernel's queue."""
    max_connections_per_source: int = 1000
    """Live TCP connections of an IPv4 address or IPv6 /64: ten of them may fill a listener."""
    connection_rate: int = 100
    """New TCP connections a second of each source; 0 for any number."""
    connection_burst: int = 1000
    """How many may come at once, after a pause."""
    refused_ports: tuple[str, ...] = ("privileged", "stamp", "own")
    """Source ports whose datagrams are not answered, as in `access/source_ports.py`."""
    datagram_rate: int = 10_000
    """Datagrams a second of each source that are answered; 0 for any number."""
    datagram_burst: int = 10_000
    byte_rate: int = 16 << 20
    """Bytes a second in datagrams of each source that are answered; 0 for any number."""
    byte_burst: int = 16 << 20
    reply_rate: int = 128 << 20
    """Bytes a second in answers to the datagrams of all sources; 0 for any number."""
    reply_floor_bytes: int = 0
    """How long the answer to a shorter datagram may be, at least what its service says."""
    handler_threads: int = 32
    """Threads that may run its handler at once, if its service is one; others wait."""
    max_flows: int = 4096
    """UDP peers remembered at once for each socket; the oldest leaves when one more comes."""
    idle_seconds: float = 600.0
    """A TCP connection that is silent for this time is ended; 0 for never."""
    write_seconds: float = 30.0
    """A TCP peer that takes nothing for this time while data waits for it is ended; 0 for never."""
    max_connection_seconds: float = 0.0
    """A TCP connection is ended after this time, also if it is busy; 0 for never."""
    flow_seconds: float = 30.0
    """A UDP peer that is silent for this time is summed up in the log and forgotten."""
    refusal_seconds: float = 60.0
    """A source that is refused has one record at first and one for each such time that follows."""
    daytime_format: str = "iso"
    """The form of the service `daytime`, as in `services/daytime.py`."""
    quotes: str = ""
    """The absolute path of the file, or the folder of files, that the service `qotd` quotes."""
    active_listeners: tuple[str, ...] = ()
    """The listeners whose connections the service `active` shows."""
    stamp_key: str = ""
    """Where the service `stamp` has its key from: a path, or `credential:NAME`; empty for none."""
    stamp_stateful: bool = False
    """`stamp` counts the replies of each session, instead of repeating the sender's number."""
    stamp_ssids: tuple[int, ...] = ()
    """The identifiers of sessions that `stamp` answers; empty for all."""
    stamp_dscps: tuple[int, ...] = (0,)
    """The DSCPs that a sender may wish `stamp` to answer with."""
    stamp_clock: str = "local"
    """What synchronises the host's clock, as in `services/stamp.py`; the daemon cannot ask."""
    stamp_clock_error_seconds: float = 1.0
    """By how much the host's clock may be wrong."""
    stamp_senders: tuple[str, ...] = ()
    """Addresses that `stamp` answers also on source port 862, which other reflectors have."""

    @property
    def credential(self) -> str:
        """The name of the credential that it needs from systemd, "" for none."""
        before, colon, name = self.stamp_key.partition("credential:")
        return name if colon and not before and self.service == "stamp" else ""

    def endpoints(self) -> list[Endpoint]:
        """Return what this listener serves; all addresses are two sockets, one a family."""
        return [
            Endpoint(self.name, protocol, host, self.port, self.interface)
            for protocol in self.protocols
            for host in self.hosts or EVERYWHERE
        ]


class LogSettings(NamedTuple):
    """The `[log]` table: where records go and which of them."""

    target: str = "auto"
    level: str = "info"
    queue_records: int = 10_000
    """Records that may wait for a slow log before they are lost and counted."""
    when_full: str = "drop"
    """`drop` loses records and counts them; `wait` accepts no connections until there is room."""


class Settings(NamedTuple):
    """All of the configuration."""

    workers: int = 0
    """Not used any more: one thread serves all of TCP. A file that has it draws a warning."""
    max_connections: int = 0
    """Live TCP connections of all listeners; 0 for as many as there are descriptors for."""
    drain_seconds: float = 10.0
    """How long a stop waits for live connections to end by themselves."""
    idle_exit_seconds: float = 0.0
    """A daemon whose sockets are all systemd's ends when it was idle for this time; 0 for never."""
    log: LogSettings = LogSettings()
    listeners: tuple[ListenerSettings, ...] = (ListenerSettings("echo"),)

    def listener(self, name: str) -> ListenerSettings:
        """Return the listener of this name; raises UsageError, which names those there are."""
        known = {listener.name: listener for listener in self.listeners}
        if name not in known:
            raise UsageError(f"there is no listener {name}; known: {', '.join(known)}")
        return known[name]
