"""A connection as a Python handler sees it: blocking calls, in a thread of the pool."""

import select
import socket
from contextlib import suppress
from math import inf
from time import monotonic
from typing import ClassVar

from netsrvd.connection import RECEIVE_BYTES, RETRY_SECONDS, Connection
from netsrvd.errnos import RESET_ERRNOS, format_errno
from netsrvd.handlers.pool import Task
from netsrvd.services.base import Handler
from netsrvd.tracebacks import described

REASONS = {
    "idle": "it was silent for idle_timeout",
    "write": "the client took nothing for write_timeout",
    "age": "it lasted for max_connection_seconds",
    "drain": "the daemon stops",
    "access": "the client may no longer come in",
    "finished": "the handler has returned",
}
"""Reasons to end the connection of a handler, as texts of the exception."""


class HandlerTask:
    """One connection, and the handler that serves it.

    The pool's thread owns the connection from `work()` until that returns. The event loop reads
    figures that are a moment old, and ends the connection by `end()`, which makes the blocking
    calls return.
    """

    __slots__ = (
        "_handler",
        "connection",
        "cut_at",
        "detail",
        "ended_at",
        "pool_task",
        "raised",
        "reason",
    )

    def __init__(self, connection: Connection, handler: Handler) -> None:
        self.connection = connection
        self._handler = handler
        self.pool_task: Task
        """What the pool was given for it."""
        self.reason = self.detail = ""
        """Why it was ended before the handler returned."""
        self.ended_at = inf
        self.cut_at = inf
        """When it will be ended at the latest, because the daemon stops."""
        self.raised: OSError | None = None
        """The exception that the handler got."""

    def work(self) -> BaseException | None:
        """Run the handler, then send all that is left to the client; return what it raised."""
        self.connection.active_at = monotonic()
        try:
            self._handler(HandlerConnection(self))
            self._finish_in_order()
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it ends one connection
            return None if error is self.raised else describable(error)
        return None

    def end(self, reason: str, now: float, detail: str = "") -> None:
        """End the connection for its client; the next call of the handler raises."""
        self.reason, self.detail, self.ended_at = reason, detail, now
        with suppress(OSError):  # the client has ended it already, which the handler sees as well
            self.connection.sock.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise an exception if the connection has ended."""
        if not self.reason:
            return
        if self.raised is None:
            kind = (
                TimeoutError if self.reason in ("idle", "write", "age") else ConnectionAbortedError
            )
            why = REASONS.get(self.reason, self.reason)
            self.raised = kind(f"the connection has ended: {why}")
        raise self.raised

    def broke(self, error: OSError) -> OSError:
        """Note a network error; return the exception for the handler."""
        self.check()
        reset = error.errno in RESET_ERRNOS
        self.reason, self.detail = (
            "reset" if reset else "network",
            "" if reset else format_errno(error),
        )
        self.ended_at = monotonic()
        self.raised = error
        return error

    def finish(self, error: BaseException | None) -> None:
        """Note that the handler has returned or failed; its later calls raise."""
        self.detail = self.detail or (described(error) if error else "")
        ended = "client" if self.connection.eof_received else "finished"
        self.reason = self.reason or ("error" if error else ended)

    def _finish_in_order(self) -> None:
        """Shut down our side, and discard what comes until the client shuts down its own."""
        connection = self.connection
        if self.reason or connection.eof_received:
            return
        try:
            connection.linger(monotonic())
            while data := connection.sock.recv(RECEIVE_BYTES):
                connection.bytes_received += len(data)
        except OSError as error:
            self.broke(error)


class HandlerConnection:
    """A TCP connection, for its handler: it ends when the handler returns.

    `recv` and `send` raise TimeoutError at the listener's time-outs, ConnectionError or another
    OSError when the connection has ended otherwise; so does each later call. To let these
    exceptions through is right: they are no failure of the handler's.
    """

    __slots__ = ("_task",)
    protocol: ClassVar[str] = "tcp"

    def __init__(self, task: HandlerTask) -> None:
        self._task = task

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address and port."""
        return self._task.connection.peer

    @property
    def local(self) -> tuple[str, int]:
        """The local address and port that it connected to."""
        return self._task.connection.local

    @property
    def listener(self) -> str:
        """The name of the listener that accepted the connection."""
        return self._task.connection.listener

    @property
    def deadline(self) -> float:
        """The time at which the connection ends if nothing is received or sent before.

        By `idle_timeout`, `max_connection_seconds` or a stop, whichever is first; bytes postpone
        only the first. In seconds of time.monotonic(); infinite if that is never.
        """
        connection, settings = self._task.connection, self._task.connection.owner.settings
        idle, age = settings.idle_seconds, settings.max_connection_seconds
        return min(
            self._task.cut_at,
            connection.active_at + idle if idle else inf,
            connection.opened_at + age if age else inf,
        )

    def recv(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Wait for data of the client; return `max_bytes` at most, or b"" at its end."""
        task = self._task
        task.check()
        connection = task.connection
        try:
            data = connection.sock.recv(max_bytes)
        except OSError as error:
            raise task.broke(error) from None
        task.check()
        connection.active_at = monotonic()
        connection.bytes_received += len(data)
        if not data and max_bytes:
            connection.eof_received = True
        return data

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; returns when the kernel has taken it."""
        self._task.check()
        connection = self._task.connection
        connection.active_at = monotonic()
        connection.send_buffer = memoryview(data).cast("B")
        try:
            self._send(connection)
        finally:
            connection.send_buffer = None

    def _send(self, connection: Connection) -> None:
        task, room = self._task, select.poll()
        had_room = False
        while connection.send_buffer:
            try:
                # It does not block in send(2): the time-out could not see what the client takes.
                sent = connection.sock.send(connection.send_buffer, socket.MSG_DONTWAIT)
            except BlockingIOError:
                # A socket that takes nothing although it has room would have this spin: the kernel
                # lacks memory then. poll(2) reports the end of the connection without POLLOUT, too.
                room.register(connection.sock, 0 if had_room else select.POLLOUT)
                room.poll(1000 * RETRY_SECONDS if had_room else None)
                had_room = not had_room
                task.check()
                continue
            except OSError as error:
                raise task.broke(error) from None
            had_room = False
            connection.active_at = monotonic()
            connection.bytes_sent += sent
            connection.send_buffer = connection.send_buffer[sent:]
        task.check()


def describable(error: BaseException) -> BaseException:
    """Return an exception, or another in its place if its own code fails to describe it."""
    try:
        repr(error)
    except BaseException:  # noqa: BLE001 - whatever that code does, too
        return RuntimeError(f"{type(error).__name__}, whose repr() fails").with_traceback(
            error.__traceback__
        )
    return error
