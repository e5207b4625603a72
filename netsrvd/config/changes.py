"""What a start or a reload has to do: pure comparisons of settings."""

from collections.abc import Collection, Iterator
from typing import NamedTuple, TypeVar

from netsrvd.config import overlaps
from netsrvd.config.overlaps import Taken
from netsrvd.errors import ConfigError
from netsrvd.settings import Endpoint, ListenerSettings, LogSettings, Settings

SOCKET_KEYS = ("backlog", "options")
"""Settings of a listener that its sockets are given when they are opened."""

UNIT_KEYS = ("host", "port")
"""Settings of a listener that sockets which systemd passed have from their unit."""

KEYS = {
    "drain_seconds": "drain_timeout",
    "idle_exit_seconds": "idle_exit",
    "queue_records": "queue",
    "hosts": "host",
    "proxy_seconds": "proxy_timeout",
    "idle_seconds": "idle_timeout",
    "write_seconds": "write_timeout",
    "flow_seconds": "flow_timeout",
    "refusal_seconds": "refusal_window",
    "reply_floor_bytes": "reply_floor",
}
"""The keys of the files where a field of the settings has another name, mostly for its unit."""

Table = TypeVar("Table", Settings, LogSettings, ListenerSettings)
Endpoints = dict[Endpoint, ListenerSettings]
Adopted = Collection[tuple[str, str]]
"""The listener and protocol of each socket that systemd passed."""


class Plan(NamedTuple):
    """The steps from the old settings to the new ones.

    An endpoint in `keep` keeps its socket and the queue of it, with new settings. `needs_restart`
    names what was changed but cannot change while the daemon runs, `of_units` what has no effect,
    as systemd has the sockets.
    """

    open: Endpoints
    keep: Endpoints
    close: tuple[Endpoint, ...]
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]
    of_units: tuple[str, ...]


def endpoints(settings: Settings, adopted: Adopted) -> Endpoints:
    """Return all that is to be served; what systemd passed sockets for is not bound besides."""
    found: Endpoints = {}
    for listener in settings.listeners:
        for endpoint in listener.endpoints():
            key = (endpoint.listener, endpoint.protocol)
            found[Endpoint(*key) if key in adopted else endpoint] = listener
    return found


def plan(old: Settings, new: Settings, adopted: Adopted) -> Plan:
    """Return the steps that lead from `old` to `new`.

    Raises ConfigError for a socket that cannot be opened because an overlapping one of ours would
    have to be closed first, which could refuse connections: that takes a restart; and for
    `orphans`.
    """
    before, after = endpoints(old, adopted), endpoints(new, adopted)
    names = {name for name, _ in adopted}
    opening = {end: listener for end, listener in after.items() if end not in before}
    served = Taken(before)
    in_the_way: dict[tuple[str, str], list[Endpoint]] = {}
    for one in opening:
        if other := served.overlapped(one):
            in_the_way.setdefault((one.listener, other.host), []).append(one)
    problems = [
        f"listener {name}: {overlaps.shown(both)} overlaps {host}, which is still served; restart "
        "netsrvd instead"
        for (name, host), both in in_the_way.items()
    ]
    problems += orphans(new, adopted)
    if problems:
        raise ConfigError(problems)
    return Plan(
        open=opening,
        keep={end: listener for end, listener in after.items() if end in before},
        close=tuple(end for end in before if end not in after),
        changed=tuple(_changed(old, new)),
        needs_restart=tuple(_needs_restart(old, new, names)),
        of_units=tuple(_of_units(old, new, names)),
    )


def orphans(settings: Settings, adopted: Adopted) -> list[str]:
    """Return a problem for each socket of systemd's that nobody would serve: a start refuses it."""
    served = {
        (listener.name, protocol)
        for listener in settings.listeners
        for protocol in listener.protocols
    }
    return [
        f"listener {name}: systemd has a {protocol} socket for it; take that out of the socket "
        f"unit first (systemctl cat netsrvd.socket), or leave the listener and its {protocol}"
        for name, protocol in sorted({*adopted} - served)
    ]


def _needs_restart(old: Settings, new: Settings, adopted: Collection[str]) -> list[str]:
    found = [] if old.workers == new.workers else ["workers"]
    found += [f"log.{name}" for name in _differing(old.log, new.log) if name != "level"]
    for name, key in _changed_keys(old, new):
        if key in SOCKET_KEYS or (key == "interface" and name in adopted):
            found.append(f"listener.{name}.{key}")
    return found


def _of_units(old: Settings, new: Settings, adopted: Collection[str]) -> list[str]:
    changed = _changed_keys(old, new)
    return [
        f"listener.{name}.{key}" for name, key in changed if name in adopted and key in UNIT_KEYS
    ]


def _changed_keys(old: Settings, new: Settings) -> Iterator[tuple[str, str]]:
    """Yield each listener that there is before and after, with each key of it that has changed."""
    before = {listener.name: listener for listener in old.listeners}
    for listener in new.listeners:
        if listener.name in before:
            for key in _differing(before[listener.name], listener):
                yield listener.name, key


def _changed(old: Settings, new: Settings) -> list[str]:
    before = {listener.name for listener in old.listeners}
    after = {listener.name for listener in new.listeners}
    found = [name for name in _differing(old, new) if name not in ("log", "listeners")]
    found += [f"log.{name}" for name in _differing(old.log, new.log)]
    found += [f"listener {name} is gone" for name in sorted(before - after)]
    found += [f"listener {name} is new" for name in sorted(after - before)]
    found += [f"listener.{name}.{key}" for name, key in _changed_keys(old, new)]
    return found


def _differing(one: Table, two: Table) -> list[str]:
    """Return the keys, as the files have them, of the fields that differ."""
    pairs = zip(one._fields, one, two, strict=True)
    return [KEYS.get(name, name) for name, before, after in pairs if before != after]
