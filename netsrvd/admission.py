"""The gate: may this peer come in now?

The most specific entry of `allow` and `deny` that contains the peer's address decides; with equal
entries `deny` wins; an address that no entry contains stays out.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import NamedTuple

from netsrvd.addresses import UNKNOWN

WORDS = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    # Loopback, link-local (RFC 3927, RFC 4291), private (RFC 1918) and unique local (RFC 4193).
    "local": (
        *("127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10"),
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    ),
    "any": ("0.0.0.0/0", "::/0"),
}

MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

VERDICTS_KEPT = 1024
"""Addresses whose verdict is remembered; it costs 100 bytes each and saves 2 µs a connection."""


class Entry(NamedTuple):
    """A network, as the number that an address shifted right by `shift` must be."""

    family: int
    shift: int
    number: int
    allows: bool
    text: str


def checked_entry(value: object) -> str:
    """Return an entry of `allow` or `deny`; ValueError says what was expected instead."""
    if isinstance(value, str) and (value in WORDS or _is_network(value)):
        return value
    known = ", ".join(f'"{word}"' for word in WORDS)
    raise ValueError(f'addresses, networks such as "192.0.2.0/24", or the words {known}')


def _is_network(text: str) -> bool:
    """Return whether a text is a network; ValueError if it is one that would not mean what it says.

    Peers are judged by the IPv4 address in an IPv4-mapped one, whichever interface they come by.
    """
    if "%" in text:
        return False
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED):
        number, length = int(network.network_address) % 2**32, network.prefixlen - 96
        ipv4 = ipaddress.ip_network((number, length))
        raise ValueError(f'IPv4 in its own form, such as "{ipv4}"')
    if ipaddress.ip_interface(text).ip != network.network_address:
        raise ValueError(f'a network without host bits, such as "{network}"')
    return True


class AccessGate:
    """Lets in whom `allow` and `deny` say. Owned by the thread of one socket."""

    __slots__ = ("_entries", "_verdicts")

    def __init__(self, allow: Iterable[str], deny: Iterable[str]) -> None:
        entries = [*_entries(allow, allows=True), *_entries(deny, allows=False)]
        # Most specific first, which is the smallest shift; False sorts before True.
        self._entries = sorted(entries, key=lambda entry: (entry.shift, entry.allows))
        self._verdicts: dict[str, tuple[str, str] | None] = {}

    def refusal(self, host: str) -> tuple[str, str] | None:
        """Return None to let this address in, else the reason and the rule that decided."""
        try:
            return self._verdicts[host]
        except KeyError:
            pass
        if len(self._verdicts) >= VERDICTS_KEPT:
            self._verdicts.clear()
        entry = self.decisive(host)
        if entry is not None and entry.allows:
            verdict = None
        elif entry is None:
            verdict = "access", "no entry of allow contains it"
        else:
            verdict = "access", f'deny has "{entry.text}"'
        self._verdicts[host] = verdict
        return verdict

    def datagram_refusal(self, host: str, asked: str, local: str) -> tuple[str, str] | None:
        """Return None to answer this peer's datagrams, else the reason and the rule that decided.

        `asked` is the address that they were sent to, `local` the one of this host that received
        them: where these differ, it was a broadcast or multicast, which is never answered, or one
        forged request would draw an answer from every host of a network. "0.0.0.0" means unknown.
        """
        if asked.startswith("ff") or local not in (asked, UNKNOWN) or _is_group(asked):
            return "destination", f"{asked} is a multicast or broadcast address"
        return self.refusal(host)

    def decisive(self, host: str) -> Entry | None:
        """Return the entry that decides about an address, None if none contains it."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        number = int.from_bytes(socket.inet_pton(family, host.partition("%")[0]), "big")
        for entry in self._entries:
            if entry.family == family and number >> entry.shift == entry.number:
                return entry
        return None


def _is_group(host: str) -> bool:
    """Return whether an IPv4 address is multicast (RFC 5771), reserved or limited broadcast."""
    return ":" not in host and int(host.partition(".")[0]) >= 224  # noqa: PLR2004


def _entries(texts: Iterable[str], *, allows: bool) -> list[Entry]:
    found = []
    for text in texts:
        for each in WORDS.get(text, (text,)):
            network = ipaddress.ip_network(each)
            family = socket.AF_INET6 if network.version == 6 else socket.AF_INET  # noqa: PLR2004
            shift = network.max_prefixlen - network.prefixlen
            number = int(network.network_address) >> shift
            found.append(Entry(family, shift, number, allows, text))
    return found
