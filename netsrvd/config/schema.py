"""The rules of the configuration: the keys and their values."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from netsrvd.config import overlaps, values
from netsrvd.config.overlaps import PortConflicts
from netsrvd.config.values import Type
from netsrvd.events import LEVELS
from netsrvd.settings import (
    DEFAULT_SERVICE,
    LARGEST_DATAGRAM,
    Endpoint,
    ListenerSettings,
    LogSettings,
    OptionValue,
    Settings,
)

YEAR = 365 * 86400.0
TERABYTE = 1 << 40
MOST_HINTS = 100
"""To look for the nearest of all socket options takes 0.4 ms, to list them 2 KB."""

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"

Tree = Mapping[str, Any]


class Rule(NamedTuple):
    """One key: the kind of its value, and the field of the settings that it fills."""

    key: str
    kind: Type
    other: str = ""
    """The name of the field if it is not that of the key, mostly for its unit."""

    @property
    def field(self) -> str:
        """Return the name of the field."""
        return self.other or self.key


class Validators(NamedTuple):
    """The names that other packages define, and the checks of their values."""

    service_reader: Callable[[], Callable[[object], str]]
    """Is asked once for each configuration. What it returns raises ValueError, whose text says what
    was expected."""
    options: Collection[str]
    read_option: Callable[[str, object], OptionValue]
    """Raises ValueError, whose text is the whole complaint."""
    read_access: Callable[[object], str]
    """Raises ValueError, whose text says what was expected; so does the next one."""
    read_ports: Callable[[object], str]


class Problem(NamedTuple):
    """One fault, at one key; the reader of the files knows in which file that key stands."""

    path: tuple[str, ...]
    text: str


GLOBAL_RULES = (
    Rule("workers", values.integer(0, 64)),
    Rule("max_connections", values.integer(0, 1_000_000)),
    Rule("drain_timeout", values.duration(0, 86400.0), "drain_seconds"),
    Rule("idle_exit", values.duration(0, YEAR), "idle_exit_seconds"),
)
UNUSED = (("workers",),)
"""Keys that older versions used: they are read, and a warning names them."""

LOG_RULES = (
    Rule("target", values.choice(("auto", "journal", "syslog", "stderr"))),
    Rule("level", values.choice(tuple(LEVELS))),
    Rule("queue", values.integer(100, 1_000_000), "queue_records"),
    Rule("when_full", values.choice(("drop", "wait"))),
)
NAMES = values.list_of(
    values.matching(NAME, "names of listeners").read, may_be_empty=True, what="a list of names"
)
SERVICE_RULES = (
    Rule("daytime_format", values.choice(("iso", "weekday", "smtp"))),
    Rule("quotes", values.path()),
    Rule("active_listeners", NAMES),
    Rule("stamp_key", values.key_source()),
    Rule("stamp_stateful", values.boolean()),
    Rule("stamp_ssids", values.integers(1, 65535)),
    Rule("stamp_dscps", values.integers(0, 63)),
    Rule("stamp_clock", values.choice(("local", "ntp", "ptp", "gps"))),
    Rule("stamp_clock_error", values.duration(0, YEAR), "stamp_clock_error_seconds"),
)
"""What single services need, in the table of a listener."""

SERVICE_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"metrics": {"protocols": ("tcp",), "allow": ("loopback",), "unlogged": ("any",)}}
)
"""Fields of a listener whose defaults are others for a service."""

TCP_ALONE = frozenset({"metrics"})
"""Services that datagrams cannot have."""


def listener_rules(words: Validators) -> tuple[Rule, ...]:
    """Return the rules of a `[listener.NAME]` table, but for `enabled` and `options`."""
    access = values.list_of(
        words.read_access, may_be_empty=True, what="a list of addresses, networks and words"
    )
    return (
        Rule("service", Type(words.service_reader(), values.identity)),
        Rule(
            "protocols",
            values.list_of(
                values.choice(("tcp", "udp")).read, may_be_empty=False, what='"tcp", "udp" or both'
            ),
        ),
        Rule(
            "host",
            values.list_of(values.address, may_be_empty=True, what="a list of IP addresses"),
            "hosts",
        ),
        Rule("port", values.integer(1, 65535, "a port")),
        Rule("interface", values.interface()),
        Rule("backlog", values.integer(1, 65535)),
        Rule("allow", access),
        Rule("deny", access),
        Rule("unlogged", access),
        Rule("unlimited", access),
        Rule("proxies", access),
        Rule("proxy_timeout", values.duration(0.1, 3600.0), "proxy_seconds"),
        Rule("max_connections", values.integer(1, 1_000_000)),
        Rule("max_connections_per_source", values.integer(1, 1_000_000)),
        Rule("connection_rate", values.integer(0, 1_000_000)),
        Rule("connection_burst", values.integer(1, 1_000_000)),
        Rule(
            "refused_ports",
            values.list_of(words.read_ports, may_be_empty=True, what="a list of ports and words"),
        ),
        Rule("datagram_rate", values.integer(0, 10_000_000)),
        Rule("datagram_burst", values.integer(1, 10_000_000)),
        Rule("byte_rate", values.size(0, TERABYTE)),
        Rule("byte_burst", values.size(LARGEST_DATAGRAM, TERABYTE)),
        Rule("reply_rate", values.size(0, TERABYTE)),
        Rule("reply_floor", values.size(0, LARGEST_DATAGRAM), "reply_floor_bytes"),
        Rule("handler_threads", values.integer(1, 1000)),
        Rule("max_flows", values.integer(1, 1_000_000)),
        Rule("idle_timeout", values.duration(0, YEAR), "idle_seconds"),
        Rule("write_timeout", values.duration(0, YEAR), "write_seconds"),
        Rule("max_connection_seconds", values.duration(0, YEAR)),
        Rule("stamp_senders", access),
        Rule("flow_timeout", values.duration(0.001, 86400.0), "flow_seconds"),
        Rule("refusal_window", values.duration(0.1, 86400.0), "refusal_seconds"),
        *SERVICE_RULES,
    )


def read_settings(tree: Tree, words: Validators) -> tuple[Settings, list[Problem]]:
    """Return the settings that a merged configuration means, and all faults that it has.

    Where there are faults the settings are not to be used.
    """
    problems: list[Problem] = []
    given = _table(tree, (), problems)
    tables = {key: given.pop(key, {}) for key in ("log", "listener")}
    found = _fill(given, (), GLOBAL_RULES, ("log", "listener"), problems)
    log = _table(tables["log"], ("log",), problems)
    found["log"] = LogSettings(**_fill(log, ("log",), LOG_RULES, (), problems))
    found["listeners"] = _listeners(tables["listener"], words, problems)
    return Settings(**found), problems


def _listeners(
    table: object, words: Validators, problems: list[Problem]
) -> tuple[ListenerSettings, ...]:
    named = {"echo": {}} | _table(table, ("listener",), problems)
    rules = listener_rules(words)
    found, sound = [], []
    for name, entry in named.items():
        faults_before = len(problems)
        path = ("listener", name)
        if not re.fullmatch(NAME, name):
            problems.append(Problem(path, "expected a name of letters, digits and _ . -"))
        given = _table(entry, path, problems)
        enabled = _read(given.pop("enabled", True), (*path, "enabled"), values.boolean(), problems)
        options = _options(given.pop("options", {}), (*path, "options"), words, problems)
        filled = _fill(given, path, rules, ("enabled", "options"), problems)
        if enabled is not False:
            base = by_default(name, filled.get("service", DEFAULT_SERVICE))
            found.append(base._replace(options=options, **filled))
            problems += _datagrams(found[-1])
            if len(problems) == faults_before:
                sound.append(found[-1])
    if not found:
        problems.append(Problem(("listener",), "none is enabled, so nothing would be served"))
    problems += _conflicts(sound)
    problems += _unknown_references(found, named)
    return tuple(found)


def by_default(name: str, service: str) -> ListenerSettings:
    """Return the settings of a listener of which a file says nothing but this."""
    defaults = SERVICE_DEFAULTS.get(service, {})
    return ListenerSettings(name, service, **defaults)


def _options(
    table: object, path: tuple[str, ...], words: Validators, problems: list[Problem]
) -> Mapping[str, OptionValue]:
    found = dict(ListenerSettings("").options)
    for name, value in _table(table, path, problems).items():
        if name not in words.options:
            problems.append(_unknown((*path, name), "socket option", words.options, problems))
            continue
        try:
            found[name] = words.read_option(name, value)
        except ValueError as error:
            problems.append(Problem((*path, name), str(error)))
    return MappingProxyType(found)


def _fill(
    given: dict[str, Any],
    path: tuple[str, ...],
    rules: Iterable[Rule],
    others: tuple[str, ...],
    problems: list[Problem],
) -> dict[str, Any]:
    """Return the fields that a table sets; `others` are keys that are read elsewhere."""
    by_key = {rule.key: rule for rule in rules}
    found = {}
    for key, value in given.items():
        rule = by_key.get(key)
        if rule is None:
            problems.append(_unknown((*path, key), "key", (*by_key, *others), problems))
            continue
        read = _read(value, (*path, key), rule.kind, problems)
        if read is not None:
            found[rule.field] = read
    return found


def _read(value: object, path: tuple[str, ...], kind: Type, problems: list[Problem]) -> Any:
    try:
        return kind.read(value)
    except ValueError as error:
        problems.append(Problem(path, f"expected {error}"))
        return None


def _table(value: object, path: tuple[str, ...], problems: list[Problem]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    problems.append(Problem(path, "expected a table"))
    return {}


def _unknown(
    path: tuple[str, ...], what: str, known: Collection[str], before: Collection[Problem]
) -> Problem:
    """Return the problem of an unknown key, with a hint unless there were many before."""
    if len(before) >= MOST_HINTS:
        return Problem(path, f"unknown {what}")
    import difflib  # noqa: PLC0415 - only for faults

    [*near] = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(sorted(known))}"
    return Problem(path, f"unknown {what}{hint}")


def _conflicts(listeners: list[ListenerSettings]) -> list[Problem]:
    """Return a problem for each listener that wants what another one, or itself, wants as well."""
    taken = PortConflicts()
    found: dict[tuple[str, str], list[Endpoint]] = {}
    for two in (endpoint for listener in listeners for endpoint in listener.endpoints()):
        if one := taken.find_conflict(two):
            found.setdefault((two.listener, one.listener), []).append(two)
        taken.add(two)
    return [
        Problem(
            ("listener", name, "port"),
            f"{overlaps.shown(both)} is also wanted by listener {other}; give one of them another "
            "port, host or interface",
        )
        for (name, other), both in found.items()
    ]


def _datagrams(listener: ListenerSettings) -> list[Problem]:
    """Return the problem of a listener that wants datagrams for a service that has none."""
    if listener.service not in TCP_ALONE or listener.protocols == ("tcp",):
        return []
    text = f'the service {listener.service} is served by TCP alone; write protocols = "tcp"'
    return [Problem(("listener", listener.name, "protocols"), text)]


def _unknown_references(listeners: list[ListenerSettings], known: Collection[str]) -> list[Problem]:
    """Return a problem for each listener that is named by another and is not there."""
    found = []
    for listener in listeners:
        if missing := [name for name in listener.active_listeners if name not in known]:
            text = f"there is no listener {', '.join(missing)}"
            found.append(Problem(("listener", listener.name, "active_listeners"), text))
    return found


def effective(settings: Settings, words: Validators) -> list[tuple[tuple[str, ...], Any]]:
    """Return every key with the TOML value that is in force, in the order of the rules."""
    rows: list[tuple[tuple[str, ...], Any]]
    rows = [((rule.key,), _shown(settings, rule)) for rule in GLOBAL_RULES]
    rows += [(("log", rule.key), _shown(settings.log, rule)) for rule in LOG_RULES]
    rules = listener_rules(words)
    for listener in settings.listeners:
        path = ("listener", listener.name)
        rows += [((*path, rule.key), _shown(listener, rule)) for rule in rules]
        rows += [((*path, "options", name), value) for name, value in listener.options.items()]
    names = {listener.name for listener in settings.listeners}
    there_by_default = {listener.name for listener in Settings().listeners}
    rows += [(("listener", name, "enabled"), False) for name in there_by_default - names]
    return rows


def _shown(settings: object, rule: Rule) -> Any:
    return rule.kind.show(getattr(settings, rule.field))
