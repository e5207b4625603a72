"""Addresses, networks and ports: any text is refused in one line, or means what it says."""

import ipaddress
from contextlib import suppress
from itertools import product

from netsrvd.access.access_list import MAPPED, NAMED_NETWORKS, AccessList, checked_entry
from netsrvd.access.source_ports import HIGHEST_PORT, SourcePorts, checked_ports
from netsrvd.addresses import host_and_port, shown
from netsrvd.commands import explain
from netsrvd.config import values
from netsrvd.errors import UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FAR = [ipaddress.ip_address(each) for each in ("192.0.2.1", "0.0.0.0", "2001:db8::1", "::")]


def check(data: bytes) -> None:
    """Read the input as an entry of `allow` and `deny`, and as an address to listen on."""
    text = data.decode(errors="surrogateescape")
    try:
        entry = checked_entry(text)
    except ValueError as error:
        _complaint(error)
    else:
        assert entry == text
        _judges_right(entry)
    try:
        host = values.address(text)
    except ValueError as error:
        _complaint(error)
    else:
        assert host.isprintable()
        assert values.address(host) == host
        _is_shown_whole(host)
    try:
        ports = checked_ports(text)
    except ValueError as error:
        _complaint(error)
    else:
        assert checked_ports(ports) == ports
        assert isinstance(SourcePorts([ports], {7}).denied_by(7), str)
    with suppress(UsageError):
        host, port = explain.address(text)
        assert 0 <= port <= HIGHEST_PORT
        _is_shown_whole(host)


def _complaint(error: ValueError) -> None:
    assert type(error) is ValueError, "an error of a library got through"
    assert str(error)
    assert str(error).isprintable()


def _judges_right(entry: str) -> None:
    """Compare the policy with the library's own idea of what a network contains."""
    networks = [ipaddress.ip_network(each) for each in NAMED_NETWORKS.get(entry, (entry,))]
    allows, denies = AccessList([entry]), AccessList(["any"], [entry])
    for address in {*FAR, *(each for network in networks for each in _around(network))}:
        if address in ipaddress.IPv6Network(MAPPED):
            continue  # no peer has one: it is known by its IPv4 address
        inside = any(address in network for network in networks)
        assert (allows.denied_by(str(address)) == "") == inside, address
        widest = any(address in network and not network.prefixlen for network in networks)
        assert (denies.denied_by(str(address)) != "") == inside or widest, address


def _around(network: Network) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the first and the last address of a network, and their neighbours outside."""
    kind = type(network.network_address)
    ends = int(network.network_address), int(network.broadcast_address)
    near = [end + step for end, step in product(ends, (-1, 0, 1))]
    return [kind(each) for each in near if 0 <= each < 2**network.max_prefixlen]


def _is_shown_whole(host: str) -> None:
    """See that what people are shown of an address can be read back."""
    bare = host.partition("%")[0]
    scope = (0, 0) if ":" in bare else ()
    plain, port = host_and_port((bare, 7, *scope))
    assert ipaddress.ip_address(plain) in (
        ipaddress.ip_address(bare),
        getattr(ipaddress.ip_address(bare), "ipv4_mapped", None),
    )
    left, _, right = shown(plain, port).rpartition(":")
    assert (left.strip("[]"), right) == (plain, "7")
