"""Compares the configuration with what this host has, for `netsrvd check` and `netsrvd apply`."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from netsrvd.addresses import shown
from netsrvd.config.files import DEFAULT_FILE, Configuration
from netsrvd.errors import SystemdError
from netsrvd.escapes import escaped as escaped_text
from netsrvd.settings import Settings
from netsrvd.sockets.matching import Facts
from netsrvd.systemd import port_owners, systemctl
from netsrvd.systemd.host import look
from netsrvd.systemd.plan import Host, Plan, plan
from netsrvd.systemd.unit_files import escaped, interface, is_bindable

INTERFACES = Path("/sys/class/net")


class Comparison(NamedTuple):
    """What the socket units of this host make of a configuration."""

    serving: tuple[tuple[str, str, str], ...] = ()
    """Each listener, a socket unit of it, and the addresses of that."""
    differences: tuple[str, ...] = ()
    """What `netsrvd apply` would change, a line each; empty if nothing."""
    warnings: tuple[str, ...] = ()
    problem: str = ""
    """Why nothing was compared; empty if it was."""

    @property
    def lines(self) -> list[str]:
        """The lines that are warnings."""
        differing = [f"not in force, run `netsrvd apply`: {each}" for each in self.differences]
        return [*differing, *self.warnings]

    @property
    def notes(self) -> list[str]:
        """The units that listen, or why nothing was compared."""
        if self.problem:
            return [f"not compared with the socket units: {self.problem}"]
        if self.differences:
            return []
        return [f"{name}: {unit} listens on {where}" for name, unit, where in self.serving]


def compare(configuration: Configuration) -> Comparison:
    """Return how the socket units of this host compare with the configuration of the default file.

    Not if an ExecStart= of the administrator names another one.
    """
    try:
        host = look()
        if host.config and Path(os.path.realpath(host.config)) != DEFAULT_FILE:
            return Comparison(problem=f"the service reads {escaped_text(str(host.config))}")
        planned = plan(configuration.settings, configuration.named, host)
    except SystemdError as error:
        return Comparison(problem=str(error))
    return Comparison(
        planned.serving,
        tuple(change.text for change in planned.changes),
        (*obstacles(configuration.settings, host, planned), *warnings(host, planned)),
    )


def warnings(host: Host, planned: Plan) -> Iterator[str]:
    """Yield what is wrong on this host and is not for `netsrvd apply` to change."""
    for target in host.targets:
        for unit in target.units:
            if unit.is_in_use and unit.file_state == "static" and unit.name in planned.kept:
                yield f"{unit.name} has no [Install]: make sure that it is started at boot"
    active = [
        facts
        for target in host.targets
        for unit in target.units
        if unit.is_active
        for facts in unit.sockets
        if facts.protocol == "udp"
    ]
    for facts, one in _foreign(active, host):
        yield (
            f"{facts.where} has a second owner, which may take its datagrams: {_owner(one)}; end "
            f"that, then systemctl restart {host.targets[0].service}"
        )


def obstacles(settings: Settings, host: Host, planned: Plan) -> tuple[str, ...]:
    """Return why `netsrvd apply` refuses to change anything, a line each; nothing if it does not.

    Ports in use by other programs are found by root alone.
    """
    problems = list(_interfaces(settings, host))
    if any(change.action in ("new", "changed", "started") for change in planned.changes):
        problems += [_in_use(*pair) for pair in _foreign(planned.sockets, host)]
    return tuple(dict.fromkeys(problems))


def ports_in_use(settings: Settings) -> Iterator[str]:
    """Yield the ports that other programs have, for a daemon that binds its sockets by itself.

    Those of another netsrvd, of systemd, and of processes that this user may not look at are left
    out: a daemon that is to be replaced may have them.
    """
    facts = [
        Facts(end.listener, end.protocol, end.host, end.port, interface(end))
        for listener in settings.listeners
        for end in listener.endpoints()
    ]
    none_of_ours = port_owners.Own((), (), ())
    for wanted, one in port_owners.foreign(facts, port_owners.sockets(), none_of_ours):
        names = port_owners.holders(one.inode)
        if names and not any(name.startswith(("netsrvd (", "systemd (1)")) for name in names):
            yield _in_use(wanted, one)


def _in_use(wanted: Facts, one: port_owners.Owned) -> str:
    return (
        f"listener {wanted.name}: {wanted.where} is in use by {_owner(one)}: stop that, or give "
        "the listener another port or host"
    )


def _interfaces(settings: Settings, host: Host) -> Iterator[str]:
    for listener in settings.listeners:
        for name in {interface(end) for end in listener.endpoints()} - {"", "lo"}:
            device = f"sys-subsystem-net-devices-{escaped(name)}.device"
            if not is_bindable(name):
                yield f"listener {listener.name}: systemd takes no interface of the name {name}"
            elif not (INTERFACES / name).exists():
                yield (
                    f"listener {listener.name}: there is no interface {name}; `ip link` shows "
                    "those there are"
                )
            elif host.has_devices and not _is_active(device):
                yield (
                    f"listener {listener.name}: systemd knows no {device} and would wait for it: "
                    "udev does not run here"
                )


def _is_active(unit: str) -> bool:
    [properties] = systemctl.show([unit], ("ActiveState",))
    return properties["ActiveState"][0] == "active"


def _foreign(sockets: Iterable[Facts], host: Host) -> list[tuple[Facts, port_owners.Owned]]:
    own = port_owners.Own(
        {
            inode
            for target in host.targets
            if target.pid
            for inode in port_owners.inodes(target.pid)
        },
        port_owners.inodes(1),
        {
            (facts.protocol, facts.host, facts.port)
            for target in host.targets
            for unit in target.units
            for facts in unit.sockets
        },
    )
    if not own.systemd:  # only root may look
        return []
    return port_owners.foreign(sockets, port_owners.sockets(), own)


def _owner(one: port_owners.Owned) -> str:
    names = ", ".join(port_owners.holders(one.inode)) or f"a process of user {one.user}"
    return f"{names}, {one.protocol} {shown(one.host, one.port)}"
