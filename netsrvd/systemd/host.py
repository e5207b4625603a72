"""Looks at this host: the services of netsrvd, their socket units, and the files of these."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from netsrvd.addresses import interface_name, without_scope
from netsrvd.errors import SystemdError
from netsrvd.systemd import port_owners, systemctl, units
from netsrvd.systemd.plan import Host, Target
from netsrvd.systemd.unit_files import DROP_IN_NAME, MARK, is_control
from netsrvd.systemd.units import Unit

FOLDER = Path("/etc/systemd/system")
BINDV6ONLY = Path("/proc/sys/net/ipv6/bindv6only")

SERVICE_PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "UnitFileState", "TriggeredBy", "InvocationID"),
    *("StateChangeTimestampMonotonic", "ActiveEnterTimestamp", "ExecStart", "MainPID"),
)
_CONFIG = re.compile(r" (?:-c|--config)[ =]?(/\S+)")
RUNNING = ("active", "reloading", "activating", "deactivating", "refreshing")
USED_FILE_STATES = ("enabled", "enabled-runtime")


def look(remembered: Collection[str] = ()) -> Host:
    """Return what there is on this host.

    Raises SystemdError where systemd does not run it, does not answer or does not know netsrvd, and
    where netsrvd.service and instances are in use at the same time.
    """
    if not systemctl.is_running():
        raise SystemdError(
            "systemd does not run this host; without it `netsrvd run` binds what the configuration "
            "says by itself"
        )
    written, foreign = _files()
    instances = _instances()
    names = [f"netsrvd@{each}.service" for each in instances] or ["netsrvd.service"]
    services = systemctl.show(names, SERVICE_PROPERTIES)
    targets = tuple(
        _target(properties, instance, [*written, *remembered])
        for properties, instance in zip(services, instances or [""], strict=True)
    )
    _raise_if_both(instances)
    service = "netsrvd@.service" if instances else "netsrvd.service"
    return Host(
        targets,
        written,
        foreign,
        _read(drop_in_path(service)),
        _has_devices(),
        _config(services[0].get("ExecStart", [""])[0]),
        remembered,
    )


def drop_in_path(service: str) -> Path:
    """Return the file of the drop-in that names the socket units of a service."""
    return FOLDER / f"{service}.d" / DROP_IN_NAME


def is_written(text: str) -> bool:
    """Return whether a file has the mark of `netsrvd apply`."""
    return text.startswith(MARK)


def _files() -> tuple[dict[str, str], list[str]]:
    """Return the socket units in /etc that are ours, with their texts, and the names of others."""
    written, foreign = {}, []
    for path in sorted(FOLDER.glob("netsrvd-*.socket")):
        if is_control(path.name):  # the administrator's own, in the place of the package's
            continue
        text = _read(path)
        if is_written(text):
            written[path.name] = text
        else:
            foreign.append(path.name)
    return written, foreign


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise SystemdError(f"{path}: cannot be read: {error.strerror}") from error


def _instances() -> list[str]:
    """Return the names of the instances of netsrvd@.service that are in use."""
    names = [
        name
        for name in systemctl.list_units(
            "netsrvd@*.service", "netsrvd@*.socket", "netsrvd-*@*.socket"
        )
        if not is_control(name)
    ]
    found: dict[str, None] = {}
    for name, state in zip(names, _states(names), strict=True):
        if state:
            found[name.partition("@")[2].rpartition(".")[0]] = None
    return sorted(found)


def _states(names: list[str]) -> list[bool]:
    """Return of each unit whether it is active or enabled."""
    return [
        each["ActiveState"][0] in RUNNING or each["UnitFileState"][0] in USED_FILE_STATES
        for each in systemctl.show(names, ("ActiveState", "UnitFileState"))
    ]


def _raise_if_both(instances: list[str]) -> None:
    if not instances:
        return
    [service] = systemctl.show(["netsrvd.service"], ("TriggeredBy",))
    names = ["netsrvd.service", *_triggers(service)]
    used = [name for name, state in zip(names, _states(names), strict=True) if state]
    if used:
        raise SystemdError(
            f"netsrvd.service and instances ({', '.join(instances)}) are in use at the same time; "
            f"they cannot have the same ports: systemctl disable --now {' '.join(used)}"
        )


def _target(properties: systemctl.Properties, instance: str, others: Iterable[str]) -> Target:
    service = properties["Id"][0]
    if properties["LoadState"][0] != "loaded":
        raise SystemdError(f"{service} is {properties['LoadState'][0]}: is netsrvd installed?")
    target = Target(service, instance)
    shipped = "netsrvd@.socket" if instance else "netsrvd.socket"
    names = _triggers(properties)
    names += [target.own(name) for name in (shipped, *others) if bool(instance) == ("@." in name)]
    state = properties["ActiveState"][0]
    enabled = properties["UnitFileState"][0] in USED_FILE_STATES
    return target._replace(
        is_running=state in RUNNING,
        is_wanted=enabled and state == "failed",
        units=tuple(_units([name for name in dict.fromkeys(names) if name.endswith(".socket")])),
        stamp=units.stamp(properties),
        started_at=float(properties.get("ActiveEnterTimestamp", [""])[0].lstrip("@") or 0),
        pid=int(properties.get("MainPID", ["0"])[0]),
    )


def _triggers(service: systemctl.Properties) -> list[str]:
    """Return the units that start a service, without its control socket."""
    names = " ".join(service.get("TriggeredBy", [])).split()
    return [name for name in names if not is_control(name)]


def _config(start: str) -> Path | None:
    """Return the file that `ExecStart=` names with -c or --config."""
    found = _CONFIG.search(start.partition("argv[]=")[2].partition(" ; ")[0])
    return Path(found[1]) if found else None


def _units(names: list[str]) -> list[Unit]:
    is_v6_only = _read(BINDV6ONLY).strip() == "1"
    found = [
        units.unit(properties, is_v6_only=is_v6_only)
        for properties in systemctl.show(names, units.PROPERTIES)
    ]
    bound = port_owners.interfaces()
    return [unit._replace(bound_to=_bound_to(unit, bound)) for unit in found]


def _bound_to(unit: Unit, bound: Mapping[tuple[str, str, int], Collection[int]]) -> str:
    """Return the interface that a socket of an active unit is bound to against its unit."""
    for facts in unit.sockets if unit.is_active else ():
        address = (facts.protocol, without_scope(facts.host), facts.port)
        names = {interface_name(index) if index else "" for index in bound.get(address, ())}
        if len(names) == 1 and (name := names.pop()) not in ("", facts.interface):
            return name
    return ""


def _has_devices() -> bool:
    """Return whether systemd has .device units here: not where /sys is read-only (containers)."""
    return not os.statvfs("/sys").f_flag & os.ST_RDONLY
