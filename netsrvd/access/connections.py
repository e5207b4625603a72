"""Which connections are admitted: by address, and by the number and rate of their source."""

from typing import NamedTuple

from netsrvd.access.access_list import AccessList
from netsrvd.access.sources import Limits, Source, Sources, share
from netsrvd.settings import ListenerSettings

KNOWN_KEPT = 1024
"""Addresses whose `Known` is kept; each takes 200 bytes and saves 3 µs."""


class Known(NamedTuple):
    """The result of the configuration for one address."""

    host: str
    """The address: one text for all of its connections, instead of 64 bytes for each."""
    denied_by: str
    """The rule of `allow`, `deny` or `proxies` that refuses it, or nothing."""
    is_proxy: bool
    is_unlogged: bool
    """Whether its connections have no records of their beginning and end."""
    source: str
    limits: Limits | None


class ConnectionPolicy:
    """The policy of a listener's connections. Owned by the tcp event loop."""

    __slots__ = (
        *("_access", "_known", "_limits", "_most", "_proxies", "_rate_rule", "_sources"),
        *("_settings", "_unlimited", "_unlogged"),
    )

    def __init__(self, settings: ListenerSettings) -> None:
        self._sources = Sources()
        self._settings: ListenerSettings | None = None
        self.update(settings)

    def update(self, settings: ListenerSettings) -> bool:
        """Use new settings from now on; live connections are still counted.

        Return False, with nothing done, if they are the same as before.
        """
        if settings == self._settings:
            return False
        self._settings = settings
        self._access = AccessList(settings.allow, settings.deny, settings.proxies)
        self._proxies = AccessList(settings.proxies, settings.deny)
        self._unlimited = AccessList(settings.unlimited)
        self._unlogged = AccessList(settings.unlogged)
        self._limits = Limits(settings.connection_rate, settings.connection_burst)
        self._most = settings.max_connections_per_source
        self._rate_rule = f"connection_rate = {settings.connection_rate:g} a second is exceeded"
        self._known: dict[str, Known] = {}
        self._sources.renew(self._limits)
        return True

    def look_up(self, host: str) -> Known:
        """Return the result of the configuration for an address."""
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= KNOWN_KEPT:
                self._known.clear()
            shared = share(host, self._unlimited, self._limits)
            is_proxy = not self._proxies.denied_by(host)
            is_unlogged = not self._unlogged.denied_by(host)
            rule = self._access.denied_by(host)
            known = self._known[host] = Known(host, rule, is_proxy, is_unlogged, *shared)
        return known

    def admit(self, known: Known, now: float) -> tuple[Source, None] | tuple[None, tuple[str, str]]:
        """Count a new connection of an address; return its source, for `release`.

        Or return the reason and the rule that refuse it.
        """
        if known.denied_by:
            return None, ("access", known.denied_by)
        source = self._sources.find(known.source, known.limits)
        if source.limited:
            if source.live >= self._most:
                return None, ("source", f"max_connections_per_source = {self._most} are live")
            if source.exceeds(0, now):
                return None, ("rate", self._rate_rule)
        self._sources.acquire(source)
        return source, None

    def acquire(self, known: Known) -> Source:
        """Count a connection that another process accepted; return its source, for `release`."""
        source = self._sources.find(known.source, known.limits)
        self._sources.acquire(source)
        return source

    def release(self, source: Source) -> None:
        """Count the end of a connection of this source."""
        self._sources.release(source.name)

    def denied_by(self, host: str) -> str:
        """Return the rule of `allow`, `deny` or `proxies` that refuses an address, or nothing."""
        return self.look_up(host).denied_by

    def is_proxy(self, host: str) -> bool:
        """Return whether connections of this address name their clients."""
        return self.look_up(host).is_proxy
