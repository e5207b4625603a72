"""The socket units of a service as systemd has them, and what they are compared with: pure."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from netsrvd.addresses import shown
from netsrvd.sockets.matching import Facts
from netsrvd.systemd.systemctl import Properties

PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "UnitFileState", "FragmentPath", "DropInPaths"),
    *("Listen", "FileDescriptorName", "BindIPv6Only", "BindToDevice", "Backlog"),
    *("NeedDaemonReload", "Triggers", "Accept"),
)
"""What is to be asked of systemctl(1)."""

PROTOCOLS = {"Stream": "tcp", "Datagram": "udp"}

_LISTEN = re.compile(r"(?:\[([^\]]+)\]|([0-9.]+)):([0-9]+)(?:%(\S+))? \((Stream|Datagram)\)")


class Unit(NamedTuple):
    """A socket unit as systemd has it."""

    name: str
    load_state: str = "not-found"
    state: str = "inactive"
    """Its ActiveState."""
    file_state: str = ""
    """Its UnitFileState: enabled, disabled, static, masked."""
    path: str = ""
    drop_ins: tuple[str, ...] = ()
    sockets: tuple[Facts, ...] = ()
    others: tuple[str, ...] = ()
    """What it listens on besides IP sockets."""
    backlog: int = 0
    bound_to: str = ""
    """The interface that a socket of it is bound to, where that is not the one of the unit: the
    daemon has bound it, and only a new socket is without."""

    @property
    def is_active(self) -> bool:
        """Whether its sockets are open."""
        return self.state == "active"

    @property
    def is_enabled(self) -> bool:
        """Whether it is started at boot."""
        return self.file_state.startswith("enabled")

    @property
    def is_in_use(self) -> bool:
        """Whether its sockets are open now, or will be after the next boot."""
        return self.load_state == "loaded" and (
            self.is_enabled or self.state not in ("inactive", "failed")
        )

    @property
    def addresses(self) -> str:
        """What it listens on, for people."""
        return described(self.sockets, self.others)


def unit(properties: Properties, *, is_v6_only: bool) -> Unit:
    """Return a unit from its `PROPERTIES`. `is_v6_only` is net.ipv6.bindv6only of this host."""

    def first(name: str) -> str:
        return properties.get(name, [""])[0]

    only = first("BindIPv6Only")
    is_dual = only == "both" or (only == "default" and not is_v6_only)
    name = first("FileDescriptorName") or first("Id")
    sockets, others = [], []
    for text in filter(None, properties.get("Listen", [])):
        facts = _facts(text, name, first("BindToDevice"), is_dual=is_dual)
        if facts:
            sockets.append(facts)
        else:
            others.append(text)
    return Unit(
        first("Id"),
        first("LoadState"),
        first("ActiveState"),
        first("UnitFileState"),
        first("FragmentPath"),
        tuple(first("DropInPaths").split()),
        tuple(sockets),
        tuple(others),
        int(first("Backlog") or 0),
    )


def _facts(text: str, name: str, device: str, *, is_dual: bool) -> Facts | None:
    found = _LISTEN.fullmatch(text)
    if not found:
        return None
    host, port, scope, kind = found[1] or found[2], int(found[3]), found[4], found[5]
    scope = scope or device
    if host.startswith("fe80:") and scope and "%" not in host:
        host = f"{host}%{scope}"
    return Facts(name, PROTOCOLS[kind], host, port, device, is_dual=is_dual and host == "::")


def described(sockets: Sequence[Facts], others: Sequence[str] = ()) -> str:
    """Return addresses for people: `tcp, udp [::]:51423`; nothing is "nothing"."""
    by_address: dict[str, list[str]] = {}
    for facts in sockets:
        bound = f" on {facts.interface}" if facts.interface else ""
        family = " (IPv6 alone)" if facts.host == "::" and not facts.is_dual else ""
        where = f"{shown(facts.host, facts.port)}{bound}{family}"
        by_address.setdefault(where, []).append(facts.protocol)
    parts = [f"{', '.join(protocols)} {where}" for where, protocols in by_address.items()]
    return "; ".join((*parts, *others)) or "nothing"


def stamp(properties: Mapping[str, list[str]]) -> str:
    """Return what differs after each start and reload of a service."""
    return " ".join(
        value
        for name in ("InvocationID", "StateChangeTimestampMonotonic")
        for value in properties.get(name, [])
    )
