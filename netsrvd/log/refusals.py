"""Refusals: one record at once for each source and reason, then one with a count each window."""

from collections.abc import Callable
from math import inf

from netsrvd.addresses import proxy_fields, source
from netsrvd.contracts import Peer
from netsrvd.events import Event
from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.settings import ListenerSettings

REFUSED_SOURCES_KEPT = 1000
"""Sources and reasons that have records of their own at a time. Forged senders can be any number;
those beyond this one have records together, so that they cannot flood the log."""

OTHER_SOURCES = "others"


class RefusedSource:
    """A source that is refused for one reason."""

    __slots__ = ("since", "times", "total")

    def __init__(self, now: float) -> None:
        self.since = now
        self.times = 0
        """Refusals that no record has counted yet."""
        self.total = 1
        """All since it was refused for the first time."""


class RefusalLog:
    """What one listener refuses, by one protocol. Owned by its event loop."""

    __slots__ = ("_protocol", "_refused", "_report", "_settings", "due_at")

    def __init__(
        self, report: Callable[[Event], None], settings: ListenerSettings, protocol: str
    ) -> None:
        self._report = report
        self._settings = settings
        self._protocol = protocol
        self._refused: dict[tuple[str, str], RefusedSource] = {}
        self.due_at = inf
        """When `expire` has something to do."""

    def update(self, settings: ListenerSettings) -> None:
        """Use new settings from now on."""
        self._settings = settings
        self._plan()

    def add(
        self,
        refusal: tuple[str, str],
        peer: Peer,
        local: Peer,
        now: float,
        proxy: Peer | None = None,
    ) -> None:
        """Count one refusal; the first of a source for a reason is reported at once."""
        reason, rule = refusal
        key = source(peer[0]), reason
        refused = self._refused.get(key)
        if refused is None and len(self._refused) >= REFUSED_SOURCES_KEPT:
            key = OTHER_SOURCES, reason
            refused = self._refused.get(key)
        if refused is not None:
            refused.times += 1
            refused.total += 1
            return
        if not self._refused:
            self.due_at = now + self._settings.refusal_seconds
        self._refused[key] = RefusedSource(now)
        names = self._settings.name, self._settings.service, self._protocol
        self._report(Refused(*names, *peer, *local, *key, rule, *proxy_fields(proxy)))

    def sources(self) -> list[tuple[str, str, int]]:
        """Return each refused source and reason, with the number of times (any thread)."""
        return [(*key, refused.total) for key, refused in list(self._refused.items())]

    def expire(self, now: float, *, all_of_them: bool = False) -> None:
        """Report the sources whose window is over, and forget those without new refusals."""
        if not (all_of_them or now >= self.due_at):
            return
        window = self._settings.refusal_seconds
        names = self._settings.name, self._settings.service, self._protocol
        for key, refused in list(self._refused.items()):
            seconds = now - refused.since
            if seconds < window and not all_of_them:
                continue
            if refused.times:
                self._report(RefusedAgain(*names, *key, refused.times, seconds))
                refused.since, refused.times = now, 0
            else:
                del self._refused[key]
        self._plan()

    def _plan(self) -> None:
        since = min((each.since for each in self._refused.values()), default=inf)
        self.due_at = since + self._settings.refusal_seconds
