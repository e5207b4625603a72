"""How socket addresses are written for people and compared by rules."""

import socket
from collections.abc import Collection
from functools import lru_cache

UNKNOWN = "0.0.0.0"  # noqa: S104 - compared with, not bound to
"""The local address of a datagram of which the kernel did not keep it."""

IPV4_MAPPED = "::ffff:"


def host_and_port(address: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    """Return the host and port of a Python socket address.

    An IPv4-mapped host becomes IPv4 (see `unmapped`), a link-local one gets its interface.
    """
    host, port = address[0], address[1]
    if ":" not in host:
        return host, port
    if len(address) > 2 and address[3]:  # noqa: PLR2004 - the scope is the fourth
        return f"{host}%{interface_name(address[3])}", port
    return unmapped(host), port


def unmapped(host: str) -> str:
    """Return the IPv4 address in an IPv4-mapped IPv6 one (RFC 4291, 2.5.5.2), else `host` itself.

    The kernel shows IPv4 peers of a dual-stack socket in that form.
    """
    bare = host.removeprefix(IPV4_MAPPED)
    return bare if bare != host and "." in bare and ":" not in bare else host


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, with or without its interface."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def without_scope(host: str) -> str:
    """Return an address without the `%interface` of a link-local one (RFC 4007, 11)."""
    return host.partition("%")[0]


def is_among(host: str, addresses: Collection[str]) -> bool:
    """Return whether a local address is one of `addresses`.

    "0.0.0.0" and "::" stand for every IPv4 and every IPv6 address.
    """
    every = "::" if ":" in host else UNKNOWN
    return every in addresses or without_scope(host) in map(without_scope, addresses)


def shown(host: str, port: int | str) -> str:
    """Return `host:port`, with the brackets of RFC 3986 around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def via(proxy_address: str, proxy_port: str) -> str:
    """Return the proxy of a client for a record's text: nothing without one."""
    return f" via {shown(proxy_address, proxy_port)}" if proxy_address else ""


def proxy_fields(proxy: tuple[str, int] | None) -> tuple[str, str]:
    """Return a proxy as records have it. Without one both are empty, so that they leave it out."""
    return (proxy[0], str(proxy[1])) if proxy else ("", "")


def interface_name(index: int) -> str:
    """Return the name of a network interface, or its number if it has gone away since."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


@lru_cache(maxsize=1024)
def source(host: str) -> str:
    """Return the source of a peer: its IPv4 address, or the /64 of an IPv6 one.

    A host that has an IPv6 address has all of its /64 (RFC 6177), and so any number of them. It is
    called for each datagram that is refused: 0.5 µs for IPv6, 0.06 for a recent address.
    """
    if ":" not in host:
        return host
    address, _, scope = host.partition("%")
    network = socket.inet_pton(socket.AF_INET6, address)[:8] + bytes(8)
    name = socket.inet_ntop(socket.AF_INET6, network)
    return f"{name}%{scope}/64" if scope else f"{name}/64"
