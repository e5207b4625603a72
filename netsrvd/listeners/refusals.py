"""Refusals: told at once for each offender, and then once a window however many there are."""

from collections.abc import Callable
from math import inf

from netsrvd.addresses import proxy_fields, source
from netsrvd.events import Event
from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.settings import ListenerSettings

OFFENDERS = 1000
"""Offenders that are told apart at once. Forged senders are as many as somebody likes to forge;
beyond this number they are told together, so that they cannot flood the log."""

OTHERS = "others"

Peer = tuple[str, int]

NOT_CONFIGURED = "configuration", "the files do not name the address that it asked for"
"""Why what comes by a socket of systemd's is refused that the files contradict."""

Addresses = frozenset[str] | None
"""The local addresses that a socket serves (`addresses.is_among`); None for every one."""


class Offender:
    """One source that is refused for one reason."""

    __slots__ = ("since", "times")

    def __init__(self, now: float) -> None:
        self.since = now
        self.times = 0
        """Refusals that no record has told yet."""


class Refusals:
    """What one listener refuses, by one protocol. Owned by the thread that refuses."""

    __slots__ = ("_offenders", "_protocol", "_report", "_settings", "due_at")

    def __init__(
        self, report: Callable[[Event], None], settings: ListenerSettings, protocol: str
    ) -> None:
        self._report = report
        self._settings = settings
        self._protocol = protocol
        self._offenders: dict[tuple[str, str], Offender] = {}
        self.due_at = inf
        """When there is something to settle."""

    def update(self, settings: ListenerSettings) -> None:
        """Tell by new settings from now on."""
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
        """Take one refusal into account; the first of an offender is reported at once."""
        reason, rule = refusal
        key = source(peer[0]), reason
        offender = self._offenders.get(key)
        if offender is None and len(self._offenders) >= OFFENDERS:
            key = OTHERS, reason
            offender = self._offenders.get(key)
        if offender is not None:
            offender.times += 1
            return
        if not self._offenders:
            self.due_at = now + self._settings.refusal_seconds
        self._offenders[key] = Offender(now)
        names = self._settings.name, self._settings.service, self._protocol
        self._report(Refused(*names, *peer, *local, *key, rule, *proxy_fields(proxy)))

    def settle(self, now: float, *, all_of_them: bool = False) -> None:
        """Sum up the offenders whose window is over, and forget those who have stopped."""
        if not (all_of_them or now >= self.due_at):
            return
        window = self._settings.refusal_seconds
        names = self._settings.name, self._settings.service, self._protocol
        for key, offender in list(self._offenders.items()):
            seconds = now - offender.since
            if seconds < window and not all_of_them:
                continue
            if offender.times:
                self._report(RefusedAgain(*names, *key, offender.times, seconds))
                offender.since, offender.times = now, 0
            else:
                del self._offenders[key]
        self._plan()

    def _plan(self) -> None:
        since = min((each.since for each in self._offenders.values()), default=inf)
        self.due_at = since + self._settings.refusal_seconds
