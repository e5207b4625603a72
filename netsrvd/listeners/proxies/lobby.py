"""Where connections of proxies wait until it is known whose they are."""

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, takewhile
from math import inf
from time import monotonic

from netsrvd.counters import Counters
from netsrvd.listeners.contracts import Refusal
from netsrvd.listeners.proxies.header import LATE, LONG, LONGEST, WRONG, HeaderError, read_stream
from netsrvd.listeners.refusals import Peer
from netsrvd.listeners.trouble import named
from netsrvd.settings import ListenerSettings

OWN_SECONDS = 0.5
"""How long a proxy's own connection may stay without a word and still be one that only looks
whether we are there. Whoever looks leaves at once; a service that speaks first speaks then.
"""

LOOK_SECONDS = 0.1
"""How often to look whether a wait is over whose end wakes nobody."""

LOOKS_A_TURN = 16
"""Guests that are heard before the acceptor looks at its sockets and its mail again."""

NO_PROXY = "access", "proxies no longer has it"


class Guest:
    """One connection in the lobby."""

    __slots__ = ("data", "has_header", "listener", "peer", "since", "sock")

    def __init__(
        self,
        sock: socket.socket,
        listener: str,
        peer: Peer,
        since: float,
        data: bytes = b"",
        *,
        has_header: bool = False,
    ) -> None:
        self.sock = sock
        self.listener = listener
        self.peer = peer
        self.since = since
        self.data = data
        """The part of its header that was taken off the socket."""
        self.has_header = has_header
        """It is known that the proxy speaks for itself."""


Enter = Callable[[socket.socket, Peer, Peer | None, float], None]
"""Is given a connection, its client, and the proxy if that is another one."""

Dismiss = Callable[[socket.socket, Peer, Refusal | None, float, None], None]
"""Is given a connection, the proxy that it is of, and what is to be told about it, if anything."""


class Lobby:
    """The connections of one listener's proxies. Owned by the acceptor's thread.

    A header is only looked at (MSG_PEEK) until it is whole, so that what follows it is left for
    the worker to read. Guests leave by `enter` or by `dismiss`, and these close the sockets;
    `close()` dismisses those who are left, unless `leave()` has given them to somebody else.
    """

    __slots__ = ("_arrived", "_counters", "_dismiss", "_enter", "_epoll", "_own", "_settings")

    def __init__(
        self, settings: ListenerSettings, counters: Counters, enter: Enter, dismiss: Dismiss
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._enter = enter
        self._dismiss = dismiss
        self._epoll = select.epoll()
        self._arrived: dict[int, Guest] = {}
        """Those without a whole header, the first one first."""
        self._own: dict[int, Guest] = {}
        """Those of whom it is known that the proxy speaks for itself."""

    @property
    def guests(self) -> int:
        """How many wait, a moment ago (any thread)."""
        return len(self._arrived) + len(self._own)

    def fileno(self) -> int:
        """Return a descriptor that is readable while a guest has something to say."""
        return self._epoll.fileno()

    def update(
        self, settings: ListenerSettings, is_proxy: Callable[[str], bool], now: float
    ) -> None:
        """Wait by new settings; whoever is no longer to send a header is turned away."""
        self._settings = settings
        for guest in self._all():
            if not is_proxy(guest.peer[0]):
                self._end(guest, NO_PROXY, now)

    def admit(self, sock: socket.socket, peer: Peer, now: float) -> None:
        """Have a connection of a proxy wait for its header, which has often come already."""
        guest = Guest(sock, self._settings.name, peer, now)
        self.readmit(guest)
        if guest.sock.fileno() in self._arrived:
            self._hear(guest, now)

    def readmit(self, guest: Guest) -> None:
        """Have a guest wait; whoever has waited in another process comes before all others."""
        guest.sock.setblocking(False)
        try:
            self._epoll.register(guest.sock, select.EPOLLIN)
        except OSError as error:
            rule = f"it cannot be watched, {named(error)}; raise fs.epoll.max_user_watches"
            self._dismiss(guest.sock, guest.peer, ("descriptors", rule), monotonic(), None)
        else:
            self._table(guest)[guest.sock.fileno()] = guest

    def leave(self) -> list[Guest]:
        """Return all guests, who are no longer ours."""
        left = self._all()
        self._arrived.clear()
        self._own.clear()
        return left

    def serve(self, now: float) -> None:
        """Hear those who have something to say, and end the wait of those whose time is over.

        A call hears and ends LOOKS_A_TURN of each at most; the next call goes on.
        """
        for descriptor, _ in self._epoll.poll(0, LOOKS_A_TURN):
            self._hear(self._arrived.get(descriptor) or self._own[descriptor], now)
        for guest in _overdue(self._arrived, now - self._wait_seconds):
            self._hear(guest, now)  # its header may have come, and wait behind others
            if self._arrived.get(guest.sock.fileno()) is not guest:
                continue
            rule = f"no whole header within {self._wait_rule}"
            self._counters.proxy_late += 1
            self._end(guest, (LATE, rule), now)
        for guest in _overdue(self._own, now - OWN_SECONDS):
            self._let_in(guest, None, now)

    def empty(self, is_over: Callable[[], bool]) -> None:
        """Serve until nobody is left or it is over, then close: for who has no other sockets."""
        while self.guests and not is_over():
            self._epoll.poll(min(LOOK_SECONDS, max(0.0, self.due_at - monotonic())))
            self.serve(monotonic())
        self.close(monotonic())

    @property
    def due_at(self) -> float:
        """When to serve at the latest, also if nobody says anything."""
        waits = (self._arrived, self._wait_seconds), (self._own, OWN_SECONDS)
        ends = (next(iter(table.values())).since + seconds for table, seconds in waits if table)
        return min(ends, default=inf)

    @property
    def _wait_seconds(self) -> float:
        """How long a guest may wait for its header; its connection lasts no longer either."""
        settings = self._settings
        return min(settings.proxy_seconds, settings.max_connection_seconds or inf)

    @property
    def _wait_rule(self) -> str:
        """The setting that says so."""
        seconds = self._wait_seconds
        is_usual = seconds == self._settings.proxy_seconds
        return f"{'proxy_timeout' if is_usual else 'max_connection_seconds'} = {seconds:g} s"

    def close(self, now: float) -> None:
        """Turn away all guests; nobody is told, as nobody has come in."""
        for guest in self._all():
            self._end(guest, None, now)
        self._epoll.close()

    def _hear(self, guest: Guest, now: float) -> None:
        """Look at what a guest says, and take as much of it as belongs to the header."""
        try:
            data = guest.sock.recv(LONGEST, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:  # it was broken off
            data = b""
        if not data:
            self._gone(guest, now)
        elif guest.has_header:
            self._let_in(guest, None, now)
        else:
            self._read(guest, data, now)

    def _read(self, guest: Guest, data: bytes, now: float) -> None:
        try:
            header = read_stream(guest.data + data)
        except HeaderError as error:
            self._counters.proxy_long += error.reason == LONG
            self._counters.proxy_wrong += error.reason == WRONG
            self._end(guest, (error.reason, str(error)), now)
            return
        if header is None:
            guest.data += self._taken(guest, len(data))
            return
        self._taken(guest, header.length - len(guest.data))
        if header.client in (None, guest.peer):
            del self._arrived[guest.sock.fileno()]
            guest.since, guest.has_header = now, True
            self._own[guest.sock.fileno()] = guest
        else:
            self._let_in(guest, header.client, now)

    def _taken(self, guest: Guest, count: int) -> bytes:
        """Take bytes that were looked at; if it is broken off meanwhile, that is seen next."""
        try:
            return guest.sock.recv(count)
        except OSError:
            return b""

    def _gone(self, guest: Guest, now: float) -> None:
        """Take leave of a guest who has hung up: without a word, unless it was in the middle."""
        if guest.data and not guest.has_header:
            self._counters.proxy_wrong += 1
            self._end(guest, (WRONG, "the connection ended within it"), now)
        else:
            self._counters.proxy_probes += 1
            self._end(guest, None, now)

    def _end(self, guest: Guest, refusal: Refusal | None, now: float) -> None:
        self._forget(guest)
        self._dismiss(guest.sock, guest.peer, refusal, now, None)

    def _let_in(self, guest: Guest, client: Peer | None, now: float) -> None:
        self._forget(guest)
        if client is None:
            self._enter(guest.sock, guest.peer, None, now)
        else:
            self._enter(guest.sock, client, guest.peer, now)

    def _forget(self, guest: Guest) -> None:
        """Look no more at a guest. A close would not be enough: epoll(7) goes on telling of one
        that came from another process for as long as systemd has its descriptor, too.
        """
        del self._table(guest)[guest.sock.fileno()]
        with suppress(OSError):
            self._epoll.unregister(guest.sock)

    def _all(self) -> list[Guest]:
        return [*self._arrived.values(), *self._own.values()]

    def _table(self, guest: Guest) -> dict[int, Guest]:
        return self._own if guest.has_header else self._arrived


def _overdue(table: dict[int, Guest], until: float) -> list[Guest]:
    """Return guests at the head of a table who have been there since `until` or longer."""
    overdue = takewhile(lambda guest: guest.since <= until, table.values())
    return list(islice(overdue, LOOKS_A_TURN))
