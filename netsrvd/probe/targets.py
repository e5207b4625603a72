"""The hosts that are probed: from `HOST[:PORT]` to addresses."""

import re
import socket
from ipaddress import ip_address
from typing import NamedTuple

from netsrvd.addresses import host_and_port, shown
from netsrvd.errors import HostError, UsageError

HIGHEST_PORT = 65535

_WITH_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")


class Target(NamedTuple):
    """One address that is probed."""

    name: str
    """As it was given, without the port."""
    address: tuple[str, int] | tuple[str, int, int, int]
    """For sendto(2) and connect(2)."""
    given: str = ""
    """As it was given, with the port."""

    @property
    def family(self) -> socket.AddressFamily:
        """The address family."""
        return socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET

    @property
    def host(self) -> str:
        """The IP address."""
        return host_and_port(self.address)[0]

    @property
    def port(self) -> int:
        """The port."""
        return self.address[1]

    @property
    def is_group(self) -> bool:
        """Whether it is a multicast address, whose hosts would all answer."""
        return ip_address(self.host).is_multicast

    @property
    def lacks_interface(self) -> bool:
        """Whether it is a link-local address of IPv6 (RFC 4007) that does not say on which link."""
        return ip_address(self.host).is_link_local and self.address[3:] == (0,)

    def __str__(self) -> str:
        """Return the address with the port, and the name where that is another."""
        where = shown(self.host, self.port)
        return where if self.name == self.host else f"{self.name} ({where})"


def split(text: str, default_port: int) -> tuple[str, int]:
    """Return the host and port of `HOST`, `HOST:PORT`, `IPV6` or `[IPV6]:PORT`.

    Raises UsageError for anything else.
    """
    if text.count(":") > 1 and "[" not in text:
        return text, default_port
    found = _WITH_PORT.fullmatch(text)
    port = int(found[3] or default_port) if found else 0
    if not found or not 0 < port <= HIGHEST_PORT:
        raise UsageError(
            f"{text!r} is no target; expected HOST, HOST:PORT or [IPV6-ADDRESS]:PORT, with a port "
            "from 1 to 65535"
        )
    return found[1] or found[2], port


def resolve(
    text: str, default_port: int, family: int = socket.AF_UNSPEC, *, every: bool = False
) -> list[Target]:
    """Return the target that a text names: its first address by RFC 6724, or `every` address.

    An IPv4-mapped address becomes the IPv4 one, whose sockets have TTL, DSCP and ICMP. It waits for
    the resolver. Raises UsageError for a text of another form and for the address of a group,
    HostError if it has no address of that family.
    """
    host, port = split(text, default_port)
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no host name"
        raise HostError(f"{host}: {reason}") from error
    addresses = [Target(host, _unmapped(each[4]), text) for each in found]  # type: ignore[arg-type]
    for each in addresses:
        if each.is_group:
            group = f"{each.host} is the address of a group"
            raise UsageError(f"{host}: {group}; a probe is for one host")
    return [*dict.fromkeys(addresses)][: None if every else 1]


def _unmapped(
    address: tuple[str, int] | tuple[str, int, int, int],
) -> tuple[str, int] | tuple[str, int, int, int]:
    host, port = host_and_port(address)
    return address if ":" in host else (host, port)
