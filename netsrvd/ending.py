"""The stop, in order: nobody new, hand over or drain, close what is left, the last record."""

import signal
from collections.abc import Callable
from time import monotonic

from netsrvd.events.life import NotHandedOver, Stopped, Stopping
from netsrvd.house import House
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.reporting.notify import Notifier
from netsrvd.tracebacks import described, place_of

LONGEST_END_SECONDS = 20.0
"""What a stop may take besides the drain, if every thread and the log have to be waited for."""

LOOK_SECONDS = 0.05
"""How often to look whether a drain is over; its usual end wakes it."""

TELL_SECONDS = 1.0
"""How often to tell systemd how it gets on."""

STALLED_SECONDS = 30.0
"""A drain is over when no byte has moved for so long."""

STAYING = "they are about to end, more than FileDescriptorStoreMax=, or have too much unsent"

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
        self._keeps_sockets = True
        self._deadline = 0.0
        """When to wait for connections no longer."""

    def end(
        self,
        drain_seconds: float,
        run_seconds: float,
        *,
        is_followed: bool,
        may_be_followed: bool = False,
        keeps_sockets: bool = True,
    ) -> None:
        """Stop, after a run of so long; all threads have ended and all is closed then.

        If the daemon is followed by another process that one gets the live connections. Those that
        cannot be given have so long to end by themselves. If it only `may_be_followed`, all
        connections have this time, and the next process gets those that are left. Unless it
        `keeps_sockets`, the sockets that the daemon has bound are closed.
        """
        house, notifier = self._house, self._notifier
        began_at, live, came = monotonic(), house.connections, house.counters().accepted
        self._deadline = began_at + drain_seconds
        self._keeps_sockets = keeps_sockets
        self._tell(f"Stopping on {self._reason}", drain_seconds)
        purpose = "restart" if is_followed else "stop"
        house.report(Stopping(self._reason, live, drain_seconds, purpose))
        handed = 0
        if is_followed or may_be_followed:
            handed = self._hand_over(drains_all=not is_followed)
        else:
            house.stop_listening(drain_seconds)
        if not handed:
            self._drain(lambda: house.drained)
        cut = house.stop_workers()
        live += house.counters().accepted - came
        house.report(self._summary(run_seconds + monotonic() - began_at, live, cut, handed))
        house.stop_reporting()
        notifier.close()

    @property
    def _seconds_left(self) -> float:
        """How long connections are still waited for."""
        return max(0.0, self._deadline - monotonic())

    def _hand_over(self, *, drains_all: bool) -> int:
        """Take nobody new, and give the live connections to the next process; return how many.

        Of the guests nobody has heard yet: as many as there is room for go along. With `drains_all`
        the connections that could go along have the time to end by themselves, too.
        """
        house = self._house
        guests: list[Guest] = []
        surrendered: list[Connection] = []
        try:
            return self._give(guests, surrendered, drains_all=drains_all)
        except Exception as error:  # noqa: BLE001 - of systemd, a service, or files of another version
            house.readmit(surrendered)
            house.stop_listening(self._seconds_left)
            fault = f"that fails: {described(error)} at {place_of(error)}"
            if count := house.connections:
                house.report(NotHandedOver(count, fault))
            return 0
        finally:
            for guest in guests:
                guest.sock.close()

    def _give(self, guests: list[Guest], surrendered: list[Connection], *, drains_all: bool) -> int:
        """Hand over what can be; return the number of connections.

        Whoever waits for the header of its proxy is put into `guests`, and the connections that no
        thread serves are in `surrendered` if this raises.
        """
        from netsrvd import handover  # noqa: PLC0415 - most stops have nobody to follow
        from netsrvd.events.handover import HandedOver  # noqa: PLC0415 - so here

        house = self._house
        bound = house.bound_sockets if self._keeps_sockets and not drains_all else []
        taken = handover.OF_STATES + handover.keep(bound, self._notifier)
        room = max(0, self._notifier.store_room - taken)
        if drains_all:
            house.stop_listening(self._seconds_left, guests)
            self._drain(lambda: house.drained)
        else:
            self._drain_the_staying(room, guests)
        began_at = monotonic()
        surrendered += house.staff.surrender()
        given, left = handover.portable(surrendered, room)
        surrendered[:] = given
        if left:
            house.readmit(left)
        fit = guests[: room - len(given)]
        if given or fit:
            handover.give(given, fit, self._notifier)
        surrendered.clear()
        if given:
            house.report(HandedOver(len(given), monotonic() - began_at))
        return len(given)

    def _drain_the_staying(self, room: int, guests: list[Guest]) -> None:
        """Take nobody new, and drain those that cannot be given; a record says why. All others are
        served meanwhile and, while only handlers are in the way, taken as well.

        Those who wait for the headers of their proxies are put into `guests`.
        """
        from netsrvd.handover import portable  # noqa: PLC0415 - as above

        house, staff = self._house, self._house.staff

        def staying() -> int:
            fit, _ = portable(staff.movable(), room)
            return max(0, house.connections - staff.handled - len(fit))

        def is_full() -> bool:
            return len(staff.movable()) >= room

        house.stop_handling(self._seconds_left, guests)
        if count := staff.handled:
            house.report(NotHandedOver(count, "they are of handlers"))
            self._drain(lambda: not staff.handled or is_full())
        house.stop_listening(self._seconds_left, guests)
        if count := staying():
            house.report(NotHandedOver(count, STAYING))
        self._drain(lambda: not (staff.handled or staying()))

    def _drain(self, is_over: Callable[[], bool]) -> None:
        """Wait until it is over.

        It is, too, when the time is up, a second signal comes, or nothing moves any more; then
        nobody is waited for from now on.
        """
        house = self._house
        told_at, moved_at, progress = 0.0, monotonic(), house.progress()
        while not is_over():
            now = monotonic()
            left = min(self._deadline, moved_at + STALLED_SECONDS) - now
            if now - told_at >= TELL_SECONDS:
                before, progress, told_at = progress, house.progress(), now
                if moves := progress != before:
                    moved_at = now
                self._tell_drain(moves=moves)
            if left <= 0 or self._wait(min(left, LOOK_SECONDS)) in STOPS:
                self._deadline = 0.0
                return

    def _tell_drain(self, *, moves: bool) -> None:
        left, count = self._seconds_left, self._house.connections
        status = f"Stopping on {self._reason}: {count} connections left, {left:.0f} s"
        if moves:
            self._tell(status, left)
        elif count:
            self._notifier.status(status)

    def _tell(self, status: str, drain_seconds: float) -> None:
        """Tell systemd what goes on, and that this needs no more time than so."""
        seconds = min(drain_seconds, STALLED_SECONDS) + LONGEST_END_SECONDS
        self._notifier.stopping(status, seconds)

    def _summary(self, seconds: float, live: int, cut: int, handed: int) -> Stopped:
        house, drained = self._house, max(0, live - cut - handed)
        return Stopped(
            *(seconds, drained, cut, handed, house.reporter.lost), **vars(house.counters())
        )
