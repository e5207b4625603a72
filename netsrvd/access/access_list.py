"""Lists of addresses and networks: which entry decides about an address.

The most specific entry of `allow` and `deny` that contains the address decides; with equal entries
`deny` wins; an address that no entry contains is refused.
"""

import socket
from collections.abc import Iterable
from typing import NamedTuple

NAMED_NETWORKS = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    # Loopback, link-local (RFC 3927, RFC 4291), private (RFC 1918) and unique local (RFC 4193).
    "local": (
        *("127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10"),
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    ),
    "any": ("0.0.0.0/0", "::/0"),
}

MAPPED = "::ffff:0:0/96"


class Entry(NamedTuple):
    """A network, as the number that an address shifted right by `shift` must be."""

    family: int
    shift: int
    number: int
    allows: bool
    text: str
    key: str


def checked_entry(value: object) -> str:
    """Return an entry of `allow` or `deny`; ValueError says what was expected instead."""
    if isinstance(value, str) and (value in NAMED_NETWORKS or _is_network(value)):
        return value
    known = ", ".join(f'"{word}"' for word in NAMED_NETWORKS)
    raise ValueError(f'addresses, networks such as "192.0.2.0/24", or the words {known}')


def _is_network(text: str) -> bool:
    """Return whether a text is a network; ValueError if it is one that would not mean what it says.

    Peers are judged by the IPv4 address in an IPv4-mapped one, whichever interface they come by.
    """
    if "%" in text:
        return False
    import ipaddress  # noqa: PLC0415 - most configurations name no network

    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    mapped = ipaddress.IPv6Network(MAPPED)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(mapped):
        number, length = int(network.network_address) % 2**32, network.prefixlen - 96
        ipv4 = ipaddress.ip_network((number, length))
        raise ValueError(f'IPv4 in its own form, such as "{ipv4}"')
    if ipaddress.ip_interface(text).ip != network.network_address:
        raise ValueError(f'a network without host bits, such as "{network}"')
    return True


class AccessList:
    """The access lists of a listener. Never changes, so any thread may use it.

    `proxies` are allowed, too: a proxy may also connect for itself.
    """

    __slots__ = ("_entries",)

    def __init__(
        self, allow: Iterable[str], deny: Iterable[str] = (), proxies: Iterable[str] = ()
    ) -> None:
        entries = [*_entries("allow", allow), *_entries("deny", deny)]
        entries += _entries("proxies", proxies)
        # Most specific first, which is the smallest shift; False sorts before True.
        self._entries = sorted(entries, key=lambda entry: (entry.shift, entry.allows))

    def denied_by(self, host: str) -> str:
        """Return the rule that refuses an address, or nothing if it is admitted."""
        entry = self.match_address(host)
        return "" if entry and entry.allows else _rule(entry)

    def rule(self, host: str) -> str:
        """Return the rule that decides about an address, for or against it."""
        return _rule(self.match_address(host))

    def match_address(self, host: str) -> Entry | None:
        """Return the entry that decides about an address, None if none contains it."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        number = int.from_bytes(socket.inet_pton(family, host.partition("%")[0]), "big")
        for entry in self._entries:
            if entry.family == family and number >> entry.shift == entry.number:
                return entry
        return None


def _rule(entry: Entry | None) -> str:
    if entry is None:
        return "no entry of allow contains it"
    return f'{entry.key} has "{entry.text}"'


def _entries(key: str, texts: Iterable[str]) -> list[Entry]:
    found = []
    for text in texts:
        for network in NAMED_NETWORKS.get(text) or (_with_length(text),):
            address, _, length = network.partition("/")
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            packed = socket.inet_pton(family, address)
            shift = 8 * len(packed) - int(length)
            number = int.from_bytes(packed, "big") >> shift
            found.append(Entry(family, shift, number, key != "deny", text, key))
    return found


def _with_length(text: str) -> str:
    """Return a network as `ADDRESS/LENGTH`, also one with a mask, or of a single address."""
    import ipaddress  # noqa: PLC0415 - see `_is_network`

    return str(ipaddress.ip_network(text))
