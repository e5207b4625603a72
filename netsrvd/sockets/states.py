"""What one process tells the next about live connections: versioned, written once, read once.

The sockets themselves travel in systemd's descriptor store, see `store.py`.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

VERSION = 1
"""Raised when an older process could no longer make sense of it. A field that is added needs a
default and no new version: the older process leaves it out, the newer one fills it in.
"""

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
}

MALFORMED = (
    *(KeyError, TypeError, AttributeError, OverflowError),
    *(RecursionError, binascii.Error),
)


@dataclass(frozen=True, slots=True)
class ConnectionState:
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


@dataclass(frozen=True, slots=True)
class Handover:
    """All that is handed over, by the cookie of each socket (SO_COOKIE in socket(7))."""

    at: float
    """When it was, by CLOCK_MONOTONIC."""
    connections: Mapping[int, ConnectionState]


def encode(handover: Handover) -> bytes:
    """Return a handover as the next process reads it."""
    connections = {
        str(cookie): {each.name: getattr(state, each.name) for each in fields(state)}
        | {"backlog": base64.b64encode(state.backlog).decode()}
        for cookie, state in handover.connections.items()
    }
    return json.dumps(
        {"version": VERSION, "at": handover.at, "connections": connections}, ensure_ascii=True
    ).encode()


def decode(data: bytes) -> Handover:
    """Return what `encode` was given, by this version of the program or another.

    Raises ValueError for what cannot be understood.
    """
    try:
        found = json.loads(data)
        if found["version"] > VERSION:
            raise ValueError(f"it is of version {found['version']}, known is {VERSION}")
        entries = found["connections"].items()
        return Handover(float(found["at"]), {int(each): _state(entry) for each, entry in entries})
    except MALFORMED as error:
        raise ValueError(f"it is malformed: {error!r}") from error


def _state(entry: dict[str, Any]) -> ConnectionState:
    known = {each.name: entry[each.name] for each in fields(ConnectionState) if each.name in entry}
    for name, types in TYPES.items():
        if type(known[name]) not in types:
            raise TypeError(f"{name} = {known[name]!r}")
    known["backlog"] = base64.b64decode(known["backlog"], validate=True)
    for name in ("peer", "local", "proxy"):
        if known.get(name) is not None:
            host, port = known[name]
            known[name] = str(host), int(port)
    return ConnectionState(**known)
