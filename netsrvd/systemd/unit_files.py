"""Writes the socket units that serve the listeners: pure, from settings to texts.

The units of the package are made from the same template (`tests/repo/test_units.py`).
"""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from netsrvd.addresses import shown, without_scope
from netsrvd.settings import EVERYWHERE, TIMED_SERVICES, Endpoint, ListenerSettings

MARK = "# Written by `netsrvd apply`"
"""Begins the first line of each file that `netsrvd apply` writes. It touches no file without it."""

HEAD = f"{MARK} from the configuration in /etc/netsrvd: change that, not this file.\n\n"

TEMPLATE = """\
[Unit]
Description=Sockets of netsrvd, listener {listener}{instance}
Documentation=man:netsrvd(1) man:netsrvd.toml(5)
StartLimitIntervalSec=0

[Socket]
Service={service}
{sockets}
FileDescriptorName={listener}
Accept=no
Backlog={backlog}
{options}PassPacketInfo=yes
IPAddressDeny=any
IPAddressAllow=0.0.0.0/1 128.0.0.0/2 192.0.0.0/3
IPAddressAllow=::/1 8000::/2 c000::/3 e000::/4 f000::/5 f800::/6 fc00::/7 fe00::/8

[Install]
WantedBy={wanted_by}
"""

DROP_IN_NAME = "netsrvd-sockets.conf"
"""The drop-in of the service that names its socket units."""

DROP_IN = """\
{head}# A restart of {service} stops it, starts these sockets and starts it again.
[Service]
{sockets}
"""

LISTEN = {"tcp": "ListenStream", "udp": "ListenDatagram"}

BUFFERS = {"SO_RCVBUF": "ReceiveBuffer", "SO_SNDBUF": "SendBuffer"}
"""Options that a socket has from its beginning, before the daemon sets them."""

NOT_UNDONE = ("TCP_WINDOW_CLAMP",)
"""Options that the daemon sets and cannot take back: only a new socket is without them."""


_TEXT = re.compile("[!-~]+")
_NUMBER = re.compile(r"[+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[0-9]+)")


CONTROL = "control"
"""The package has the control socket in netsrvd-control.socket, which is no listener's."""


def is_control(unit: str) -> bool:
    """Return whether a unit is that of the control socket, or of an instance's."""
    return unit == f"netsrvd-{CONTROL}.socket" or unit.startswith(f"netsrvd-{CONTROL}@")


class UnitFile(NamedTuple):
    """One socket unit to be written."""

    name: str
    """With `@` for one of instances: `netsrvd-echo.socket`, `netsrvd-echo@.socket`."""
    text: str
    listener: str
    endpoints: tuple[Endpoint, ...]


def unit_files(
    listener: ListenerSettings,
    endpoints: Iterable[Endpoint],
    *,
    instances: bool = False,
    has_devices: bool = True,
) -> list[UnitFile]:
    """Return the units for some endpoints of a listener: one for each interface that they are on.

    What is bound to an interface belongs to a unit as a whole. `instances` makes templates for
    `netsrvd@.service`; `has_devices` is False where systemd knows no .device units, in containers.
    """
    by_interface = sorted(endpoints, key=interface)
    return [
        _unit_file(listener, name, list(group), instances=instances, has_devices=has_devices)
        for name, group in groupby(by_interface, key=interface)
    ]


def interface(endpoint: Endpoint) -> str:
    """Return the interface that an endpoint is bound to, "" for none.

    A link-local address is bound to that of its scope (RFC 4007).
    """
    return endpoint.interface or endpoint.host.partition("%")[2]


def is_bindable(name: str) -> bool:
    """Return whether BindToDevice= takes an interface of this name.

    It ignores others, so that the socket would be open on every interface: what it takes for a
    number, what is not ASCII, and two words of its own. `%` and a final backslash mean something
    else to it.
    """
    is_odd = name in ("all", "default") or "%" in name or name.endswith("\\")
    return not is_odd and bool(_TEXT.fullmatch(name)) and not _NUMBER.fullmatch(name)


def drop_in(service: str, units: Sequence[str]) -> str:
    """Return the drop-in by which a start of the service starts these units."""
    sockets = "\n".join(f"Sockets={unit}" for unit in units)
    return DROP_IN.format(head=HEAD, service=service, sockets=sockets)


def _unit_file(
    listener: ListenerSettings,
    device: str,
    endpoints: list[Endpoint],
    *,
    instances: bool,
    has_devices: bool,
) -> UnitFile:
    suffix = f":{escaped(device)}" if device and not listener.interface else ""
    if listener.name == CONTROL and not suffix:
        suffix = ":"  # the package has a unit of the other name
    text = TEMPLATE.format(
        listener=listener.name,
        instance=", instance %i" if instances else "",
        service=f"netsrvd@{'%i' if instances else ''}.service".replace("@.", "."),
        sockets=_sockets(endpoints, is_single=bool(listener.hosts)),
        backlog=listener.backlog,
        options=_options(listener, device, endpoints, instances=instances),
        wanted_by=_wanted_by(device, has_devices=has_devices),
    )
    name = f"netsrvd-{listener.name}{suffix}{'@' if instances else ''}.socket"
    return UnitFile(name, HEAD + text, listener.name, tuple(endpoints))


def _sockets(endpoints: list[Endpoint], *, is_single: bool) -> str:
    """Return the Listen lines. A port alone is one socket for IPv6 and IPv4, or for IPv4 alone
    where the kernel has no IPv6.
    """
    lines: dict[str, None] = {}
    for end in endpoints:
        where = shown(without_scope(end.host), end.port) if is_single else str(end.port)
        lines[f"{LISTEN[end.protocol]}={where}"] = None
    return "\n".join([*lines, f"BindIPv6Only={'ipv6-only' if is_single else 'both'}"])


def _options(
    listener: ListenerSettings, device: str, endpoints: list[Endpoint], *, instances: bool
) -> str:
    lines = []
    if device:
        lines.append(f"BindToDevice={device}")
    if any(end.host not in EVERYWHERE for end in endpoints):
        # An address that comes after the start of the host can be bound before it is there.
        lines.append("FreeBind=yes")
    if instances:
        lines.append("ReusePort=yes")
    if listener.service in TIMED_SERVICES:
        # A datagram that comes before the daemon runs has no other time.
        lines.append("Timestamping=ns")
    for name, directive in BUFFERS.items():
        if name in listener.options:
            lines.append(f"{directive}={listener.options[name]}")
    lines += [
        f"# The daemon sets {name}={listener.options[name]}."
        for name in NOT_UNDONE
        if name in listener.options
    ]
    return "".join(f"{line}\n" for line in lines)


def _wanted_by(device: str, *, has_devices: bool) -> str:
    """Return what starts a unit at boot.

    BindToDevice= makes a unit stop with its interface (BindsTo=), and it comes back only if the
    .device unit wants it. sockets.target would wait for an interface that the network's own
    services make later.
    """
    if not device or device == "lo" or not has_devices:
        return "sockets.target"
    return f"sys-subsystem-net-devices-{escaped(device)}.device"


def escaped(name: str) -> str:
    """Return a name as part of a unit's name, as systemd-escape(1) does it."""
    return "".join(
        chr(byte) if re.fullmatch("[A-Za-z0-9:_.]", chr(byte)) else f"\\x{byte:02x}"
        for byte in name.encode()
    )
