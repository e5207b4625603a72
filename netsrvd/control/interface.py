"""The text of the interface `io.netsrvd`: what callers may ask, and the types of the answers.

The types of figures are made from their definitions (`counters.py`).
"""

from netsrvd.counters import Counters, Definition, Gauges, RunFigures, definitions

VENDOR, PRODUCT, URL = "netsrvd", "netsrvd", "https://varlink.org/"

VARLINK = """\
# Describes a Varlink service.
interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""
"""The interface that each service has."""

HEAD = """\
# A running netsrvd: figures, connections, flows and sources. All methods but Reload only read.
interface io.netsrvd

"""

BODY = """\
# An address that a listener serves. origin is systemd for a passed socket, else bound. problem
# names the settings that a passed socket does not put into force; it is empty if there are none.
type Address (
  host: string,
  port: int,
  origin: string,
  problem: string
)

# The counters of a listener and protocol have those of their protocol alone.
type Listener (
  name: string,
  service: string,
  protocol: string,
  addresses: []Address,
  gauges: Gauges,
  counters: Counters
)

# Growth of figures a second, over the last `seconds`.
type Rates (
  seconds: float,
  accepted: float,
  refused: float,
  received_bytes: float,
  sent_bytes: float,
  datagrams_received: float,
  datagrams_sent: float,
  log_records_lost: float
)

# A live connection. send_buffer_bytes wait for the client; idle_seconds is the time since it sent
# or took something. proxy is empty unless a proxy connected for it.
type Connection (
  id: string,
  listener: string,
  service: string,
  peer_address: string,
  peer_port: int,
  local_address: string,
  local_port: int,
  proxy: string,
  seconds: float,
  idle_seconds: float,
  bytes_received: int,
  bytes_sent: int,
  send_buffer_bytes: int
)

# A live flow: the datagrams of one peer to one local address.
type Flow (
  listener: string,
  service: string,
  peer_address: string,
  peer_port: int,
  local_address: string,
  local_port: int,
  proxy: string,
  seconds: float,
  idle_seconds: float,
  datagrams_received: int,
  datagrams_refused: int,
  bytes_received: int,
  bytes_sent: int
)

# A source (an IPv4 address or the /64 of an IPv6 one) with its live connections or flows.
type Source (
  source: string,
  listener: string,
  protocol: string,
  live: int,
  bytes_received: int,
  bytes_sent: int
)

# A source that a listener refuses, for one reason, and how often it has since the first time. It is
# forgotten when a refusal_window has passed without one.
type RefusedSource (
  source: string,
  listener: string,
  protocol: string,
  reason: string,
  times: int
)

# The whole run. configuration is the file. fault says why the last reload failed, problems what of
# the configuration passed sockets do not put into force. totals has removed listeners as well.
method Status() -> (
  version: string,
  pid: int,
  seconds: float,
  configuration: string,
  fault: string,
  problems: []string,
  run: RunFigures,
  connections: int,
  flows: int,
  totals: Counters,
  rates: []Rates,
  listeners: []Listener
)

# The listeners alone.
method Listeners() -> (listeners: []Listener)

# Live connections, one a reply, to be called with more. Without listener those of all listeners;
# address is an IP address or network of peers.
method Connections(listener: ?string, address: ?string) -> (connection: ?Connection)

# Live flows, in the same way.
method Flows(listener: ?string, address: ?string) -> (flow: ?Flow)

# The sources with the most live connections and flows, count of them at most (20 if it is missing).
method TopSources(count: ?int) -> (sources: []Source)

# The sources that are being refused, the most often refused ones first, count of them at most.
method RefusedSources(count: ?int) -> (sources: []RefusedSource)

# Read the configuration again and put it into force, all or nothing: for root, and for the daemon's
# own user on a socket that systemd has not passed. The answer comes when that is done, with
# warnings for what passed sockets do not put into force. The parameters say what the caller sees of
# the host, as the daemon may have a root directory of its own: device and inode of /usr ("1 2"),
# directory of the configuration, its device and inode, absolute path of the file of the time zone.
method Reload(
  system: ?string,
  directory: ?string,
  configuration: ?string,
  zone: ?string
) -> (warnings: []string)

# There is no listener of this name.
error NoSuchListener (listener: string)

# The reload has failed, for these reasons: the old configuration is in force.
error NotReloaded (reasons: []string)

# An upgrade has replaced the code that would answer. The daemon serves on; restart it.
error Upgraded ()

# The answer failed by a mistake in netsrvd.
error Failed (reason: string)
"""


FIGURES = {"Counters": Counters, "Gauges": Gauges, "RunFigures": RunFigures}
"""The types that are made from definitions."""


def text() -> str:
    """Return the interface."""
    figures = "".join(
        f"type {name} (\n{_fields(definitions(kind))}\n)\n\n" for name, kind in FIGURES.items()
    )
    return HEAD + figures + BODY


def _fields(defined: tuple[Definition, ...]) -> str:
    return ",\n".join(
        f"  {each.name}: {'?' if each.protocols else ''}{kind_of(each)}" for each in defined
    )


def kind_of(figure: Definition) -> str:
    """Return the type of a figure where it is not missing."""
    return "[string]int" if figure.label else "float" if figure.is_float else "int"
