"""The accept loop: takes connections from a listener's sockets and hands them to the workers."""

import socket
from collections.abc import Callable
from math import inf
from time import monotonic

from netsrvd.addresses import host_and_port
from netsrvd.counters import Counters
from netsrvd.duty import Duty, OnFailure
from netsrvd.events.connections import AcceptRecovered, AcceptTrouble
from netsrvd.listeners.accept_errors import DESCRIPTOR_ERRORS, OWN_ERRORS, PEER_ERRORS
from netsrvd.listeners.capacity import Capacity
from netsrvd.listeners.connection import Connection, Take
from netsrvd.listeners.contracts import ConnectionGate, Report, StreamFactory
from netsrvd.listeners.entrance import Entrance
from netsrvd.listeners.places import Places
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.listeners.refusals import Addresses
from netsrvd.listeners.reserve import Reserve
from netsrvd.listeners.trouble import Trouble
from netsrvd.listeners.watch import CONGESTED_SECONDS, Watch, Width
from netsrvd.listeners.worker import Worker
from netsrvd.settings import ListenerSettings

ACCEPTS_A_TURN = 16
"""Connections taken before the mailbox is looked at again."""

REFUSED_A_PAUSE = 64
"""Connections refused at once while there is no descriptor; then the listener pauses again."""

NO_DESCRIPTOR = "descriptors", "none is left; raise LimitNOFILE= or lower max_connections"


class Acceptor:
    """The TCP sockets of one listener and their thread, which owns all that changes in here.

    `stop()` closes the sockets; connections that were accepted live on with their workers. An
    error of accept that only a bug causes (`OWN_ERRORS`) ends the thread; after any other that is
    not the peer's the sockets are left alone for a moment.
    """

    __slots__ = (
        *(
            "_addresses",
            "_capacity",
            "_congested",
            "_duty",
            "_entrance",
            "_left",
            "_paused",
            "_report",
        ),
        *("_reserve", "_settings", "_sockets", "_stopping", "_taking", "_trouble"),
        *("_watch", "counters"),
    )

    def __init__(
        self,
        settings: ListenerSettings,
        gate: ConnectionGate,
        service: StreamFactory,
        workers: list[Worker],
        places: Places,
        report: Report,
        identify: Callable[[], str],
        on_failure: OnFailure,
        take: Take | None = None,
    ) -> None:
        self.counters = Counters()
        self._settings = settings
        self._report = report
        self._sockets: dict[int, socket.socket] = {}
        self._addresses: dict[int, Addresses] = {}
        self._reserve = Reserve()
        self._stopping = self._paused = self._congested = False
        self._left: list[Guest] | None = None
        """Where to put those who wait for the headers of their proxies at the end."""
        self._taking = False
        """Whether whoever comes is taken out of the kernel's queue."""
        self._trouble = Trouble(report, settings.name, AcceptTrouble, AcceptRecovered)
        self._duty = Duty(f"acceptor {settings.name}", self._run, on_failure)
        self._watch = Watch(self._duty.mailbox)
        self._capacity = Capacity(settings, places, report, self._duty.mailbox)
        self._entrance = Entrance(
            *(settings, gate, service, workers, self._capacity, report, identify),
            *(self.counters, self._watch.add_lobby, take),
        )

    @property
    def duty(self) -> Duty:
        """The thread, to be started, watched and joined."""
        return self._duty

    def open(self, sock: socket.socket) -> None:
        """Serve one more listening socket, which belongs to the thread from now on."""
        self.opening(sock)()

    def opening(self, sock: socket.socket, addresses: Addresses = None) -> Callable[[], None]:
        """Return the call that does so. It cannot fail.

        Of its local addresses those are served that `addresses` has.
        """
        return lambda: self._duty.mailbox.post(self._open, sock, addresses)

    def restrict(self, sock: socket.socket, addresses: Addresses) -> None:
        """Have a socket serve other addresses, for the connections to come."""
        self._duty.mailbox.post(self._addresses.__setitem__, sock.fileno(), addresses)

    def close(self, sock: socket.socket) -> None:
        """Ask the thread to close one of its sockets."""
        self._duty.mailbox.post(self._close, sock)

    def stop(self, left: list[Guest] | None = None) -> None:
        """Ask the thread to close all its sockets and end.

        Those who wait for the headers of their proxies are put into `left`, whose owner closes
        them; without that they are turned away.
        """
        self._duty.mailbox.post(self._stop, left)

    def is_answering(self) -> bool | None:
        """Return whether a client would be answered; None if that cannot be said now (main)."""
        if not self._taking or self._capacity.is_out_of_places:
            return None
        answered = self._entrance.visitor.is_answered(tuple(self._sockets.values()))
        return answered if answered or self._taking else None

    def pause(self, *, paused: bool) -> None:
        """Ask the thread to leave what comes in the kernel's queue, or to take it again."""
        self._duty.mailbox.post(setattr, self, "_paused", paused)

    def update(
        self, settings: ListenerSettings, service: StreamFactory, take: Take | None = None
    ) -> None:
        """Give the thread new settings, for the connections to come."""
        self._duty.mailbox.post(self._update, settings, service, take)

    def adopt(self, connection: Connection) -> None:
        """Count in a connection that the process before let in, and give it to a worker."""
        self._duty.mailbox.post(self._entrance.adopt, connection)

    def adopt_guest(self, guest: Guest) -> None:
        """Go on waiting with a connection for its header."""
        self._duty.mailbox.post(self._entrance.adopt_guest, guest)

    def _open(self, sock: socket.socket, addresses: Addresses) -> None:
        self._reserve.take()  # with the first socket: a daemon that is ready has all descriptors
        self._sockets[sock.fileno()] = sock
        self._addresses[sock.fileno()] = addresses
        self._watch.add(sock)

    def _close(self, sock: socket.socket) -> None:
        del self._sockets[sock.fileno()], self._addresses[sock.fileno()]
        self._watch.remove(sock)
        sock.close()

    def _stop(self, left: list[Guest] | None) -> None:
        self._stopping, self._left = True, left

    def _update(
        self, settings: ListenerSettings, service: StreamFactory, take: Take | None
    ) -> None:
        self._settings = settings
        self._entrance.update(settings, service, take)

    def _run(self) -> None:
        now = monotonic()
        entrance = self._entrance
        try:
            while not self._stopping:
                width = self._width(now)
                self._taking = wanted = width is Width.ALL
                found = self._watch.wait(self._patience(now, width), width)
                ready = [self._sockets[each] for each, _ in found if each in self._sockets]
                now = monotonic()
                if entrance.lobby and width is not Width.MAIL:
                    entrance.lobby.serve(now)
                for sock in ready:
                    self._take_waiting(sock, now)
                if wanted and not ready and self._capacity.has_room:
                    self._capacity.relieved(now)
                self._trouble.settle(now)
                entrance.refusals.settle(now)
        finally:
            self._reserve.close()
            entrance.close(now, self._left)
            for sock in self._sockets.values():
                sock.close()

    def _width(self, now: float) -> Width:
        """Return where to look for connections: full means not listening."""
        full = self._capacity.is_full(now) or self._trouble.pausing(now)
        self._congested = self._report.congested
        if self._congested or self._paused:
            return Width.MAIL
        if not self._entrance.has_room(self._duty.mailbox.wake):
            return Width.MAIL
        return Width.LOBBY if full else Width.ALL

    def _patience(self, now: float, width: Width) -> float:
        """Return for how many seconds there is nothing to do but to wait."""
        if self._stopping or (width is Width.ALL and self._capacity.has_room):
            return 0.0
        if self._congested:
            return CONGESTED_SECONDS
        lobby, refusals = self._entrance.lobby, self._entrance.refusals
        due_at = lobby.due_at if lobby and width is not Width.MAIL else inf
        return min(self._trouble.due_at, refusals.due_at, due_at) - now

    def _take_waiting(self, listening: socket.socket, now: float) -> None:
        """Accept what waits in the kernel's queue, as far as there is room."""
        for _ in range(min(ACCEPTS_A_TURN, self._capacity.left)):
            if listening.fileno() < 0 or not self._capacity.take():
                return
            try:
                sock, address = listening.accept()
            except OSError as error:
                self._capacity.give_back()
                if not isinstance(error, BlockingIOError):
                    self._failed(listening, error, now)
                return
            self._duty.mailbox.deliver()  # who left before this one came is counted out
            addresses = self._addresses[listening.fileno()]
            self._entrance.admit(sock, host_and_port(address), now, addresses)

    def _failed(self, listening: socket.socket, error: OSError, now: float) -> None:
        """Go on after an error of accept, unless it speaks of the listening socket itself."""
        if error.errno in OWN_ERRORS:
            raise error
        self.counters.accept_errors += 1
        where = host_and_port(listening.getsockname())
        self._trouble.occurred(error, where, now, pause=error.errno not in PEER_ERRORS)
        if error.errno in DESCRIPTOR_ERRORS and self._trouble.lasts(now):
            self._turn_away(listening, now)

    def _turn_away(self, listening: socket.socket, now: float) -> None:
        """Refuse those who wait, with the one descriptor that is kept for this."""
        for _ in range(REFUSED_A_PAUSE if self._reserve.release() else 0):
            try:
                sock, address = listening.accept()
            except OSError:
                break
            self._entrance.refuse(sock, host_and_port(address), NO_DESCRIPTOR, now, None)
        self._reserve.take()
