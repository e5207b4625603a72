"""Compares the configuration with the socket units of systemd, and says what is to change: pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from netsrvd.errors import SystemdError
from netsrvd.settings import Endpoint, ListenerSettings, Settings
from netsrvd.sockets.matching import Facts, Listeners, Match, Named, uncovered
from netsrvd.systemd.unit_files import UnitFile, drop_in, interface, unit_files
from netsrvd.systemd.units import Unit, described


class Target(NamedTuple):
    """A service of netsrvd: the only one, or one of several instances."""

    service: str
    instance: str = ""
    is_running: bool = False
    is_wanted: bool = False
    """Whether it is to run all the time and has failed, so that it is to be started again."""
    units: tuple[Unit, ...] = ()
    """All socket units that start it, or that may."""
    stamp: str = ""
    """Differs after each start and reload."""
    started_at: float = 0.0
    """In seconds of the epoch, rounded down."""
    pid: int = 0
    """Its main process; 0 for none."""

    def own(self, name: str) -> str:
        """Return the name that a unit or a template has for this service."""
        return name.replace("@.", f"@{self.instance}.") if self.instance else name

    def general(self, name: str) -> str:
        """Return the name of the template that a unit of this service is made from."""
        return name.replace(f"@{self.instance}.", "@.") if self.instance else name


class Host(NamedTuple):
    """What there is on this host now."""

    targets: tuple[Target, ...]
    written: Mapping[str, str]
    """The texts of the socket units that `netsrvd apply` has written, by their names."""
    foreign_files: Collection[str] = ()
    """Other socket units in the same folder."""
    drop_in: str = ""
    """The text of the service's drop-in; empty if there is none."""
    has_devices: bool = True
    config: Path | None = None
    """The configuration file that the service is given; None for the default one."""
    remembered: Collection[str] = ()
    """Units by others that served in the state to which the administrator wants to return."""

    @property
    def instances(self) -> bool:
        """Whether there are several services."""
        return bool(self.targets[0].instance)

    @property
    def service(self) -> str:
        """The unit of the service, or its template."""
        return "netsrvd@.service" if self.instances else "netsrvd.service"

    @property
    def shipped(self) -> str:
        """The socket unit that the package has."""
        return "netsrvd@.socket" if self.instances else "netsrvd.socket"


class Change(NamedTuple):
    """What is to be done with one unit."""

    unit: str
    action: str
    """new, changed, removed, disabled, renewed, enabled or started."""
    old: str = ""
    new: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        """The line for people, old -> new."""
        if self.action == "new":
            return f"{self.unit}: new: {self.new}"
        if self.action == "changed" and self.old == self.new:
            return f"{self.unit}: {self.new}, with other options"
        if self.action == "changed":
            return f"{self.unit}: {self.old} -> {self.new}"
        if self.action == "disabled":
            return f"{self.unit}: {self.old} -> stopped and disabled: {self.reason}"
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.unit}: {self.old} -> {self.action}{reason}"


class Steps(NamedTuple):
    """What is to be done for one service."""

    target: Target
    stop: tuple[str, ...]
    start: tuple[str, ...]
    enable: tuple[str, ...]
    disable: tuple[str, ...]
    sockets: tuple[str, ...]
    """Its socket units when all is done."""


class Plan(NamedTuple):
    """The way from what there is to what the configuration says."""

    changes: tuple[Change, ...]
    steps: tuple[Steps, ...]
    write: Mapping[str, str]
    """Texts of socket units, by their names."""
    remove: tuple[str, ...]
    """Names of socket units."""
    drop_in: str
    """The text that the service's drop-in is to have; empty for none."""
    has_new_drop_in: bool
    serving: tuple[tuple[str, str, str], ...]
    """Each listener, a unit of it, and its addresses when all is done."""
    kept: tuple[str, ...]
    """The units by others among them."""
    sockets: tuple[Facts, ...]
    """All sockets when all is done."""

    @property
    def needs_units(self) -> bool:
        """Whether anything of systemd's has to change."""
        return bool(self.changes or self.remove) or self.has_new_drop_in


def plan(settings: Settings, named: Named, host: Host) -> Plan:
    """Return what is to change so that socket units serve what the configuration says.

    A unit by others that serves what the files say is left as it is, one that does not is stopped
    and disabled; its file is never changed. `named` are the keys that the files have for each
    listener: a unit by others is compared with these alone. Raises SystemdError where a file by
    others is in the way.
    """
    found = _by_others(host)
    listeners = Listeners(settings.listeners, named)
    kept = _kept(found, listeners, named)
    served = _matched(kept.values(), listeners)
    wanted = [
        unit_file
        for listener in settings.listeners
        for unit_file in unit_files(
            listener,
            _missing(listener, served.get(listener.name, ()), named),
            instances=host.instances,
            has_devices=host.has_devices,
        )
    ]
    _raise_if_in_the_way(wanted, host, listeners, named)
    names = [*kept, *(each.name for each in wanted)]
    text = "" if names == [host.shipped] else drop_in(host.service, [_specifier(n) for n in names])
    retired = {
        name: _complaint(unit, listeners, named)
        for name, unit in found.items()
        if name not in kept and _in_use_anywhere(name, host)
    }
    changes, steps = [], []
    for target in host.targets:
        each = _Comparison(target, host.written)
        each.compare(wanted, kept, retired)
        changes += each.changes
        steps.append(each.steps(names))
    known = {*names}
    gone = tuple(name for name in host.written if name not in known)
    return Plan(
        tuple(dict.fromkeys(changes)),
        tuple(steps),
        {each.name: each.text for each in wanted if host.written.get(each.name) != each.text},
        gone,
        text,
        text != host.drop_in,
        tuple(_serving(wanted, kept, settings, listeners)),
        tuple(kept),
        (
            *(facts for each in wanted for facts in facts_of(each)),
            *(facts for unit in kept.values() for facts in unit.sockets),
        ),
    )


class _Comparison:
    """What is to be done for one service. Owned by `plan`."""

    def __init__(self, target: Target, written: Mapping[str, str]) -> None:
        self.changes: list[Change] = []
        self._target = target
        self._written = written
        self._units = {unit.name: unit for unit in target.units}
        self._stop: list[str] = []
        self._start: list[str] = []
        self._enable: list[str] = []
        self._disable: list[str] = []

    def compare(
        self, wanted: Sequence[UnitFile], kept: Mapping[str, Unit], retired: Mapping[str, str]
    ) -> None:
        """Compare the units of the service with those that are wanted, kept and retired."""
        for name, reason in retired.items():
            unit = self._unit(name)
            if unit.is_in_use:
                self._leave(unit)
                self.changes.append(Change(unit.name, "disabled", unit.addresses, "", reason))
        names = {each.name for each in wanted}
        for name in self._written:
            unit = self._unit(name)
            if name not in names and (unit.is_in_use or not _is_template(name)):
                self._leave(unit)
                self.changes.append(Change(unit.name, "removed", unit.addresses))
        for name in kept:
            self._bring_up(self._unit(name))
        for each in wanted:
            self._compare_one(each)

    def _compare_one(self, wanted: UnitFile) -> None:
        unit = self._unit(wanted.name)
        text = self._written.get(wanted.name)
        if text == wanted.text:
            self._bring_up(unit)
            return
        new = described(facts_of(wanted))
        old = "nothing" if text is None else unit.addresses
        action = "new" if text is None else "changed"
        self.changes.append(Change(unit.name, action, "" if text is None else old, new))
        self._start.append(unit.name)
        self._enable.append(unit.name)
        if unit.state != "inactive":
            self._stop.append(unit.name)

    def _bring_up(self, unit: Unit) -> None:
        if unit.is_active and unit.bound_to:
            reason = f"its sockets are still bound to interface {unit.bound_to}"
            self.changes.append(Change(unit.name, "renewed", unit.addresses, "", reason))
            self._stop.append(unit.name)
            self._start.append(unit.name)
        if not unit.is_active:
            self.changes.append(Change(unit.name, "started", unit.addresses))
            self._start.append(unit.name)
        if unit.file_state == "disabled":
            self.changes.append(Change(unit.name, "enabled", unit.addresses))
            self._enable.append(unit.name)

    def _leave(self, unit: Unit) -> None:
        self._disable.append(unit.name)
        if unit.state != "inactive":
            self._stop.append(unit.name)

    def _unit(self, name: str) -> Unit:
        own = self._target.own(name)
        return self._units.get(own, Unit(own))

    def steps(self, names: Sequence[str]) -> Steps:
        """Return what was found."""
        return Steps(
            self._target,
            tuple(self._stop),
            tuple(self._start),
            tuple(self._enable),
            tuple(self._disable),
            tuple(self._target.own(name) for name in names),
        )


def facts_of(wanted: UnitFile) -> list[Facts]:
    """Return the sockets of a unit that is to be written."""
    hosts = {end.host for end in wanted.endpoints}
    is_dual = "BindIPv6Only=both" in wanted.text
    return [
        Facts(wanted.listener, end.protocol, end.host, end.port, interface(end), is_dual)
        for end in wanted.endpoints
        if not (is_dual and end.host == "0.0.0.0" and "::" in hosts)  # noqa: S104 - compared
    ]


def _by_others(host: Host) -> dict[str, Unit]:
    """Return the units by others that serve, or may serve again, by their general names."""
    found: dict[str, Unit] = {}
    for target in host.targets:
        for unit in target.units:
            name = target.general(unit.name)
            is_candidate = name == host.shipped or name in host.remembered
            is_first = name not in found or unit.is_in_use
            if name not in host.written and is_first and (unit.is_in_use or is_candidate):
                found[name] = unit
    # Those in use come first: the others serve what is left.
    return dict(sorted(found.items(), key=lambda item: not item[1].is_in_use))


def _kept(found: Mapping[str, Unit], listeners: Listeners, named: Named) -> dict[str, Unit]:
    kept: dict[str, Unit] = {}
    for name, unit in found.items():
        if _complaint(unit, listeners, named):
            continue
        if not unit.is_in_use and not _is_needed(unit, kept, listeners, named):
            continue
        kept[name] = unit
    return kept


def _is_needed(unit: Unit, kept: Mapping[str, Unit], listeners: Listeners, named: Named) -> bool:
    """Return whether a unit that is not in use serves what no other does, and all of it."""
    served = {
        (name, facts.protocol)
        for name, pairs in _matched(kept.values(), listeners).items()
        for facts, _ in pairs
    }
    return all(
        (name, facts.protocol) not in served
        and name == facts.name
        and not _missing(one.listener, pairs, named)
        for name, pairs in _matched([unit], listeners).items()
        for facts, one in pairs
    )


def _complaint(unit: Unit, listeners: Listeners, named: Named) -> str:
    """Return why a unit does not serve what the files say, "" if it does."""
    if unit.load_state != "loaded":
        return f"it is {unit.load_state}"
    if unit.others or not unit.sockets:
        return f"it listens on {unit.addresses}"
    for facts, one in ((facts, listeners.match(facts)) for facts in unit.sockets):
        keys, listener = named.get(one.listener.name, ()), one.listener
        if not one.serves or one.addresses is not None:
            return one.problem
        if "interface" in keys and facts.interface != listener.interface:
            return f'the files say interface = "{listener.interface}" for {listener.name}'
        if "backlog" in keys and unit.backlog != listener.backlog:
            return f"the files say backlog = {listener.backlog} for {listener.name}"
    return ""


def _matched(units: Iterable[Unit], listeners: Listeners) -> dict[str, list[tuple[Facts, Match]]]:
    """Return the sockets of units by the names of the listeners that they are for."""
    found: dict[str, list[tuple[Facts, Match]]] = {}
    for facts in (facts for unit in units for facts in unit.sockets):
        one = listeners.match(facts)
        found.setdefault(one.listener.name, []).append((facts, one))
    return found


def _missing(
    listener: ListenerSettings, own: Sequence[tuple[Facts, Match]], named: Named
) -> list[Endpoint]:
    """Return the endpoints of a listener that none of its sockets has.

    Where the files name no host, one socket of each protocol is enough: the unit chooses which.
    """
    found = []
    for endpoint in listener.endpoints():
        protocol = endpoint.protocol
        sockets = [pair for pair in own if pair[0].protocol == protocol]
        narrow = listener._replace(hosts=(endpoint.host,), protocols=(protocol,))
        is_named = "host" in named.get(listener.name, ())
        if not sockets or (is_named and uncovered([narrow], named, _for(narrow, sockets))):
            found.append(endpoint)
    return found


def _for(
    listener: ListenerSettings, sockets: Iterable[tuple[Facts, Match]]
) -> list[tuple[Facts, Match]]:
    return [(facts, one._replace(listener=listener)) for facts, one in sockets]


def _raise_if_in_the_way(
    wanted: Sequence[UnitFile], host: Host, listeners: Listeners, named: Named
) -> None:
    units = {unit.name: unit for target in host.targets for unit in target.units}
    problems = [
        f"{each.name} is needed for listener {each.listener}, but the file of that name in "
        "/etc/systemd/system was not written by `netsrvd apply`: rename it or take it away"
        for each in wanted
        if each.name in host.foreign_files
    ]
    for each in wanted:
        unit = units.get(host.targets[0].own(each.name))
        is_loaded = unit and unit.drop_ins and host.written.get(each.name) == each.text
        if unit and is_loaded and (reason := _complaint(unit, listeners, named)):
            problems.append(f"{each.name}: {', '.join(unit.drop_ins)} contradicts: {reason}")
    if problems:
        raise SystemdError("\n".join(problems))


def _in_use_anywhere(name: str, host: Host) -> bool:
    return any(
        unit.is_in_use
        for target in host.targets
        for unit in target.units
        if target.general(unit.name) == name
    )


def _is_template(name: str) -> bool:
    return "@." in name


def _specifier(name: str) -> str:
    """Return a unit's name as a drop-in has it: instances have their own."""
    return name.replace("@.", "@%i.")


def _serving(
    wanted: Sequence[UnitFile],
    kept: Mapping[str, Unit],
    settings: Settings,
    listeners: Listeners,
) -> list[tuple[str, str, str]]:
    rows = [(each.listener, each.name, described(facts_of(each))) for each in wanted]
    for name, unit in kept.items():
        rows += [
            (listener, name, described([facts for facts, _ in pairs]))
            for listener, pairs in _matched([unit], listeners).items()
        ]
    order = {listener.name: number for number, listener in enumerate(settings.listeners)}
    return sorted(rows, key=lambda row: (order[row[0]], row[1]))
