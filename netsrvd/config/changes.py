"""What a start or a reload has to do: pure comparisons of settings."""

from collections.abc import Collection, Iterator
from typing import NamedTuple, TypeVar

from netsrvd.config import overlaps
from netsrvd.config.overlaps import PortConflicts
from netsrvd.errors import ConfigError
from netsrvd.settings import Endpoint, ListenerSettings, LogSettings, Settings

SOCKET_KEYS = ("backlog", "options")
"""Settings of a listener that its sockets are given when they are opened."""

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
    "stamp_clock_error_seconds": "stamp_clock_error",
}
"""The keys of the files where a field of the settings has another name, mostly for its unit."""

Table = TypeVar("Table", Settings, LogSettings, ListenerSettings)
Endpoints = dict[Endpoint, ListenerSettings]
ActivatedSocket = Collection[tuple[str, str]]
"""The listeners and protocols for which a socket that systemd passed serves."""


class Plan(NamedTuple):
    """The steps from the old settings to the new ones.

    An endpoint in `keep` keeps its socket and the queue of it, with new settings. Those in `retry`
    were wanted before and could not be opened. `needs_restart` names what was changed but cannot
    change while the daemon runs.
    """

    open: Endpoints
    retry: Endpoints
    keep: Endpoints
    close: tuple[Endpoint, ...]
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


def endpoints(settings: Settings, passed: ActivatedSocket) -> Endpoints:
    """Return all that is to be bound: nothing for which a passed socket serves."""
    return {
        endpoint: listener
        for listener in settings.listeners
        for endpoint in listener.endpoints()
        if (endpoint.listener, endpoint.protocol) not in passed
    }


def plan(
    old: Settings,
    new: Settings,
    bound: Collection[Endpoint],
    before: Collection[Endpoint],
    wanted: Endpoints,
) -> Plan:
    """Return the steps that lead from `old` to `new`.

    `bound` is what the daemon has bound, `before` what it was to bind by the old settings, `wanted`
    by the new ones. Raises ConfigError for a socket that cannot be opened because an overlapping
    one of ours would have to be closed first, which could refuse connections: that takes a restart.
    """
    missing = {end: listener for end, listener in wanted.items() if end not in bound}
    served = PortConflicts(bound)
    in_the_way: dict[tuple[str, str], list[Endpoint]] = {}
    for one in missing:
        if other := served.find_conflict(one):
            in_the_way.setdefault((one.listener, other.host), []).append(one)
    problems = [
        f"listener {name}: {overlaps.shown(both)} overlaps {host}, which is still served; restart "
        "netsrvd instead"
        for (name, host), both in in_the_way.items()
    ]
    if problems:
        raise ConfigError(problems)
    return Plan(
        open={end: listener for end, listener in missing.items() if end not in before},
        retry={end: listener for end, listener in missing.items() if end in before},
        keep={end: listener for end, listener in wanted.items() if end in bound},
        close=tuple(end for end in bound if end not in wanted),
        changed=tuple(_changed(old, new)),
        needs_restart=tuple(_needs_restart(old, new)),
    )


def _needs_restart(old: Settings, new: Settings) -> list[str]:
    found = [f"log.{name}" for name in _differing(old.log, new.log) if name != "level"]
    found += [
        f"listener.{name}.{key}" for name, key in _changed_keys(old, new) if key in SOCKET_KEYS
    ]
    return found


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
