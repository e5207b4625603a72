"""How live connections outlive a restart: one process gives them, the next one takes them up.

Neither waits for the other: in between they are in systemd's descriptor store.
"""

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import accumulate
from time import monotonic

from netsrvd.addresses import proxy_fields
from netsrvd.events import Event
from netsrvd.events.connections import Closed
from netsrvd.events.handover import HandoverUnusable
from netsrvd.linux import memfd
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.inherited import Inherited
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.reporting.notify import Notifier
from netsrvd.services import prepare
from netsrvd.services.base import Client, Present, Service, Stream
from netsrvd.settings import Endpoint, ListenerSettings, Settings
from netsrvd.sockets import kept, store
from netsrvd.sockets.activation import Stored
from netsrvd.sockets.bind import Opened
from netsrvd.sockets.states import ConnectionState, GuestState
from netsrvd.tracebacks import described

OF_STATES = 1
"""The descriptor of the file with the states, beside those of the connections."""


REFUSED = "systemd does not keep them: FileDescriptorStoreMax= is less than the daemon was told"

MOST_UNSENT_BYTES = 32 << 20
"""What the states carry along, at most, of that which clients have not taken yet. Thousands of
clients that read nothing would otherwise have a restart need several times what they hold already.
"""


def portable(connections: list[Connection], room: int) -> tuple[list[Connection], list[Connection]]:
    """Return those that can be given where the store has so much room, and the others.

    The others are more than that, or have too much unsent.
    """
    by_size = sorted(connections, key=_unsent_bytes)
    sums = accumulate(map(_unsent_bytes, by_size))
    fit = min(room, sum(each <= MOST_UNSENT_BYTES for each in sums))
    return by_size[:fit], by_size[fit:]


def give(connections: list[Connection], guests: list[Guest], notifier: Notifier) -> None:
    """Put connections, and those that are still in a lobby, into the descriptor store: all or none.

    Their sockets are closed here then. Raises OSError if systemd did not listen or did not keep
    them, and whatever a service raises that cannot say what it remembers; the sockets stay open
    then.
    """
    states = store.pack(
        [(one.sock, _state(one)) for one in connections],
        [(guest.sock, _guest_state(guest)) for guest in guests],
        monotonic(),
    )
    sockets = [one.sock for one in connections] + [guest.sock for guest in guests]
    try:
        notifier.store(store.CONNECTION, [sock.fileno() for sock in sockets])
        _store_states(states, notifier)
    except BaseException:
        take_back(notifier)
        raise
    for sock in sockets:
        sock.close()


def _store_states(states: int, notifier: Notifier) -> None:
    """Put the file with the states into the store, and close it here.

    It is the last one: a store that is full, or has no room at all, does not keep it. Systemd does
    not say so, but closes it; then this raises OSError.
    """
    other = -1
    try:
        with suppress(OSError):  # there is no /proc: then systemd is believed
            other = memfd.locked(states)
        notifier.store(store.STATE, [states])
        os.close(states)
        states = -1
        notifier.settle()
        if other >= 0 and not memfd.is_held(other):
            raise OSError(errno.ENOSPC, REFUSED)
    finally:
        for each in (states, other):
            if each >= 0:
                os.close(each)


def keep(bound: Iterable[tuple[Endpoint, Opened]], notifier: Notifier) -> int:
    """Put the daemon's own listening sockets into the descriptor store, as far as there is room.

    They stay open here, too. Returns how many there may be in the store.
    """
    fit = list(bound)[: notifier.store_room]
    with suppress(OSError):  # systemd does not listen: the next process has to bind them again
        for endpoint, opened in fit:
            notifier.store(kept.name_of(endpoint, opened), [opened.sock.fileno()])
        if fit:
            notifier.settle()
    return len(fit)


def take_back(notifier: Notifier) -> None:
    """Have the descriptor store forget what was given or taken up: only then is it ours alone."""
    for name in (store.STATE, store.CONNECTION):
        notifier.forget(name)


def take_up(
    stored: Iterable[Stored], settings: Settings, services: Mapping[str, Service], present: Present
) -> Inherited:
    """Return what the process before gave, to go on with the new settings.

    `services` are those of the listeners, by their names. Each connection keeps the service that
    it has. One whose service cannot go on is ended, with its records.
    """
    estate = store.unpack(stored)
    notes: list[Event] = [HandoverUnusable(problem) for problem in estate.problems]
    notes += [_lost(state) for state in estate.lost]
    by_name = {listener.name: listener for listener in settings.listeners}

    found, known = [], Services(settings, services, present)
    for sock, state in estate.connections:
        listener = by_name.get(state.listener) or ListenerSettings(state.listener, state.service)
        connection = _connection(sock, state, listener, known)
        try:
            sock.setblocking(False)
            _resume(connection, state)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends one connection
            sock.close()
            end = connection.closed("error", monotonic(), described(error))
            notes += [connection.service_failed(error), end]
        else:
            found.append(connection)
    guests = sorted((_guest(*found) for found in estate.guests), key=lambda guest: guest.since)
    return Inherited(found, guests, len(estate.lost), estate.at, notes)


class Services:
    """The services of the connections: those of the listeners, and those that a listener had
    before, each prepared when the first one needs it.
    """

    def __init__(
        self, settings: Settings, by_name: Mapping[str, Service], present: Present
    ) -> None:
        self._present = present
        self._prepared = {
            (listener.service, listener.name): by_name[listener.name]
            for listener in settings.listeners
        }

    def found(self, name: str, listener: ListenerSettings) -> Service:
        """Return a service as a listener wishes it; raises what preparing it raises."""
        key = name, listener.name
        if key not in self._prepared:
            self._prepared[key] = prepare(name, listener, self._present)
        return self._prepared[key]


def _connection(
    sock: socket.socket, state: ConnectionState, listener: ListenerSettings, services: Services
) -> Connection:
    def made(client: Client, at: float) -> Stream:
        return services.found(state.service, listener).stream(client, at)

    connection = Connection(
        *(sock, state.identity, state.peer, state.local, listener, made, _nobody),
        state.opened_at,
        state.proxy,
    )
    connection.service_name = state.service
    connection.is_logged = state.is_logged
    return connection


def _resume(connection: Connection, state: ConnectionState) -> None:
    connection.resume(
        state.memory,
        state.opened_at,
        state.active_at,
        (state.bytes_received, state.bytes_sent),
        state.backlog,
        client_done=state.client_done,
    )


def _unsent_bytes(connection: Connection) -> int:
    return len(connection.backlog or b"")


def _nobody() -> None:
    """Stand for the listener that is told when a connection ends, until the house knows it."""


def _state(connection: Connection) -> ConnectionState:
    return ConnectionState(
        connection.identity,
        connection.settings.name,
        connection.service_name,
        connection.peer,
        connection.local,
        connection.opened_at,
        connection.active_at,
        connection.bytes_received,
        connection.bytes_sent,
        bytes(connection.backlog or b""),
        connection.client_done,
        connection.service.memory(),
        connection.proxy,
        connection.is_logged,
    )


def _guest(sock: socket.socket, state: GuestState) -> Guest:
    return Guest(
        *(sock, state.listener, state.peer, state.since, state.header),
        has_header=state.has_header,
    )


def _guest_state(guest: Guest) -> GuestState:
    return GuestState(guest.listener, guest.peer, guest.since, guest.data, guest.has_header)


def _lost(state: ConnectionState) -> Closed:
    return Closed(
        state.identity,
        state.listener,
        state.service,
        *state.peer,
        *state.local,
        "lost",
        monotonic() - state.opened_at,
        state.bytes_received,
        state.bytes_sent,
        "",
        *proxy_fields(state.proxy),
    )
