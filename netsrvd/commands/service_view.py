"""Finds what netsrvd.service cannot read of the files that the configuration needs.

The service has a root directory of its own and a user without privileges: what root reads on the
host may be missing there, or forbidden.
"""

import grp
import os
import pwd
import re
import shlex
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from netsrvd.config.files import DEFAULT_FILE, DROP_INS, Configuration
from netsrvd.errors import Fault, SystemdError
from netsrvd.escapes import escaped
from netsrvd.services.qotd import quote_files
from netsrvd.systemd import systemctl

UNIT = "netsrvd.service"
_CREDENTIAL = re.compile(
    r"^\s*(?:(?:Load|Set)Credential(?:Encrypted)?|ImportCredential)\s*=\s*\"?([^:\s\"]+)",
    re.MULTILINE,
)
"""A line of a unit that passes a credential, or all with a pattern. `systemctl show` does not show
them (252 to 257)."""

PROPERTIES = (
    *("LoadState", "RootDirectory", "RootImage", "BindPaths", "BindReadOnlyPaths"),
    *("TemporaryFileSystem", "InaccessiblePaths", "ProtectHome", "PrivateTmp"),
    *("User", "Group", "DynamicUser", "SupplementaryGroups"),
    *("FragmentPath", "DropInPaths"),
)

DYNAMIC_UID = 61184
"""The first of those that systemd gives to dynamic users (uid 61184 to 65519): it owns no file."""

MOST_LINKS = 40
"""Symbolic links on one way; the kernel follows no more (path_resolution(7))."""

HOMES = ("/home", "/root", "/run/user")
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - named, not used


class Identity(NamedTuple):
    """Whose permissions the service has."""

    user: int
    group: int
    groups: tuple[int, ...] = ()


class View(NamedTuple):
    """The files that a service sees."""

    places: Mapping[str, str | None]
    """The path on the host of each path that is mounted in its root; None for what is hidden."""
    identity: Identity | None
    """None where it is not known."""


def judge(config: Path | None, configuration: Configuration) -> tuple[list[Fault], list[str], bool]:
    """Return the faults that the service would find, what was not looked at, and whether it was.

    Only the service's own configuration is judged so, not one that `-c` names.
    """
    if config is not None and Path(os.path.realpath(config)) != DEFAULT_FILE:
        return [], [], False
    try:
        [unit] = systemctl.texts([UNIT], PROPERTIES)
    except SystemdError as error:
        return [], [f"not tried as {UNIT} would read it: {escaped(str(error))}"], False
    if unit.get("LoadState") != "loaded":
        return [], [f"not tried as {UNIT} would read it: there is no such unit"], False
    if unit.get("RootImage"):
        return [], [f"not tried as {UNIT} would read it: it has a RootImage="], False
    try:
        places = places_of(unit)
    except ValueError:  # systemctl quotes no quotation mark in a path
        return [], [f"not tried as {UNIT} would read it: a path that it mounts has a quote"], False
    identity = identity_of(unit)
    notes = (
        [] if identity else [f"permissions are not tried: the user of {UNIT} is root or unknown"]
    )
    faults = list(_faults(View(places, identity), configuration))
    faults += _missing_credentials(unit, configuration)
    faults += _keys_of_others(identity, configuration)
    return faults, notes, True


def places_of(unit: Mapping[str, str]) -> dict[str, str | None]:
    """Return what a unit with these properties sees where, as in `View`."""
    root = unit.get("RootDirectory") or "/"
    found: dict[str, str | None] = {"/": root}
    hidden = [each.partition(":")[0] for each in shlex.split(unit.get("TemporaryFileSystem", ""))]
    for each in shlex.split(unit.get("InaccessiblePaths", "")):
        path = each.lstrip("-")
        if path.startswith("+") or root == "/":  # others are those of the host, which it lacks
            hidden.append(path.lstrip("+"))
    hidden += HOMES if unit.get("ProtectHome") in ("yes", "tmpfs") else ()
    hidden += TEMPORARY if unit.get("PrivateTmp") not in (None, "", "no") else ()
    found |= dict.fromkeys(hidden)
    for each in shlex.split(f"{unit.get('BindPaths', '')} {unit.get('BindReadOnlyPaths', '')}"):
        source, _, rest = each.lstrip("-").partition(":")
        found[rest.partition(":")[0] or source] = source
    return found


def identity_of(unit: Mapping[str, str]) -> Identity | None:
    """Return whose permissions a unit has; None for root, and for a user that is not known."""
    try:
        groups = [grp.getgrnam(name).gr_gid for name in unit["SupplementaryGroups"].split()]
        try:
            user = pwd.getpwnam(unit["User"])
        except KeyError:
            if unit["DynamicUser"] != "yes":
                return None
            return Identity(DYNAMIC_UID, DYNAMIC_UID, tuple(groups))
        group = grp.getgrnam(unit["Group"]).gr_gid if unit["Group"] else user.pw_gid
    except KeyError:
        return None
    groups += os.getgrouplist(user.pw_name, group)
    return Identity(user.pw_uid, group, tuple(groups)) if user.pw_uid else None


def _faults(view: View, configuration: Configuration) -> Iterator[Fault]:
    folder = DEFAULT_FILE.parent / DROP_INS
    complaint = complaint_of(view, folder) if folder.is_dir() else ""
    if complaint:  # of what is in there nothing is known then
        yield Fault(complaint, escaped(str(folder)))
    for file in configuration.files:
        if not (complaint and file.parent == folder) and (found := complaint_of(view, file)):
            yield Fault(found, escaped(str(file)))
    for listener in configuration.settings.listeners:
        table = ("listener", listener.name)
        if listener.service == "qotd":
            paths, key = quote_files(Path(listener.quotes)), "quotes"
        else:
            paths, key = _module_files(listener.service), "service"
        complaints = filter(None, (complaint_of(view, each) for each in paths))
        if found := next(complaints, ""):  # one is enough for a folder of quotes
            yield configuration.sources.fault(found, (*table, key))


def _missing_credentials(unit: Mapping[str, str], configuration: Configuration) -> Iterator[Fault]:
    """Yield a fault for each credential that a listener needs and the unit does not pass."""
    needed = [each for each in configuration.settings.listeners if each.credential]
    passed = _credentials(unit) if needed else set()
    for listener in needed:
        name = listener.credential
        if not any(fnmatchcase(name, each) for each in passed):
            text = (
                f"{UNIT} has no credential {name}: add LoadCredential={name}:PATH in a drop-in "
                "(`systemctl edit netsrvd`)"
            )
            yield configuration.sources.fault(text, ("listener", listener.name, "stamp_key"))


def _keys_of_others(identity: Identity | None, configuration: Configuration) -> Iterator[Fault]:
    """Yield a fault for each file with a key that does not belong to the service's user."""
    for listener in configuration.settings.listeners:
        path = Path(listener.stamp_key)
        if listener.service != "stamp" or not path.is_absolute() or identity is None:
            continue
        try:
            owner = path.stat().st_uid
        except OSError:  # which is a fault already
            continue
        if owner != identity.user:
            text = (
                f"the user of {UNIT} does not own {escaped(str(path))}: pass it by "
                'LoadCredential=stamp:PATH in a drop-in and write "credential:stamp"'
            )
            yield configuration.sources.fault(text, ("listener", listener.name, "stamp_key"))


def _credentials(unit: Mapping[str, str]) -> set[str]:
    """Return the names, or patterns, of the credentials that the files of a unit pass."""
    found = set()
    for path in (unit.get("FragmentPath", ""), *unit.get("DropInPaths", "").split()):
        with suppress(OSError):
            found.update(_CREDENTIAL.findall(Path(path).read_text(errors="replace")))
    return found


def _module_files(service: str) -> list[Path]:
    """Return the file of a handler's module, which has been imported."""
    name, colon, _ = service.removeprefix("python:").partition(":")
    file = getattr(sys.modules.get(name), "__file__", None) if colon else None
    return [Path(file)] if file else []


def complaint_of(view: View, path: Path) -> str:
    """Return why the service cannot read a file or list a folder; nothing if it can.

    Each symbolic link on the way is followed as the service would.
    """
    here, parts, links = PurePosixPath("/"), list(path.parts[1:]), 0
    while parts:
        there = here.parent if (part := parts.pop(0)) == ".." else here / part
        if _leads_to_a_place(view, there):
            here = there
            continue
        host = _on_host(view, there)
        try:
            status = os.lstat(host) if host is not None else None
        except OSError:
            status = None
        if status is None or host is None:
            return (
                f"{UNIT} does not see {escaped(str(there))}: put it below /etc/netsrvd, or add a "
                "BindReadOnlyPaths= to the unit"
            )
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > MOST_LINKS:
                return f"{UNIT} finds too many symbolic links"
            target = PurePosixPath(Path(host).readlink())
            here = PurePosixPath("/") if target.is_absolute() else here
            parts = [*target.parts[target.is_absolute() :], *parts]
            continue
        if complaint := _forbidden(view.identity, host, status, is_last=not parts):
            return complaint
        here = there
    return ""


def _leads_to_a_place(view: View, path: PurePosixPath) -> bool:
    """Return whether a path is a folder that systemd makes on the way to what it mounts.

    In a root that is the host's it is a folder like others.
    """
    if view.places["/"] == "/":
        return False
    visible = [PurePosixPath(each) for each, host in view.places.items() if host is not None]
    return any(path in each.parents for each in visible)


def _on_host(view: View, path: PurePosixPath) -> str | None:
    """Return the path on the host of a path that the service uses; None for what is hidden."""
    place = next(each for each in (path, *path.parents) if str(each) in view.places)
    host = view.places[str(place)]
    return None if host is None else str(PurePosixPath(host) / path.relative_to(place))


def _forbidden(
    identity: Identity | None, host: str, status: os.stat_result, *, is_last: bool
) -> str:
    """Return the complaint if the service's user has no permission for this part of a way."""
    wanted = ("r" if is_last else "") + ("x" if stat.S_ISDIR(status.st_mode) else "")
    if identity is None or _permits(identity, status, wanted) or _has_acl(host):
        return ""
    name, bits = escaped(host), stat.S_IMODE(status.st_mode)
    return f"the user of {UNIT} may not read {name} (mode {bits:04o}): chmod o+{wanted} {name}"


def _permits(identity: Identity, status: os.stat_result, wanted: str) -> bool:
    """Return whether the mode of a file has these letters for a user (path_resolution(7))."""
    if status.st_uid == identity.user:
        shift = 6
    elif status.st_gid in (identity.group, *identity.groups):
        shift = 3
    else:
        shift = 0
    needed = sum(1 << "xwr".index(letter) for letter in wanted)
    return status.st_mode >> shift & needed == needed


def _has_acl(host: str) -> bool:
    """Return whether an access control list may say more than the mode (acl(5))."""
    try:
        return "system.posix_acl_access" in os.listxattr(host)
    except OSError:  # the file system has none
        return False
