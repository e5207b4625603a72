"""Live connections across a restart: select, save, restore.

The process that ends puts the sockets, and one sealed file with their states, into systemd's
descriptor store (FDSTORE=1 in sd_notify(3)). The next process finds both among its passed
descriptors (sd_listen_fds(3)). Neither waits for the other.

Sockets and states are matched by SO_COOKIE, a number that no other socket of this boot has. A
connection that waits for a PROXY header has no state: nothing has been read from it, and the next
process treats it as one that it has just accepted.
"""

import base64
import binascii
import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from time import monotonic
from typing import Any, NamedTuple

from netsrvd.addresses import is_address, proxy_fields
from netsrvd.connection import AnySocket, Connection, Owner
from netsrvd.events import Event
from netsrvd.events.connections import Closed
from netsrvd.events.handover import HandoverUnusable
from netsrvd.linux import memfd
from netsrvd.settings import Endpoint
from netsrvd.sockets import kept
from netsrvd.sockets.activation import STORED, Stored
from netsrvd.sockets.bind import ListeningSocket, cookie
from netsrvd.systemd.notify import Notifier
from netsrvd.tracebacks import described

VERSION = 1
"""Incremented if an older process cannot read the file. A field that is added needs no
new version: an older process ignores it, a newer one has the value of a new connection instead.
"""

STATE, CONNECTION, PENDING = f"{STORED}state", f"{STORED}connection", f"{STORED}pending/"
"""The names in the store: of the file, of connections, and, before their listener's name, of
connections that wait for a PROXY header."""

STATE_DESCRIPTORS = 1

NOT_KEPT = "systemd does not keep them: FileDescriptorStoreMax= is less than the daemon was told"

MAX_UNSENT_BYTES = 32 << 20
"""Bytes of send buffers in the file. With thousands of clients that read nothing, a restart would
otherwise need several times the memory that they take already."""

MALFORMED = (
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    binascii.Error,
)


# --- the fields of a connection ---------------------------------------------------------------


class Field(NamedTuple):
    """One attribute of a connection and its form in the file, which is JSON."""

    key: str
    attribute: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    """Raises one of MALFORMED for a value that another version or a mistake has left."""


def _of_type(*types: type) -> Callable[[Any], Any]:
    """Return what checks the type of a value."""

    def check(value: Any) -> Any:
        if type(value) not in types:
            raise TypeError(f"unexpected {value!r}")
        return value

    return check


def _address(value: Any) -> tuple[str, int]:
    host, port = value
    if type(port) is not int or not 0 <= port < 1 << 16 or not is_address(host):
        raise ValueError(f"{value!r} is no address")
    return host, port


def _optional_address(value: Any) -> tuple[str, int] | None:
    return None if value is None else _address(value)


def _encoded(data: memoryview | None) -> str:
    return base64.b64encode(data or b"").decode()


def _decoded(text: Any) -> memoryview | None:
    data = base64.b64decode(_of_type(str)(text), validate=True)
    return memoryview(data) if data else None


def _name(value: Any) -> str:
    """Return a name, as one text for all connections that have it."""
    return sys.intern(_of_type(str)(value))


def _same(value: Any) -> Any:
    return value


FIELDS = (
    Field("identity", "connection_id", _same, _of_type(str)),
    Field("service", "service_name", _same, _name),
    Field("peer", "peer", _same, _address),
    Field("local", "local", _same, _address),
    Field("proxy", "proxy", _same, _optional_address),
    Field("opened_at", "opened_at", _same, _of_type(int, float)),
    Field("active_at", "active_at", _same, _of_type(int, float)),
    Field("bytes_received", "bytes_received", _same, _of_type(int)),
    Field("bytes_sent", "bytes_sent", _same, _of_type(int)),
    Field("backlog", "send_buffer", _encoded, _decoded),
    Field("client_done", "eof_received", _same, _of_type(bool)),
    Field("is_logged", "is_logged", _same, _of_type(bool)),
)
"""The state of a connection that the next process needs, besides its listener. Times are those of
CLOCK_MONOTONIC, which is the same in both processes."""

OPTIONAL = {"proxy", "is_logged"}
"""Fields that older versions do not write."""


class ConnectionState:
    """The fields of a connection that another process began."""

    def __init__(self, listener: str, values: Mapping[str, Any]) -> None:
        self.listener = listener
        """The name of its listener."""
        self._values = values
        """By the names of the attributes."""

    @classmethod
    def decoded(cls, entry: Mapping[str, Any]) -> "ConnectionState":
        """Return the state in an entry of the file. Raises one of MALFORMED."""
        values = {
            field.attribute: field.decode(entry[field.key])
            for field in FIELDS
            if field.key in entry or field.key not in OPTIONAL
        }
        return cls(_of_type(str)(entry["listener"]), values)

    @property
    def service_name(self) -> str:
        """The name of its service."""
        return str(self._values["service_name"])

    def connection(self, owner: Owner, sock: AnySocket) -> Connection:
        """Return the connection of a socket."""
        values = self._values
        ends = values["peer"], values["local"], values.get("proxy")
        connection = Connection(owner, sock, values["connection_id"], *ends, values["opened_at"])
        for attribute, value in values.items():
            setattr(connection, attribute, value)
        return connection

    def lost(self) -> Closed:
        """Return the record of a connection whose socket did not come along."""
        values = self._values
        peer_address, peer_port = values["peer"]
        local_address, local_port = values["local"]
        proxy_address, proxy_port = proxy_fields(values.get("proxy"))
        return Closed(
            connection=values["connection_id"],
            listener=self.listener,
            service=self.service_name,
            peer_address=peer_address,
            peer_port=peer_port,
            local_address=local_address,
            local_port=local_port,
            reason="lost",
            seconds=monotonic() - values["opened_at"],
            bytes_received=values["bytes_received"],
            bytes_sent=values["bytes_sent"],
            error="",
            proxy_address=proxy_address,
            proxy_port=proxy_port,
        )


def encode(connection: Connection) -> dict[str, Any]:
    """Return the entry of a connection in the file."""
    fields = {field.key: field.encode(getattr(connection, field.attribute)) for field in FIELDS}
    return {"listener": connection.listener, **fields}


# --- the process that ends --------------------------------------------------------------------


def select(
    connections: Collection[Connection], room: int
) -> tuple[list[Connection], list[Connection]]:
    """Return the connections that `room` descriptors of the store can take, and the others.

    The others are more than that, or have too much in their send buffers.
    """
    by_size = sorted(connections, key=_unsent_bytes)
    sums = accumulate(map(_unsent_bytes, by_size))
    fit = min(room, sum(each <= MAX_UNSENT_BYTES for each in sums))
    return by_size[:fit], by_size[fit:]


def _unsent_bytes(connection: Connection) -> int:
    return len(connection.send_buffer or b"")


def save(
    connections: Sequence[Connection],
    pending: Sequence[tuple[str, AnySocket]],
    drops: Mapping[int, int],
    notifier: Notifier,
) -> None:
    """Put connections into the descriptor store, and those that wait for a PROXY header, each with
    the name of its listener: all or none. Their sockets are closed here then.

    `drops` is for each UDP socket, by its cookie, what of the kernel's counter of drops is counted.

    Raises OSError if systemd does not read or does not keep them; the sockets stay open then.
    """
    states = {cookie(each.sock): encode(each) for each in connections}
    content = {"version": VERSION, "at": monotonic(), "connections": states, "drops": drops}
    data = json.dumps(content).encode()
    try:
        notifier.fdstore(CONNECTION, [each.descriptor for each in connections])
        for name in {name for name, _ in pending}:
            descriptors = [sock.fileno() for of, sock in pending if of == name]
            notifier.fdstore(PENDING + name, descriptors)
        _store_states(data, notifier)
    except BaseException:
        clear(notifier, {name for name, _ in pending})
        raise
    for sock in (*(each.sock for each in connections), *(sock for _, sock in pending)):
        sock.close()


def _store_states(data: bytes, notifier: Notifier) -> None:
    """Put a file with the states into the store.

    It is the last one: a store that is full, or has no room at all, does not keep it. Systemd does
    not report that, but closes it; then this raises OSError.
    """
    file, other = memfd.sealed(STATE, data), -1
    try:
        with suppress(OSError):  # there is no /proc: then systemd is believed
            other = memfd.locked(file)
        notifier.fdstore(STATE, [file])
        os.close(file)
        file = -1
        notifier.barrier()
        if other >= 0 and not memfd.is_held(other):
            raise OSError(errno.ENOSPC, NOT_KEPT)
    finally:
        for each in (file, other):
            if each >= 0:
                os.close(each)


def keep(bound: Iterable[tuple[Endpoint, ListeningSocket]], notifier: Notifier) -> int:
    """Put the daemon's own listening sockets into the descriptor store, as far as there is room.

    They stay open here, too. Returns how many there may be in the store.
    """
    fit = list(bound)[: notifier.store_room]
    with suppress(OSError):  # systemd does not listen: the next process has to bind them again
        for endpoint, opened in fit:
            notifier.fdstore(kept.name_of(endpoint, opened), [opened.sock.fileno()])
        if fit:
            notifier.barrier()
    return len(fit)


def clear(notifier: Notifier, listeners: Iterable[str] = ()) -> None:
    """Remove what was saved or restored from the store; then no other process has it.

    `listeners` are those with connections that waited for a PROXY header.
    """
    for name in (STATE, CONNECTION, *(PENDING + each for each in listeners)):
        notifier.fdstore_remove(name)


# --- the process that follows -----------------------------------------------------------------


class Restored(NamedTuple):
    """What came out of the store. The receiver closes the sockets."""

    connections: list[tuple[socket.socket, ConnectionState]]
    pending: list[tuple[str, socket.socket]]
    """Connections that wait for a PROXY header, each with the name of its listener."""
    lost: int
    """Connections whose sockets did not come along."""
    saved_at: float
    """When they were saved, by CLOCK_MONOTONIC; 0 if that is not known."""
    notes: list[Event]
    drops: dict[int, int]
    """For each UDP socket, by its cookie, the kernel's counter of drops as that process saw it."""

    @property
    def sockets(self) -> list[socket.socket]:
        """All sockets."""
        return [sock for sock, _ in self.connections] + [sock for _, sock in self.pending]


def restore(stored: Iterable[Stored]) -> Restored:
    """Match the descriptors of the store, each with its name, to their states.

    It takes all descriptors: closes what it cannot use, and says why in `notes`.
    """
    sockets: dict[int, socket.socket] = {}
    pending: list[tuple[str, socket.socket]] = []
    states: dict[int, ConnectionState] = {}
    drops: dict[int, int] = {}
    saved_at, problems = 0.0, []
    for descriptor, name in stored:
        if name == STATE:
            try:
                file = _read(memfd.content(descriptor))
            except ValueError as error:
                problems.append(str(error))
            else:
                newer = drops | file.drops if file.saved_at > saved_at else file.drops | drops
                saved_at, drops = max(saved_at, file.saved_at), newer
                states |= file.states
                problems += file.faults
        elif sock := _socket(descriptor, name):
            if name == CONNECTION:
                sockets[cookie(sock)] = sock
            else:
                pending.append((name.removeprefix(PENDING), sock))
            continue
        os.close(descriptor)
    unknown = sockets.keys() - states.keys()
    for number in unknown:
        sockets.pop(number).close()
    if unknown:
        problems.append(f"{len(unknown)} connections came without their states")
    lost = [state for number, state in states.items() if number not in sockets]
    notes: list[Event] = [HandoverUnusable(problem) for problem in problems]
    notes += [state.lost() for state in lost]
    matched = [(sock, states[number]) for number, sock in sockets.items()]
    return Restored(matched, pending, len(lost), saved_at, notes, drops)


def _socket(descriptor: int, name: str) -> socket.socket | None:
    """Return the socket of a descriptor; None if it is none of ours."""
    if name != CONNECTION and not name.startswith(PENDING):
        return None
    with suppress(OSError):
        return socket.socket(fileno=descriptor)
    return None


class _File(NamedTuple):
    """What a file says, and what is wrong with parts of it."""

    saved_at: float
    states: dict[int, ConnectionState]
    drops: dict[int, int]
    faults: list[str]


def _read(data: bytes) -> _File:
    """Return what a file says. Raises ValueError if nothing of it can be used."""
    try:
        content = json.loads(data)
        if content["version"] > VERSION:
            raise ValueError(f"it is of version {content['version']}, known is {VERSION}")
        at, entries = float(content["at"]), content["connections"].items()
    except MALFORMED as error:
        text = str(error) if type(error) is ValueError else f"it is malformed: {error!r}"
        raise ValueError(text) from error
    states, drops, faults = {}, {}, []
    for number, entry in entries:
        try:
            states[int(number)] = ConnectionState.decoded(entry)
        except MALFORMED as error:
            faults.append(f"the state of a connection is malformed: {described(error)}")
    try:
        counts = content.get("drops", {}).items()  # older versions write none
        drops = {int(number): _of_type(int)(count) for number, count in counts}
    except MALFORMED as error:
        faults.append(f"the counts of dropped datagrams are malformed: {described(error)}")
    return _File(at, states, drops, faults)
