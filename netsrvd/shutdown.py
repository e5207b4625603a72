"""The stop, in order: accept no more, hand over or drain, close the rest, write the last record."""

import signal
from collections.abc import Callable
from time import monotonic

from netsrvd.connection import Connection
from netsrvd.events.lifecycle import NotHandedOver, Stopped, Stopping
from netsrvd.server import Pending, Server
from netsrvd.systemd.notify import Notifier
from netsrvd.tracebacks import described, place_of

LONGEST_END_SECONDS = 20.0
"""What a stop may take besides the drain, if every thread and the log have to be waited for."""

LOOK_SECONDS = 0.05
"""How often to look whether a drain is over; its usual end wakes it."""

STATUS_SECONDS = 1.0
"""How often to send systemd the state of a drain."""

STALLED_SECONDS = 30.0
"""A drain is over when no byte has moved for this long."""

UNTRANSFERABLE = (
    "they are about to end, exceed FileDescriptorStoreMax=, or have too many unsent bytes"
)

OF_HANDLERS = "they are served by Python handlers"

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}

Wait = Callable[[float], int | None]
"""Returns the next signal within this many seconds, None if there was none."""


class Shutdown:
    """One stop of the daemon. Owned by the main thread."""

    def __init__(self, server: Server, notifier: Notifier, wait: Wait, reason: str) -> None:
        self._server = server
        self._notifier = notifier
        self._wait = wait
        self._reason = reason
        self._keep_sockets = True
        self._deadline = 0.0
        """When a drain is over at the latest."""

    def run(
        self,
        drain_seconds: float,
        run_seconds: float,
        *,
        restart_pending: bool,
        restart_possible: bool = False,
        keep_sockets: bool = True,
    ) -> None:
        """Stop, after a run of `run_seconds`. All threads have ended and all is closed then.

        With `restart_pending` the live connections are handed over; those that cannot be
        have `drain_seconds` to end. With `restart_possible` all connections have this time, and the
        next process gets those that are left. Unless `keep_sockets`, the sockets that the
        daemon has bound are closed.
        """
        server, notifier = self._server, self._notifier
        began_at, live, accepted = monotonic(), server.live, server.counters().accepted
        self._deadline = began_at + drain_seconds
        self._keep_sockets = keep_sockets
        self._report_stopping(f"Stopping on {self._reason}", drain_seconds)
        purpose = "restart" if restart_pending else "stop"
        server.report(Stopping(self._reason, live, drain_seconds, purpose))
        handed_over = 0
        if restart_pending or restart_possible:
            handed_over = self._hand_over(drain_all=not restart_pending)
        else:
            server.stop_listening(drain_seconds)
        if not handed_over:
            self._drain(lambda: server.is_empty)
        aborted = server.close_connections()
        live += server.counters().accepted - accepted
        seconds = run_seconds + monotonic() - began_at
        server.report(self._summary(seconds, live, aborted, handed_over))
        server.stop_log()
        notifier.close()

    @property
    def _seconds_left(self) -> float:
        """How long connections are still waited for."""
        return max(0.0, self._deadline - monotonic())

    def _hand_over(self, *, drain_all: bool) -> int:
        """Give live connections to the next process; return how many. Whatever fails is a drain."""
        server = self._server
        pending: Pending = []
        detached: list[Connection] = []
        try:
            return self._save(pending, detached, drain_all=drain_all)
        except Exception as error:  # noqa: BLE001 - of systemd, or files of another version
            server.reattach(detached)
            server.stop_listening(self._seconds_left)
            fault = f"that fails: {described(error)} at {place_of(error)}"
            if count := server.live:
                server.report(NotHandedOver(count, fault))
            return 0
        finally:
            for _, sock in pending:
                sock.close()

    def _save(
        self,
        pending: Pending,
        detached: list[Connection],
        *,
        drain_all: bool,
    ) -> int:
        """Hand over what can be; return the number of connections.

        If this raises, `pending` has the connections that wait for a PROXY header, and `detached`
        those that no thread serves.
        """
        from netsrvd import handover  # noqa: PLC0415 - most stops have no successor
        from netsrvd.events.handover import HandedOver  # noqa: PLC0415 - so here

        server = self._server
        bound = server.bound.items() if self._keep_sockets and not drain_all else ()
        kept = handover.keep(bound, self._notifier)
        room = max(0, self._notifier.store_room - kept - handover.STATE_DESCRIPTORS)
        if drain_all:
            server.stop_listening(self._seconds_left, pending)
            self._drain(lambda: server.is_empty)
        else:
            self._drain_untransferable(room, pending)
        began_at = monotonic()
        server.detach(detached)
        saved, left = handover.select(detached, room)
        detached[:] = saved
        if left:
            server.reattach(left)
        fitting = pending[: room - len(saved)]
        is_kept = bool(server.drops) and room > 0 and not drain_all
        if saved or fitting or is_kept:
            handover.save(saved, fitting, server.drops, self._notifier)
        detached.clear()
        if saved:
            server.report(HandedOver(len(saved), monotonic() - began_at))
        return len(saved)

    def _drain_untransferable(self, room: int, pending: Pending) -> None:
        """Accept no more, and wait for the connections that cannot be handed over.

        All others are served meanwhile. While only handlers are waited for, other listeners accept.
        """
        from netsrvd.handover import select  # noqa: PLC0415 - most stops have no successor

        server = self._server

        def untransferable() -> int:
            fit, _ = select(server.transferable(), room)
            return max(0, server.live - server.handled - len(fit))

        def store_is_full() -> bool:
            return len(server.transferable()) >= room

        server.stop_handlers(self._seconds_left, pending)
        if count := server.handled:
            server.report(NotHandedOver(count, OF_HANDLERS))
            self._drain(lambda: not server.handled or store_is_full())
        server.stop_listening(self._seconds_left, pending)
        if count := untransferable():
            server.report(NotHandedOver(count, UNTRANSFERABLE))
        self._drain(lambda: not (server.handled or untransferable()))

    def _drain(self, is_over: Callable[[], bool]) -> None:
        """Wait until it is over.

        It is over, too, at the deadline, at a second signal, and when no byte moves any more; then
        no connection is waited for from now on.
        """
        server = self._server
        reported_at, moved_at, progress = 0.0, monotonic(), server.progress()
        while not is_over():
            now = monotonic()
            left = min(self._deadline, moved_at + STALLED_SECONDS) - now
            if now - reported_at >= STATUS_SECONDS:
                before, progress, reported_at = progress, server.progress(), now
                if moves := progress != before:
                    moved_at = now
                self._report_drain(moves=moves)
            if left <= 0 or self._wait(min(left, LOOK_SECONDS)) in STOP_SIGNALS:
                self._deadline = 0.0
                return

    def _report_drain(self, *, moves: bool) -> None:
        left, count = self._seconds_left, self._server.live
        status = f"Stopping on {self._reason}: {count} connections left, {left:.0f} s"
        if moves:
            self._report_stopping(status, left)
        elif count:
            self._notifier.status(status)

    def _report_stopping(self, status: str, drain_seconds: float) -> None:
        """Send systemd the state of the stop, and how long it may take."""
        seconds = min(drain_seconds, STALLED_SECONDS) + LONGEST_END_SECONDS
        self._notifier.stopping(status, seconds)

    def _summary(self, seconds: float, live: int, aborted: int, handed_over: int) -> Stopped:
        server, drained = self._server, max(0, live - aborted - handed_over)
        return Stopped.of(
            server.counters(),
            seconds=seconds,
            drained=drained,
            cut=aborted,
            handed_over=handed_over,
            records_lost=server.log_writer.lost,
        )
