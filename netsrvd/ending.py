"""The stop, in order: nobody new, hand over or drain, close what is left, the last record."""

import signal
from collections.abc import Callable
from dataclasses import astuple
from time import monotonic

from netsrvd.events.life import Stopped, Stopping
from netsrvd.house import House
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.reporting.notify import Notifier

LONGEST_END_SECONDS = 20.0
"""What a stop may take besides the drain, if every thread and the log have to be waited for."""

LOOK_SECONDS = 1.0
"""How often to tell systemd how the drain gets on."""

STALLED_SECONDS = 30.0
"""A drain is over when no byte has moved for so long."""

STOPS = {signal.SIGTERM, signal.SIGINT}

Wait = Callable[[float], int | None]
"""Returns the next signal within so many seconds, None if there was none."""


class Ending:
    """One stop of the daemon. Owned by the main thread."""

    def __init__(self, house: House, notifier: Notifier, wait: Wait, reason: str) -> None:
        self._house = house
        self._notifier = notifier
        self._wait = wait
        self._reason = reason

    def end(self, drain_seconds: float, run_seconds: float, *, is_followed: bool) -> None:
        """Stop, after a run of so long; all threads have ended and all is closed then.

        If the daemon is followed by another process that one gets the live connections. Those that
        cannot be given have so long to end by themselves.
        """
        house, notifier = self._house, self._notifier
        began_at, live = monotonic(), house.connections
        self._tell(f"Stopping on {self._reason}", drain_seconds)
        purpose = "restart" if is_followed else "stop"
        house.report(Stopping(self._reason, live, drain_seconds, purpose))
        guests: list[Guest] | None = [] if is_followed else None
        house.stop_listening(drain_seconds, guests)
        handed = 0 if guests is None else self._hand_over(guests)
        self._drain(drain_seconds)
        cut = house.stop_workers()
        house.report(self._summary(run_seconds + monotonic() - began_at, live, cut, handed))
        house.stop_reporting()
        notifier.close()

    def _hand_over(self, guests: list[Guest]) -> int:
        """Give the live connections to the next process; return how many.

        What cannot be given stays, to be drained; a record says why. Of the guests nobody has
        heard yet: as many as there is room for go along, the others are turned away.
        """
        from netsrvd import handover  # noqa: PLC0415 - most stops have nobody to follow
        from netsrvd.events.handover import HandedOver, NotHandedOver  # noqa: PLC0415 - so here

        house, began_at = self._house, monotonic()
        room = self._notifier.store_room - handover.OF_STATES
        given, left = handover.portable(house.surrender(room))
        if left:
            house.readmit(left)
        room = max(0, room - len(given))
        reason = (
            "they are of handlers, about to end, more than FileDescriptorStoreMax=, "
            "or have too much unsent"
        )
        if given or guests[:room]:
            try:
                handover.give(given, guests[:room], self._notifier)
                if given:
                    house.report(HandedOver(len(given), monotonic() - began_at))
            except Exception as error:  # noqa: BLE001 - of systemd or of a service: they live on
                house.readmit(given)
                given, reason = [], f"that fails: {error!r}"
        for guest in guests:
            guest.sock.close()
        if house.connections:
            house.report(NotHandedOver(house.connections, reason))
        return len(given)

    def _drain(self, seconds: float) -> None:
        """Wait until the last connection has ended.

        That is over when the time is up, a second signal comes, or nothing moves any more.
        """
        house = self._house
        moved_at, deadline = monotonic(), monotonic() + seconds
        progress = house.progress()
        while not house.drained:
            now = monotonic()
            left = deadline - now
            if house.progress() != progress:
                progress, moved_at = house.progress(), now
                self._tell(self._countdown(left), left)
            elif house.connections:
                self._notifier.status(self._countdown(left))
            left = min(left, moved_at + STALLED_SECONDS - now)
            if left <= 0 or self._wait(min(left, LOOK_SECONDS)) in STOPS:
                return

    def _countdown(self, left: float) -> str:
        count = self._house.connections
        return f"Stopping on {self._reason}: {count} connections left, {max(0.0, left):.0f} s"

    def _tell(self, status: str, drain_seconds: float) -> None:
        """Tell systemd what goes on, and that this needs no more time than so."""
        seconds = min(drain_seconds, STALLED_SECONDS) + LONGEST_END_SECONDS
        self._notifier.stopping(status, seconds)

    def _summary(self, seconds: float, live: int, cut: int, handed: int) -> Stopped:
        house, drained = self._house, max(0, live - cut - handed)
        return Stopped(
            *(seconds, drained, cut, handed, house.reporter.lost), *astuple(house.counters())
        )
