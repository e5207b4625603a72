"""Source ports whose datagrams are not answered, because a service there would answer the answer.

Two servers that answer every datagram send one forged datagram to each other for ever
(CERT CA-1996-01, CVE-2024-2169).
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple


class Row(NamedTuple):
    """The ports that a word of `refused_ports` stands for, and why they are in the table."""

    ports: range
    reason: str


OWN = "own"

TABLE = {
    # What talks from there is a service (echo 7, daytime 13, chargen 19, domain 53, ntp 123 …),
    # or pretends to be one.
    "privileged": Row(range(1024), "ports below 1024 are those of services"),
    # A reflector takes each answer for a new request (RFC 8762, 4.3; the default port of STAMP).
    "stamp": Row(range(862, 863), "a STAMP reflector answers answers"),
    # Which these are is known when the sockets are open.
    OWN: Row(range(0), "this daemon serves it, too"),
}

_RANGE = r"([0-9]{1,5})(?:-([0-9]{1,5}))?"
HIGHEST_PORT = 65535


def checked_ports(value: object) -> str:
    """Return an entry of `refused_ports`; ValueError says what was expected instead."""
    if isinstance(value, str) and value in TABLE:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    found = re.fullmatch(_RANGE, value) if isinstance(value, str) else None
    if found and int(found[1]) <= int(found[2] or found[1]) <= HIGHEST_PORT:
        return found[0]
    known = ", ".join(f'"{word}"' for word in TABLE)
    raise ValueError(f'ports, ranges such as "6000-6063", or the words {known}')


class SourcePorts:
    """What `refused_ports` says. Never changes.

    `own` are the ports on which this daemon itself answers datagrams.
    """

    __slots__ = ("_rows",)

    def __init__(self, entries: Iterable[str], own: Collection[int]) -> None:
        self._rows: list[tuple[Collection[int], str]] = [_row(entry, own) for entry in entries]

    def denied_by(self, port: int) -> str:
        """Return the rule that refuses a source port, or nothing."""
        for ports, rule in self._rows:
            if port in ports:
                return f"source port {port}: {rule}"
        return ""


def _row(entry: str, own: Collection[int]) -> tuple[Collection[int], str]:
    row = TABLE.get(entry)
    if row is None:
        first, _, last = entry.partition("-")
        ports: Collection[int] = range(int(first), int(last or first) + 1)
        return ports, f'refused_ports has "{entry}"'
    return own if entry == OWN else row.ports, f'refused_ports has "{entry}": {row.reason}'
