"""What one process tells the next about live connections: versioned, written once, read once.

The sockets themselves travel in systemd's descriptor store, see `store.py`.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from netsrvd.addresses import is_address

VERSION = 1
"""Raised when an older process could no longer make sense of it. A field that is added needs a
default and no new version: the older process leaves it out, the newer one fills it in.
"""

BYTES = ("backlog", "header")
"""The fields that are base64 on the way."""

TYPES: Mapping[str, tuple[type, ...]] = {
    "identity": (str,),
    "listener": (str,),
    "service": (str,),
    "peer": (list,),
    "local": (list,),
    "opened_at": (int, float),
    "active_at": (int, float),
    "bytes_received": (int,),
    "bytes_sent": (int,),
    "backlog": (str,),
    "client_done": (bool,),
    "is_logged": (bool,),
    "since": (int, float),
    "header": (str,),
    "has_header": (bool,),
}

MALFORMED = (
    *(KeyError, TypeError, AttributeError, OverflowError),
    *(RecursionError, binascii.Error),
)


class NotAnAddressError(Exception):
    """A connection has a peer that no listener could have accepted."""


class ConnectionState(NamedTuple):
    """A live connection without its socket. Times are of CLOCK_MONOTONIC, which goes on."""

    identity: str
    listener: str
    service: str
    peer: tuple[str, int]
    local: tuple[str, int]
    opened_at: float
    active_at: float
    bytes_received: int
    bytes_sent: int
    backlog: bytes
    """What was to be sent and the client had not taken yet."""
    client_done: bool
    """The client has shut down its side."""
    memory: Any = None
    """What its service remembers."""
    proxy: tuple[str, int] | None = None
    """Who connected for the peer, if that was another one."""
    is_logged: bool = True
    """False for one that has no record of its beginning, see `unlogged` in netsrvd.toml(5)."""


class GuestState(NamedTuple):
    """A connection that waits for the header of its proxy, without its socket."""

    listener: str
    peer: tuple[str, int]
    since: float
    """When its wait began, by CLOCK_MONOTONIC."""
    header: bytes
    """The part of the header that was taken off the socket."""
    has_header: bool
    """It is known that the proxy speaks for itself."""


State = TypeVar("State", ConnectionState, GuestState)


class Handover(NamedTuple):
    """All that is handed over, by the cookie of each socket (SO_COOKIE in socket(7))."""

    at: float
    """When it was, by CLOCK_MONOTONIC."""
    connections: Mapping[int, ConnectionState]
    guests: Mapping[int, GuestState] = MappingProxyType({})


def encode(handover: Handover) -> bytes:
    """Return a handover as the next process reads it."""
    content = {
        "version": VERSION,
        "at": handover.at,
        "connections": {str(each): _entry(state) for each, state in handover.connections.items()},
        "guests": {str(each): _entry(state) for each, state in handover.guests.items()},
    }
    return json.dumps(content, ensure_ascii=True).encode()


def decode(data: bytes) -> Handover:
    """Return what `encode` was given, by this version of the program or another.

    Raises ValueError for what cannot be understood.
    """
    try:
        found = json.loads(data)
        if found["version"] > VERSION:
            raise ValueError(f"it is of version {found['version']}, known is {VERSION}")
        at, connections = float(found["at"]), _states(ConnectionState, found["connections"])
    except MALFORMED as error:
        raise ValueError(f"it is malformed: {error!r}") from error
    try:
        guests = _states(GuestState, found["guests"])
    except (*MALFORMED, ValueError):
        guests = {}  # of another version: their sockets are told as those without states
    return Handover(at, connections, guests)


def _entry(state: ConnectionState | GuestState) -> dict[str, Any]:
    entry = state._asdict()
    for name in entry.keys() & BYTES:
        entry[name] = base64.b64encode(entry[name]).decode()
    return entry


def _states(kind: type[State], entries: Mapping[str, dict[str, Any]]) -> dict[int, State]:
    """Return the states by cookie, without those whose addresses are none."""
    found = {}
    for cookie, entry in entries.items():
        number = int(cookie)
        with suppress(NotAnAddressError):
            found[number] = _state(kind, entry)
    return found


def _state(kind: type[State], entry: dict[str, Any]) -> State:
    known = {name: entry[name] for name in kind._fields if name in entry}
    for name, value in known.items():
        if name in TYPES and type(value) not in TYPES[name]:
            raise TypeError(f"{name} = {value!r}")
    for name in known.keys() & BYTES:
        known[name] = base64.b64decode(known[name], validate=True)
    for name in ("peer", "local", "proxy"):
        if known.get(name) is not None:
            host, port = known[name]
            known[name] = _address(host, port)
    return kind(**known)


def _address(host: str, port: int) -> tuple[str, int]:
    """Return a host and a port; raises NotAnAddressError if they are none."""
    if not is_address(host) or not 0 <= port < 1 << 16:
        raise NotAnAddressError
    return host, port
