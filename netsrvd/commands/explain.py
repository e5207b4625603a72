"""`netsrvd explain`: says whether a client is admitted, and which entry decides."""

import argparse
import ipaddress
import json
import re
from collections.abc import Iterator

from netsrvd import startup
from netsrvd.access.access_list import AccessList
from netsrvd.access.connections import ConnectionPolicy
from netsrvd.access.datagrams import DatagramPolicy
from netsrvd.access.source_ports import HIGHEST_PORT
from netsrvd.addresses import UNKNOWN, shown, source
from netsrvd.errors import UsageError
from netsrvd.settings import ListenerSettings, Settings
from netsrvd.sockets.broadcast import is_broadcast

REFUSED = 1

_WITH_PORT = re.compile(r"(?:\[(.+)\]|([^:]+)):([0-9]{1,5})")

LIMITS = {
    "tcp": (
        "max_connections_per_source",
        "connection_rate",
        "connection_burst",
        "max_connection_seconds",
    ),
    "udp": ("datagram_rate", "datagram_burst", "byte_rate", "byte_burst", "reply_rate"),
}
"""The keys of what a source may do by each protocol."""


def run(arguments: argparse.Namespace) -> int:
    """Print the verdict and the settings behind it; return 0 for "let in", 1 for "refused".

    Raises ConfigError for a faulty configuration, UsageError for a listener that it does not have
    and for what is no address.
    """
    configuration = startup.read_configuration(arguments.config)
    listener = configuration.settings.listener(arguments.listener)
    peer = address(arguments.address)
    protocol = "udp" if arguments.udp else "tcp"
    refusal = _refusal(listener, protocol, peer, configuration.settings)
    rule = AccessList(listener.allow, listener.deny, listener.proxies).rule(peer[0])
    reason, rule = refusal or ("", rule)
    client = shown(*peer) if peer[1] else peer[0]
    notes = [*_notes(listener, protocol, peer)]
    keys = ["allow", "deny", "proxies", "unlogged", "unlimited", *LIMITS[protocol]]
    keys += ["refused_ports"] if protocol == "udp" else []
    paths = {("listener", listener.name, key) for key in keys}
    if arguments.json:
        found = {
            "listener": listener.name,
            "protocol": protocol,
            "address": peer[0],
            "port": peer[1] or None,
            "allowed": refusal is None,
            "reason": reason or None,
            "rule": rule,
            "notes": notes,
            "settings": configuration.objects(startup.VALIDATORS, paths),
        }
        print(json.dumps(found, indent=2))
        return REFUSED if refusal else 0
    verdict = f"refused: {reason}" if refusal else "let in"
    print(f"{listener.name}: {protocol} {client}: {verdict}: {rule}")
    for line in (*notes, *configuration.lines(startup.VALIDATORS, paths)):
        print(f"  {line}")
    return REFUSED if refusal else 0


def address(text: str) -> tuple[str, int]:
    """Return the host and port that `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT` means.

    Without a port it is 0; an IPv4-mapped address is the IPv4 one, as it is for clients. Raises
    UsageError for anything else.
    """
    found = _WITH_PORT.fullmatch(text)
    host, port = (found[1] or found[2], int(found[3])) if found else (text, 0)
    try:
        known = ipaddress.ip_address(host)
        host = str(getattr(known, "ipv4_mapped", None) or known)
    except ValueError:
        host = ""
    if not host or (found and not 0 < port <= HIGHEST_PORT):
        raise UsageError(
            f"{text!r} is no address; expected one such as 192.0.2.1, 192.0.2.1:40000, ::1 or "
            "[::1]:40000, with a port from 1 to 65535"
        )
    return host, port


def _refusal(
    listener: ListenerSettings, protocol: str, peer: tuple[str, int], settings: Settings
) -> tuple[str, str] | None:
    """Return what the policy says of a client's first connection or datagram."""
    if protocol not in listener.protocols:
        return "protocol", f"the listener serves {', '.join(listener.protocols)} only"
    if protocol == "tcp":
        policy = ConnectionPolicy(listener)
        return policy.admit(policy.look_up(peer[0]), 0.0)[1]
    own_ports = {each.port for each in settings.listeners if "udp" in each.protocols}
    if not peer[1]:
        listener = listener._replace(refused_ports=())
    return DatagramPolicy(listener, own_ports, is_broadcast).refusal(peer, UNKNOWN, UNKNOWN)


def _notes(listener: ListenerSettings, protocol: str, peer: tuple[str, int]) -> Iterator[str]:
    host, port = peer
    if not AccessList(listener.proxies).denied_by(host):
        yield "it is a proxy: whom its header names is judged instead, so ask for that address"
    elif listener.proxies:
        yield "so it is whether it comes by itself or by a proxy"
    if protocol == "udp" and not port:
        yield "without a port, nothing is said of refused_ports"
    if not AccessList(listener.unlogged).denied_by(host):
        yield "it is in unlogged: what it does is counted, but has no records unless it fails"
    if AccessList(listener.unlimited).denied_by(host):
        yield f"it shares the limits of the source {source(host)}"
    else:
        yield "it is in unlimited: no limit of a source holds for it"
