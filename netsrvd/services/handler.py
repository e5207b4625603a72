"""Handlers: services of the administrator's own, which are Python callables."""

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple

from netsrvd.services import base

PREFIX = "python:"
FORM = f"{PREFIX}package.module:function"

GROUP = "netsrvd.services"
"""The group of entry points by which installed packages give names to handlers."""

FOLDER = "/usr/local/lib/netsrvd"
"""Where Python looks for modules besides its own path; behind that, so as to hide nothing."""

imported: set[str] = set()
"""The modules of handlers that were imported, or that failed in it. What they started lives on."""


def is_path(name: str) -> bool:
    """Return whether a name says in itself where a handler is."""
    module, colon, function = name.removeprefix(PREFIX).partition(":")
    parts = [*module.split("."), *function.split(".")]
    return name.startswith(PREFIX) and bool(colon) and all(map(str.isidentifier, parts))


class Named(NamedTuple):
    """The handlers that installed packages give names to, each as `module:function`."""

    by_name: dict[str, str]
    unreadable: list[str]
    """What to say of each package whose entry points cannot be read."""


def entry_points() -> Named:
    """Return the handlers that installed packages give names to. Never raises.

    This looks through all packages that are installed, in milliseconds.
    """
    from importlib import metadata  # noqa: PLC0415 - 20 ms, only needed for such a name

    _look_everywhere()
    try:
        found = metadata.entry_points(group=GROUP)
    except Exception:  # noqa: BLE001 - a malformed file of any package raises anything
        return _one_by_one(metadata.distributions())
    return Named({each.name: each.value for each in found}, [])


def _one_by_one(packages: Iterable[Any]) -> Named:
    """Return the entry points of all packages but those whose files are malformed."""
    found = Named({}, [])
    for package in packages:
        try:
            for each in package.entry_points.select(group=GROUP):
                found.by_name.setdefault(each.name, each.value)
        except Exception as error:  # noqa: BLE001 - as above
            place = package.locate_file("")
            what = f"{type(error).__name__}: {error}"
            found.unreadable.append(
                f"{_title(package)} cannot be read: {what}; repair or remove it in {place}"
            )
    return found


def _title(package: Any) -> str:
    try:
        return f"the entry points of the installed package {package.metadata['Name']}"
    except Exception:  # noqa: BLE001 - as above
        return "the entry points of an installed package"


def find(name: str) -> base.Handler:
    """Return the handler of this name; its module is imported, unless it was before.

    Raises ValueError where there is none.
    """
    path = name.removeprefix(PREFIX) if is_path(name) else entry_points().by_name.get(name, "")
    if not path:
        raise ValueError(f"there is no service {name}, and no package has a handler of that name")
    module, _, function = path.partition(":")
    _look_everywhere()
    imported.add(module)
    try:
        found: base.Handler = attrgetter(function)(import_module(module))
    except (Exception, SystemExit) as error:  # a module may do anything when it is imported
        raise ValueError(f"{_failure(module, error)}; {_where(sys.path)}") from error
    if not callable(found):
        kind = type(found).__name__
        raise ValueError(f"{function} in {module} is no function but of type {kind}")  # noqa: TRY004
    return found


def prepare(name: str) -> base.Service:
    """Return the service of a handler. Raises ValueError."""
    return base.Service(base.SILENT, base.Datagrams(), find(name))


def _look_everywhere() -> None:
    """Add the places of modules that are not Debian's to Python's path, behind the others.

    The command of the Debian package runs without them (packaging/netsrvd).
    """
    if FOLDER in sys.path:
        return
    if sys.flags.no_site:
        import site  # noqa: PLC0415 - only that command runs without it

        sys.path += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        site.addsitepackages(site.removeduppaths())
    sys.path.append(FOLDER)


def _failure(module: str, error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - of the module, too
        text = "its text cannot be had"
    if isinstance(error, AttributeError) and module in sys.modules:
        return text
    return f"importing {module} failed: {type(error).__name__}: {text}"


def _where(path: Iterable[str]) -> str:
    return f"Python looks in {', '.join(filter(None, path))}"
