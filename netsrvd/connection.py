"""One TCP connection: its socket, service, send buffer, time-outs and its two records."""

import errno
import socket
import struct
from _socket import socket as CSocket  # noqa: N812 - without the enums of socket.socket
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from os import read, write
from time import time, time_ns
from typing import Protocol

from netsrvd.access.sources import Source
from netsrvd.addresses import proxy_fields
from netsrvd.contracts import Report
from netsrvd.counters import Counters
from netsrvd.errnos import RESET_ERRNOS
from netsrvd.event_loop import READ, WRITE, EventLoop
from netsrvd.events import INFO
from netsrvd.events.connections import Accepted, Closed, ServiceFailed
from netsrvd.services.base import SendOnce, Stream, StreamFactory
from netsrvd.settings import ListenerSettings
from netsrvd.tracebacks import described, traceback_of

RECEIVE_BYTES = 65_536
"""Read at once, which also bounds the send buffer of an echo connection."""

RETRY_SECONDS = 0.1
"""How long to leave a socket alone that takes nothing although epoll(7) says that it has room: the
kernel lacks memory for sockets then (net.ipv4.tcp_mem, MemoryMax=), and EPOLLOUT comes at once."""

LINGER_SECONDS = 2.0
"""How long to wait for the client's FIN after ours. A socket that is closed with unread input sends
a reset, which discards what the client has not read yet (RFC 1122, 4.2.2.13).
"""

RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""struct linger { int l_onoff; int l_linger; }: discard unsent data, send a reset (socket(7))."""


FAULTS = frozenset({"error", "network", "access", "lost"})
"""Reasons of an end that have a record in any case: something failed, or the client is refused."""

AnySocket = socket.socket | CSocket
"""A connection's socket: that of accept(2), or of another process."""


class Owner(Protocol):
    """The listener of a connection."""

    @property
    def settings(self) -> ListenerSettings:
        """Return the settings in force."""

    @property
    def loop(self) -> EventLoop:
        """Return the event loop that serves it."""

    @property
    def counters(self) -> Counters:
        """Return what counts its end."""

    @property
    def report(self) -> Report:
        """Return the way to the log."""

    def retry_later(self, connection: "Connection") -> None:
        """Watch a connection for room to send again, `RETRY_SECONDS` from now."""

    def connection_closed(self, connection: "Connection") -> None:
        """Forget a connection, just before its socket is closed."""


class Connection:
    """Owns its socket from accept to close. Its methods run in the event loop.

    While the send buffer is not empty nothing is read from the client (back-pressure), unless the
    service discards its input.
    """

    __slots__ = (
        "_acknowledged",
        "_peer_host",
        "_peer_port",
        "active_at",
        "bytes_received",
        "bytes_sent",
        "close_at",
        "connection_id",
        "descriptor",
        "eof_received",
        "is_echo",
        "is_logged",
        "local",
        "opened_at",
        "owner",
        "proxy",
        "send_buffer",
        "service",
        "service_name",
        "sock",
        "source",
    )

    def __init__(
        self,
        owner: Owner,
        sock: AnySocket,
        connection_id: str,
        peer: tuple[str, int],
        local: tuple[str, int],
        proxy: tuple[str, int] | None,
        now: float,
    ) -> None:
        self.owner = owner
        self.sock = sock
        self.descriptor = sock.fileno()
        self.connection_id = connection_id
        self._peer_host, self._peer_port = peer
        self.local = local
        self.proxy = proxy
        """The proxy that connected for the peer, if there was one."""
        self.service_name = owner.settings.service
        self.service: Stream = FINISHED
        self.is_echo = False
        self.is_logged = True
        """False if it has no record of its beginning, and of its end only at a fault."""
        self.opened_at = self.active_at = now
        self.bytes_received = self.bytes_sent = 0
        self.send_buffer: memoryview | None = None
        self.eof_received = False
        """The client has shut down its side."""
        self.close_at = 0.0
        """When a lingering close ends; 0 while the service has not finished."""
        self.source: Source
        """What its limits are counted by."""
        self._acknowledged = -1

    # --- read by services ---------------------------------------------------------------------

    @property
    def listener(self) -> str:
        """The name of its listener."""
        return self.owner.settings.name

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address and port; kept apart, as a pair of its own takes 64 bytes."""
        return self._peer_host, self._peer_port

    @peer.setter
    def peer(self, peer: tuple[str, int]) -> None:
        self._peer_host, self._peer_port = peer

    # --- beginning ----------------------------------------------------------------------------

    def start(self, make_service: StreamFactory, *, is_echo: bool) -> None:
        """Serve the connection: send the service's greeting, then answer what comes.

        The loop must watch it already.
        """
        self.is_echo = is_echo
        try:
            self.service = make_service(self, time())
            if not is_echo:
                self._send(self.service.greeting())
        except Exception as error:  # noqa: BLE001 - ends this connection alone
            self.failed(error)

    def resume(self, make_service: StreamFactory, *, is_echo: bool) -> None:
        """Go on with a connection that another process began. The loop must watch it already."""
        try:
            self.sock.setblocking(False)
            self.service = make_service(self, time())
            self.is_echo = is_echo
        except Exception as error:  # noqa: BLE001 - ends this connection alone
            self.failed(error)
            return
        self.go_on()

    def go_on(self) -> None:
        """Send what is left in the send buffer, or ask the service for more."""
        try:
            if self.send_buffer is not None:
                self._buffer(self.send_buffer)
            else:
                self._send(b"")
        except Exception as error:  # noqa: BLE001 - ends this connection alone
            self.failed(error)

    # --- the loop -----------------------------------------------------------------------------

    def on_ready(self, events: int, now: float) -> None:
        """Answer what the client has sent. The hot path of TCP.

        An echo makes no call but read(2) and write(2).
        """
        try:
            if self.send_buffer is not None:
                self._on_ready_while_sending(events, now)
                return
            data = read(self.descriptor, RECEIVE_BYTES)
            if not data:
                self.eof_received = True
            else:
                self.bytes_received += len(data)
                if self.is_echo:
                    self.active_at = now
                    try:
                        sent = write(self.descriptor, data)
                    except BlockingIOError:
                        sent = 0
                    self.bytes_sent += sent
                    if sent != len(data):
                        self._buffer(memoryview(data)[sent:])
                    return
                data = self.service.respond(data)
                if data or not self.service.answers_requests:
                    self.active_at = now
            self._send(data)
        except BlockingIOError:  # another event of this turn was for a descriptor of this number
            pass
        except Exception as error:  # noqa: BLE001 - ends this connection alone
            self.failed(error)

    def _send(self, data: bytes) -> None:
        """Send `data` and buffer what the kernel does not take; then ask the service for more.

        Close the connection if all is said.
        """
        if data:
            try:
                sent = write(self.descriptor, data)
            except BlockingIOError:
                sent = 0
            self.bytes_sent += sent
            if sent < len(data):
                self._buffer(memoryview(data)[sent:])
                return
        if self.close_at:
            if self.eof_received:
                self.close("finished")
        elif self.service.finished:
            if self.eof_received:
                self.close("client")
            else:
                self.linger(self.owner.loop.now)
        elif (more := self.service.more()) != b"":
            self._buffer(memoryview(more or b""))  # sent in the next turn, to be fair to others
        elif self.eof_received:
            self.close("client")

    def linger(self, now: float) -> None:
        """Shut down our side, and discard what comes until the client shuts down its own."""
        self.sock.shutdown(socket.SHUT_WR)
        self.close_at = now + LINGER_SECONDS
        self.is_echo = False
        self.service = FINISHED

    def _buffer(self, data: memoryview) -> None:
        """Send the rest when the client has room for it."""
        self.send_buffer = data
        self.watch_for_room(WRITE)

    def watch_for_room(self, events: int) -> None:
        """Watch for these events, and for input if the service discards it."""
        reads = self.service.discards_input and not self.eof_received
        self.owner.loop.modify(self.descriptor, events | (READ if reads else 0))

    def _on_ready_while_sending(self, events: int, now: float) -> None:
        if events & READ and self.service.discards_input and not self.eof_received:
            data = read(self.descriptor, RECEIVE_BYTES)
            self.bytes_received += len(data)
            if not data:
                self.eof_received = True
                self.owner.loop.modify(self.descriptor, WRITE)
        if not events & ~READ:
            return
        assert self.send_buffer is not None
        try:
            sent = write(self.descriptor, self.send_buffer)
        except BlockingIOError:
            self.watch_for_room(0)
            self.owner.retry_later(self)
            return
        self.active_at = now
        self.bytes_sent += sent
        if sent < len(self.send_buffer):
            self.send_buffer = self.send_buffer[sent:]
            return
        self.send_buffer = None
        self.owner.loop.modify(self.descriptor, READ)
        self._send(b"")

    # --- ending -------------------------------------------------------------------------------

    def end_soon(self) -> None:
        """Close the connection at once, or after the answer that is being sent, if its service
        allows that: see `answers_requests`.
        """
        if not self.close_at and self.service.end_soon() and self.send_buffer is None:
            self.close("drain")

    def timeout_reason(self, now: float) -> str:
        """Return the reason to close the connection now; empty for none. Raises OSError."""
        if self.close_at:
            return "finished" if now >= self.close_at else ""
        settings = self.owner.settings
        longest = settings.max_connection_seconds
        if longest and now - self.opened_at >= longest:
            return "age"
        if self.send_buffer is None:
            limit, reason = settings.idle_seconds, "idle"
        else:
            limit, reason = settings.write_seconds, "write"
            self._note_progress(now)
        return reason if limit and now - self.active_at >= limit else ""

    def _note_progress(self, now: float) -> None:
        """Note whether the client has taken anything since the last look.

        The kernel reports room only when a third of its buffer is free, and that may be megabytes:
        a client can read all the time while nothing can be sent.
        """
        from netsrvd.linux.send_queue import unacknowledged_bytes  # noqa: PLC0415 - few are so slow

        try:
            unacknowledged = unacknowledged_bytes(self.descriptor)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise
            return  # MPTCP lacks it before Linux 5.17
        before, self._acknowledged = self._acknowledged, self.bytes_sent - unacknowledged
        if 0 <= before < self._acknowledged:
            self.active_at = now

    def close(self, reason: str, error: str = "") -> None:
        """Close the socket and report why. By a reset if the client takes nothing."""
        owner = self.owner
        owner.connection_closed(self)
        self.close_socket(reason)
        counters = owner.counters
        counters.closed[reason] += 1
        counters.bytes_received += self.bytes_received
        counters.bytes_sent += self.bytes_sent
        report = owner.report
        if report.level >= INFO and self.has_end_record(reason):
            report(self.closed(reason, owner.loop.now, error))

    def close_socket(self, reason: str) -> None:
        """Close the socket alone."""
        with suppress(OSError):  # EBADF: a handler has closed the descriptor by its number
            if reason == "write" or (reason == "age" and self.send_buffer is not None):
                # The kernel would go on offering it to the client (tcp(7)).
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            self.sock.close()

    def failed(self, error: Exception) -> None:
        """Close the connection for what was raised while it was served."""
        if isinstance(error, OSError):
            reset = error.errno in RESET_ERRNOS
            self.close("reset" if reset else "network", "" if reset else str(error))
            return
        self.owner.report(self.service_failed(error))
        self.close("error", described(error))

    # --- records ------------------------------------------------------------------------------

    def has_end_record(self, reason: str) -> bool:
        """Return whether the end of the connection for this reason has a record."""
        return self.is_logged or reason in FAULTS

    def accepted(self) -> Accepted:
        """Return the record of its beginning."""
        return Accepted(
            self.connection_id,
            self.listener,
            self.service_name,
            self._peer_host,
            self._peer_port,
            *self.local,
            *proxy_fields(self.proxy),
        )

    def closed(self, reason: str, now: float, error: str) -> Closed:
        """Return the record of its end."""
        return Closed(
            self.connection_id,
            self.listener,
            self.service_name,
            self._peer_host,
            self._peer_port,
            *self.local,
            reason,
            now - self.opened_at,
            self.bytes_received,
            self.bytes_sent,
            error,
            *proxy_fields(self.proxy),
        )

    def service_failed(self, error: BaseException) -> ServiceFailed:
        """Return the record of an exception in its service."""
        return ServiceFailed(
            self.listener,
            self.service_name,
            *self.peer,
            described(error),
            traceback_of(error),
            self.connection_id,
            *proxy_fields(self.proxy),
        )


FINISHED = SendOnce(b"")
"""The service of a connection in a lingering close: it discards what still comes."""


def connection_ids() -> Callable[[], str]:
    """Return what makes the ids of connections: unique on this host, also across restarts."""
    prefix, numbers = f"{time_ns() // 1_000_000:x}", count(1)
    return lambda: f"{prefix}-{next(numbers)}"
