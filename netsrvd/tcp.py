"""A TCP listener: accepts, checks, counts and refuses connections, and closes them in time."""

import os
import select
import socket
from _socket import socket as CSocket  # noqa: N812 - without the enums of socket.socket
from collections.abc import Callable
from math import inf
from time import monotonic

from netsrvd.access.connections import ConnectionPolicy
from netsrvd.addresses import host_and_port, is_among
from netsrvd.connection import RESET_AT_CLOSE, RETRY_SECONDS, AnySocket, Connection
from netsrvd.contracts import (
    CONGESTED_SECONDS,
    NOT_CONFIGURED,
    Addresses,
    Peer,
    Refusal,
    Report,
)
from netsrvd.counters import Counters
from netsrvd.errnos import BUG_ERRNOS, CONNECTION_ERRNOS, DESCRIPTOR_ERRNOS
from netsrvd.event_loop import READ, WRITE, EventLoop
from netsrvd.events import INFO
from netsrvd.events.connections import (
    AcceptFailing,
    AcceptRecovered,
    ListenerBelowLimit,
    ListenerFull,
)
from netsrvd.log.refusals import RefusalLog
from netsrvd.log.throttle import ErrorThrottle
from netsrvd.proxy_pending import NOT_A_PROXY, PendingConnections
from netsrvd.services.base import StreamFactory
from netsrvd.settings import EVERYWHERE, ListenerSettings

ACCEPTS_PER_TURN = 16
"""Connections that one listening socket gives in one turn of the loop, before established
connections are served again."""

BURST_SECONDS = 0.05
"""A burst of accepts ends after this time, too. It takes as long only if other threads compute:
with 64 of them each system call waits for the interpreter lock for a third of a second."""

REFUSALS_PER_PAUSE = 64
"""Connections that are refused at once while there is no descriptor."""

SWEEP_SECONDS = 1.0
"""How late a time-out may be noticed; to look at 8,000 connections takes about a millisecond."""

SHORTEST_SWEEP_SECONDS = 0.01

TIMEOUTS_PER_TURN = 64
"""Connections that are closed in one turn because they have timed out. Thousands that came at the
same time would hold up all others for a quarter of a second."""

NO_DESCRIPTOR = "descriptors", "none is left; raise LimitNOFILE= or lower max_connections"

LOCALS_KEPT = 64
"""Local addresses that connections share, instead of 160 bytes for each. A client on this host can
name any of 127.0.0.0/8."""

IPV4_FIELDS = 2
"""Fields of the address of an IPv4 socket; one of IPv6 has four."""


class ConnectionLimit:
    """How many connections all listeners together may have. Owned by the event loop."""

    __slots__ = ("_blocked", "limit", "on_empty", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.on_empty: Callable[[], None] | None = None
        """Called when the last connection has been released, once it is set."""
        self._blocked: list[TCPListener] = []

    @property
    def is_reached(self) -> bool:
        """Whether no more connections may be accepted."""
        return self.used >= self.limit

    def block(self, listener: "TCPListener") -> None:
        """Call `look_again` of a listener once, when a connection is released and there is room."""
        if listener not in self._blocked:
            self._blocked.append(listener)

    def release(self) -> None:
        """Count one connection less."""
        self.used -= 1
        if self._blocked and not self.is_reached:
            blocked, self._blocked = self._blocked, []
            for listener in blocked:
                listener.look_again()
        if not self.used and self.on_empty is not None:
            self.on_empty()


class SpareDescriptor:
    """A descriptor that is kept to refuse connections while there is no other."""

    __slots__ = ("_descriptor",)

    def __init__(self) -> None:
        self._descriptor = -1
        self.take()

    def take(self) -> None:
        """Keep a descriptor again, if there is one."""
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._descriptor = -1

    def release(self) -> bool:
        """Free it for one accept(2); return False if there is none."""
        if self._descriptor < 0:
            return False
        os.close(self._descriptor)
        self._descriptor = -1
        return True


Take = Callable[[Connection], None]
"""Serves a connection instead of the loop: by a Python handler (`handlers/connections.py`)."""


class TCPSocket:
    """One listening socket of a listener. Owned by the event loop."""

    __slots__ = ("accept", "addresses", "family", "listener", "local", "sock")

    def __init__(self, listener: "TCPListener", sock: socket.socket, addresses: Addresses) -> None:
        self.listener = listener
        self.sock = sock
        self.addresses = addresses
        """The local addresses that are served; None for every one."""
        self.family = int(sock.family)
        # `_accept` of the C class returns a descriptor: socket.accept() takes twice the time to
        # make an object of it that is not needed here (6.9 against 3.8 µs).
        self.accept = sock._accept  # type: ignore[attr-defined] # noqa: SLF001
        local = host_and_port(sock.getsockname())
        self.local = None if local[0] in EVERYWHERE else local
        """The local address of each of its connections, if that is one and the same."""

    def on_ready(self, _events: int, now: float) -> None:
        """Accept what waits."""
        self.listener.accept_waiting(self, now)


class TCPListener:
    """The listening sockets of one `[listener.NAME]`, and its connections. Owned by the event loop.

    A limit of the listener or of the daemon takes the sockets out of epoll(7), so that further
    connections wait in the kernel's queue. An error of accept(2) that speaks of a mistake of ours
    (EBADF, EINVAL, ENOTSOCK, EFAULT) ends the loop; after every other one it goes on.
    """

    __slots__ = (
        "_echoes",
        "_errors",
        "_full_since",
        "_held",
        "_is_listening",
        "_is_paused",
        "_locals",
        "_make_service",
        "_new_id",
        "_pending",
        "_policy",
        "_refusals",
        "_retries",
        "_retry_at",
        "_sockets",
        "_spare",
        "_stored",
        "_sweep_at",
        "_sweep_seconds",
        "_take",
        "_total",
        "connections",
        "counters",
        "loop",
        "report",
        "settings",
    )

    def __init__(
        self,
        loop: EventLoop,
        settings: ListenerSettings,
        make_service: StreamFactory,
        *,
        is_echo: bool,
        take: Take | None,
        total: ConnectionLimit,
        spare: SpareDescriptor,
        report: Report,
        new_id: Callable[[], str],
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.counters = Counters()
        self.report = report
        self.connections: dict[int, Connection] = {}
        """Those that the event loop serves, by descriptor."""
        self._make_service = make_service
        self._echoes = is_echo
        self._take = take
        self._total = total
        self._spare = spare
        self._new_id = new_id
        self._policy = ConnectionPolicy(settings)
        self._refusals = RefusalLog(report, settings, "tcp")
        self._errors = ErrorThrottle(report, settings.name, AcceptFailing, AcceptRecovered)
        self._sockets: dict[int, TCPSocket] = {}
        self._pending: PendingConnections | None = None
        self._locals: dict[Peer, Peer] = {}
        """Local addresses that connections came to."""
        self._stored: set[int] = set()
        """Descriptors that systemd's store may still have, too."""
        self._retries: list[Connection] = []
        """Those to watch for room again at `_retry_at`."""
        self._retry_at = inf
        self._held = 0
        """All its connections: those that wait for a header and those of handlers, too."""
        self._full_since = 0.0
        self._is_listening, self._is_paused = True, False
        self._sweep_at, self._sweep_seconds = inf, SWEEP_SECONDS
        self._plan_sweeps()
        self._use_pending()

    # --- from the server, in the loop's thread ------------------------------------------------

    @property
    def live(self) -> int:
        """How many connections it holds (any thread)."""
        return self._held

    @property
    def pending(self) -> int:
        """How many of them wait for a PROXY header (any thread)."""
        return self._pending.count if self._pending else 0

    def refused_sources(self) -> list[tuple[str, str, int]]:
        """Return the sources that are refused, the reasons and numbers of times (any thread)."""
        return self._refusals.sources()

    @property
    def has_sockets(self) -> bool:
        """Whether it has a listening socket."""
        return bool(self._sockets)

    def open(self, sock: socket.socket, addresses: Addresses = None) -> None:
        """Accept on one more listening socket, which is closed by `close` or `stop`."""
        listening = TCPSocket(self, sock, addresses)
        self._sockets[sock.fileno()] = listening
        self.loop.add(sock.fileno(), listening, READ if self._is_listening else 0)

    def restrict(self, sock: socket.socket, addresses: Addresses) -> None:
        """Serve other local addresses of a listening socket from now on."""
        self._sockets[sock.fileno()].addresses = addresses

    def close(self, sock: socket.socket) -> None:
        """Close one listening socket; its connections go on."""
        del self._sockets[sock.fileno()]
        self.loop.remove(sock.fileno())
        sock.close()

    def update(
        self,
        settings: ListenerSettings,
        make_service: StreamFactory,
        *,
        is_echo: bool,
        take: Take | None,
    ) -> None:
        """Use new settings from now on; close the connections that they no longer allow."""
        self.settings = settings
        self._make_service, self._echoes, self._take = make_service, is_echo, take
        if self._policy.update(settings):
            self._refusals.update(settings)
            self._plan_sweeps()
            self._use_pending()
            if self._pending:
                self._pending.update(settings, self._policy.is_proxy, self.loop.now)
            for connection in list(self.connections.values()):
                if rule := self._policy.denied_by(connection.peer[0]):
                    connection.close("access", rule)
        self.look_again()  # the limit of the daemon may have changed

    def denied_by(self, host: str) -> str:
        """Return the rule that refuses an address, or nothing."""
        return self._policy.denied_by(host)

    def pause(self, *, paused: bool) -> None:
        """Leave new connections in the kernel's queue, or accept again."""
        self._is_paused = paused
        self._listen(self.loop.now)

    def stop(self) -> None:
        """Close the listening sockets. Connections go on; those without a header are closed, and
        those of services of requests and answers between two of these.
        """
        for listening in list(self._sockets.values()):
            self.close(listening.sock)
        for connection in list(self.connections.values()):
            connection.end_soon()
        if self._pending:
            self._pending.close(self.loop.now)
        self._refusals.expire(self.loop.now, all_of_them=True)

    def detach_pending(self) -> list[AnySocket]:
        """Return the sockets of those that wait for a PROXY header; the caller owns them."""
        found = self._pending.detach() if self._pending else []
        for _ in found:
            self._release()
        return found

    def transferable(self) -> list[Connection]:
        """Return the connections that another process could go on with (any thread)."""
        return [
            each
            for each in list(self.connections.values())
            if not (each.close_at or each.service.answers_requests)
        ]

    def detach(self) -> list[Connection]:
        """Return the connections that can be handed over, and serve them no more."""
        found, counters = self.transferable(), self.counters
        for connection in found:
            self.loop.remove(connection.descriptor)
            del self.connections[connection.descriptor]
            counters.bytes_received += connection.bytes_received
            counters.bytes_sent += connection.bytes_sent
        return found

    def reattach(self, connection: Connection) -> None:
        """Serve a connection again that `detach` returned."""
        self._exclude_bytes(connection)
        self._stored.add(connection.descriptor)
        if self._watch(connection):
            connection.go_on()

    def restore(self, connection: Connection, make_service: StreamFactory) -> None:
        """Serve a connection that another process began, whether there is room or not."""
        self._held += 1
        self._total.used += 1
        known = self._policy.look_up(connection.peer[0])
        connection.source = self._policy.acquire(known)
        connection.peer = known.host, connection.peer[1]
        connection.local = self._shared(connection.local)
        self.counters.restored += 1
        self._exclude_bytes(connection)
        self._stored.add(connection.descriptor)
        if not self._watch(connection):
            return
        is_echo = self._echoes and make_service is self._make_service
        connection.resume(make_service, is_echo=is_echo)
        rule = known.denied_by if self._sockets else ""
        if rule and connection.descriptor in self.connections:
            connection.close("access", rule)

    def _exclude_bytes(self, connection: Connection) -> None:
        """Count the bytes of a connection from now on: its end counts all that it has moved."""
        self.counters.bytes_received -= connection.bytes_received
        self.counters.bytes_sent -= connection.bytes_sent

    def serve_accepted(self, sock: AnySocket) -> None:
        """Serve a connection that another program has accepted, or refuse it."""
        peer, now = self._count_peer(sock), self.loop.now
        if peer is None:
            return
        if self._pending and self._policy.is_proxy(peer[0]):
            self._pending.add(sock, peer, now)
        else:
            self._admit(sock, peer, None, now)

    def restore_pending(self, sock: AnySocket, now: float) -> None:
        """Wait for the PROXY header of a connection that another process accepted."""
        peer = self._count_peer(sock)
        if peer is None:
            return
        self._stored.add(sock.fileno())
        if self._pending and self._policy.is_proxy(peer[0]):
            self._pending.add(sock, peer, now)
        else:
            self._reject(sock, peer, NOT_A_PROXY, now, None)

    def _count_peer(self, sock: AnySocket) -> Peer | None:
        """Count a connection that was accepted elsewhere, and return its peer.

        Close it and return None if it was reset meanwhile.
        """
        try:
            peer = host_and_port(sock.getpeername())
        except OSError:  # ENOTCONN
            peer = None
        self._held += 1
        self._total.used += 1
        if peer is None:
            self._release()
            sock.close()
        return peer

    def close_all(self, reason: str) -> int:
        """Close the connections that the loop serves; return how many they were."""
        found = list(self.connections.values())
        for connection in found:
            connection.close(reason)
        return len(found)

    # --- accepting ----------------------------------------------------------------------------

    def accept_waiting(self, listening: TCPSocket, now: float) -> None:
        """Accept what waits on one socket, `ACCEPTS_PER_TURN` at most."""
        accept, family = listening.accept, listening.family
        for _ in range(ACCEPTS_PER_TURN):
            if not self._may_accept(now):
                self._listen(now)
                return
            try:
                descriptor, address = accept()
            except BlockingIOError:
                if self._full_since:
                    self._queue_is_empty(now)
                return
            except OSError as error:
                self._accept_failed(listening, error, now)
                return
            self._held += 1
            self._total.used += 1
            sock = CSocket(family, socket.SOCK_STREAM, 0, descriptor)
            peer = address if len(address) == IPV4_FIELDS else host_and_port(address)
            if listening.addresses is not None and not _serves(listening, sock):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                self._reject(sock, peer, NOT_CONFIGURED, now, None)
            elif self._pending and self._policy.is_proxy(peer[0]):
                self._pending.add(sock, peer, now)
            else:
                self._admit(sock, peer, None, now, listening.local)
            if monotonic() - now > BURST_SECONDS:  # at least one is accepted in each turn
                return

    def _accept_failed(self, listening: TCPSocket, error: OSError, now: float) -> None:
        """Go on after an error of accept(2), unless it speaks of a mistake of ours."""
        if error.errno in BUG_ERRNOS:
            raise error
        self.counters.accept_errors += 1
        where = host_and_port(listening.sock.getsockname())
        self._errors.record(error, where, now, pause=error.errno not in CONNECTION_ERRNOS)
        if error.errno in DESCRIPTOR_ERRNOS and self._errors.persistent(now):
            self._refuse_waiting(listening.sock, now)
        self._listen(now)
        self._plan()

    def _refuse_waiting(self, listening: socket.socket, now: float) -> None:
        """Refuse the connections that wait, with the spare descriptor."""
        for _ in range(REFUSALS_PER_PAUSE if self._spare.release() else 0):
            try:
                sock, address = listening.accept()
            except OSError:
                break
            self._refuse(sock, host_and_port(address), NO_DESCRIPTOR, now, None)
        self._spare.take()

    def _admit(
        self,
        sock: AnySocket,
        peer: Peer,
        proxy: Peer | None,
        now: float,
        local: Peer | None = None,
    ) -> None:
        """Serve a connection, or refuse it by its source. The hot path of new connections."""
        known = self._policy.look_up(peer[0])
        source, refusal = self._policy.admit(known, now)
        if source is None:
            self._reject(sock, peer, refusal, now, proxy)
            return
        sock.setblocking(False)
        if local is None:
            address = sock.getsockname()
            local = address if len(address) == IPV4_FIELDS else host_and_port(address)
            local = self._locals.get(local) or self._shared(local)
        peer = known.host, peer[1]
        connection = Connection(self, sock, self._new_id(), peer, local, proxy, now)
        connection.source = source
        self.counters.accepted += 1
        report = self.report
        if known.is_unlogged:
            connection.is_logged = False
        elif report.level >= INFO:
            report(connection.accepted())
        if self._take is not None:
            self._take(connection)
            return
        if self._watch(connection):
            connection.start(self._make_service, is_echo=self._echoes)

    def _shared(self, local: Peer) -> Peer:
        """Return a local address, as the same object for all connections that came to it."""
        if local not in self._locals and len(self._locals) >= LOCALS_KEPT:
            self._locals.clear()
        return self._locals.setdefault(local, local)

    def _watch(self, connection: Connection) -> bool:
        """Serve a connection in the loop; close it if epoll(7) does not take it."""
        descriptor = connection.descriptor
        self.connections[descriptor] = connection
        try:
            self.loop.add(descriptor, connection)
        except OSError as error:  # ENOSPC: fs.epoll.max_user_watches
            connection.failed(error)
            return False
        if self._sweep_at == inf:
            self._sweep_at = self.loop.now + self._sweep_seconds
            self._plan()
        return True

    def _reject(
        self,
        sock: AnySocket,
        peer: Peer,
        refusal: Refusal | None,
        now: float,
        proxy: Peer | None,
    ) -> None:
        """Close a connection that was counted and not served; report why if there is a reason."""
        self._stored.discard(sock.fileno())
        self._release()
        if refusal is None:
            sock.close()
        else:
            self._refuse(sock, peer, refusal, now, proxy)

    def _refuse(
        self, sock: AnySocket, peer: Peer, refusal: Refusal, now: float, proxy: Peer | None
    ) -> None:
        local = host_and_port(sock.getsockname())
        self.counters.refused[refusal[0]] += 1
        sock.close()
        self._refusals.add(refusal, peer, local, now, proxy)
        self._plan()

    def connection_closed(self, connection: Connection) -> None:
        """Forget a connection, just before its socket is closed (`Connection.close`)."""
        descriptor = connection.descriptor
        if self.connections.pop(descriptor, None) is not None:
            if descriptor in self._stored:
                self._stored.discard(descriptor)
                self.loop.remove(descriptor)
            else:
                self.loop.forget(descriptor)
        self._policy.release(connection.source)
        self._release()

    # --- limits -------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Listen again, in the next turn, if there is room."""
        self.loop.call_at(0.0, self)

    def _has_room(self) -> bool:
        return self._held < self.settings.max_connections and self._total.used < self._total.limit

    def _may_accept(self, now: float) -> bool:
        """Return whether to accept; report a limit when it is reached."""
        if not self._has_room():
            if not self._full_since:
                self._report_full(now)
            return False
        if self._is_paused or self._errors.pausing(now):
            return False
        return not self._waits_for_log()

    def _waits_for_log(self) -> bool:
        return self.report.may_wait and self.report.congested

    def _report_full(self, now: float) -> None:
        self._full_since = now
        most = self.settings.max_connections
        own = self._held >= most
        whose, count = ("its", most) if own else ("the daemon's", self._total.limit)
        limit = f"{whose} max_connections = {count}"
        self.report(ListenerFull(self.settings.name, self._held, limit))

    def _queue_is_empty(self, now: float) -> None:
        """Report that the limit is no longer reached, if it clearly is not."""
        most, total = self.settings.max_connections, self._total
        if self._held <= most * 9 // 10 and total.used <= total.limit * 9 // 10:
            seconds, self._full_since = now - self._full_since, 0.0
            self.report(ListenerBelowLimit(self.settings.name, self._held, seconds))
        else:  # connections of other listeners may end first
            total.block(self)

    def _release(self) -> None:
        self._held -= 1
        self._total.release()
        if not self._is_listening or self._full_since:
            self.look_again()

    def _listen(self, now: float) -> None:
        """Watch the listening sockets while connections may be accepted."""
        wanted = self._may_accept(now)
        if self._total.is_reached:
            self._total.block(self)
        if wanted != self._is_listening:
            self._is_listening = wanted
            for descriptor in self._sockets:
                self.loop.modify(descriptor, READ if wanted else 0)
        if not wanted:
            self._plan()

    # --- time ---------------------------------------------------------------------------------

    def run_due(self, now: float) -> float:
        """Close what has timed out, sum up refusals and errors, listen again after a pause."""
        if now >= self._sweep_at:
            self._sweep(now)
        if now >= self._retry_at:
            self._retry()
        self._errors.expire(now)
        self._refusals.expire(now)
        self._listen(now)
        if self._full_since and self._is_listening and self._sockets and not self._any_waits():
            self._queue_is_empty(now)
        return self._due_at(now)

    def _sweep(self, now: float) -> None:
        """Close what has timed out, `TIMEOUTS_PER_TURN` at most; the others in the next turn."""
        ended = 0
        for connection in list(self.connections.values()):
            try:
                if not (reason := connection.timeout_reason(now)):
                    continue
                connection.close(reason)
            except OSError as error:
                connection.failed(error)
            ended += 1
            if ended == TIMEOUTS_PER_TURN:
                self._sweep_at = now
                return
        self._sweep_at = now + self._sweep_seconds if self.connections else inf

    def retry_later(self, connection: Connection) -> None:
        """Watch a connection for room to send again, `RETRY_SECONDS` from now."""
        self._retries.append(connection)
        if self._retry_at == inf:
            self._retry_at = self.loop.now + RETRY_SECONDS
            self._plan()

    def _retry(self) -> None:
        retries, self._retries, self._retry_at = self._retries, [], inf
        for connection in retries:
            is_served = self.connections.get(connection.descriptor) is connection
            if is_served and connection.send_buffer is not None:  # or EPOLLOUT comes for ever
                connection.watch_for_room(WRITE)

    def _any_waits(self) -> bool:
        """Return whether a connection waits in the kernel's queue."""
        poll = select.poll()
        for descriptor in self._sockets:
            poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def _plan(self) -> None:
        self.loop.call_at(self._due_at(self.loop.now), self)

    def _due_at(self, now: float) -> float:
        return min(
            self._sweep_at,
            self._retry_at,
            self._errors.due_at,
            self._refusals.due_at,
            now + CONGESTED_SECONDS if self._waits_for_log() else inf,
        )

    def _plan_sweeps(self) -> None:
        """Look for time-outs often enough."""
        self._sweep_seconds = sweep_seconds(self.settings)
        if self.connections:
            self._sweep_at = self.loop.now + self._sweep_seconds
            self._plan()

    def _use_pending(self) -> None:
        if self.settings.proxies and not self._pending:
            self._pending = PendingConnections(
                self.loop,
                self.settings,
                self.counters,
                self.report,
                admit=self._admit,
                reject=self._reject,
            )


def sweep_seconds(settings: ListenerSettings) -> float:
    """Return how often to look at the connections of a listener for its shortest time-out."""
    limits = settings.idle_seconds, settings.write_seconds, settings.max_connection_seconds
    shortest = min(filter(None, limits), default=inf) / 4
    return max(SHORTEST_SWEEP_SECONDS, min(SWEEP_SECONDS, shortest))


def _serves(listening: TCPSocket, sock: AnySocket) -> bool:
    """Return whether a connection came to an address that is served."""
    addresses = listening.addresses
    return bool(addresses) and is_among(host_and_port(sock.getsockname())[0], addresses or ())
