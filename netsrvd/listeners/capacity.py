"""Whether a listener has room for one more connection: by its own limit, and by the daemon's."""

from collections.abc import Callable

from netsrvd.events.connections import ListenerFull, ListenerRelieved
from netsrvd.linux.mailbox import Mailbox
from netsrvd.listeners.contracts import Report
from netsrvd.listeners.places import Places
from netsrvd.settings import ListenerSettings


class Capacity:
    """The live connections of one listener. Owned by its acceptor's thread.

    While it is full somebody's leaving is to wake the thread by `mailbox`: see `awaits`.
    """

    __slots__ = (
        *("_full_since", "_mailbox", "_no_place", "_places", "_report", "_settings"),
        *("awaits", "live"),
    )

    def __init__(
        self, settings: ListenerSettings, places: Places, report: Report, mailbox: Mailbox
    ) -> None:
        self._settings = settings
        self._places = places
        self._report = report
        self._mailbox = mailbox
        self._full_since = 0.0
        self._no_place = False
        self.live = 0
        self.awaits = False
        """Whether who leaves must wake the thread (read by workers)."""

    def update(self, settings: ListenerSettings) -> None:
        """Count by new settings from now on."""
        self._settings = settings

    @property
    def left(self) -> int:
        """How many more the listener's own limit allows."""
        return self._settings.max_connections - self.live

    def take(self) -> bool:
        """Take a place of the daemon for one more; False if there is none."""
        taken = self._places.take()
        self._no_place = not taken
        return taken

    def take_anyway(self) -> None:
        """Count in one more for whom there must be room."""
        self._places.take_anyway()
        self.live += 1

    def give_back(self) -> None:
        """Give a place of the daemon back (any thread)."""
        self._places.give_back()

    def departed(self, tell: Callable[[str], None], source: str) -> None:
        """Take note that one has left, of which `tell` is to be called in time (any thread)."""
        self._places.give_back()
        self._mailbox.leave(tell, source)
        if self.awaits:
            self._mailbox.wake()

    @property
    def is_out_of_places(self) -> bool:
        """Whether the daemon had no more place a moment ago (any thread)."""
        return self._places.are_none

    def is_full(self, now: float) -> bool:
        """Return whether those who come must wait, and report it when it begins."""
        # From here on a departure wakes the thread; those that came before are in the mailbox.
        self.awaits = self.left <= 0 or self._full_since > 0
        if self.awaits:
            self._mailbox.deliver()
        most = self._settings.max_connections
        if self._no_place:
            self._no_place = not self._places.are_left(self._mailbox.wake)
        full = self.live >= most
        if (full or self._no_place) and not self._full_since:
            self._full_since = now
            whose, count = ("its", most) if full else ("the daemon's", self._places.count)
            limit = f"{whose} max_connections = {count}"
            self._report(ListenerFull(self._settings.name, self.live, limit))
        return full or self._no_place

    @property
    def has_room(self) -> bool:
        """Whether it was full and clearly is no longer, unless somebody waits for room."""
        if not self._full_since:
            return False
        return self.live <= self._settings.max_connections * 9 // 10 and self._places.are_many

    def relieved(self, now: float) -> None:
        """Take note that nobody waits any more."""
        seconds, self._full_since = now - self._full_since, 0.0
        self._report(ListenerRelieved(self._settings.name, self.live, seconds))
