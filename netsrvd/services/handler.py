"""Handlers: services of the administrator's own, which are Python callables."""

import sys
from collections.abc import Iterable
from importlib import import_module
from operator import attrgetter

from netsrvd.services import base

PREFIX = "python:"
FORM = f"{PREFIX}package.module:function"

GROUP = "netsrvd.services"
"""The group of entry points by which installed packages give names to handlers."""

FOLDER = "/usr/local/lib/netsrvd"
"""Where Python looks for modules besides its own path; behind that, so as to hide nothing."""


def is_path(name: str) -> bool:
    """Return whether a name says in itself where a handler is."""
    module, colon, function = name.removeprefix(PREFIX).partition(":")
    parts = [*module.split("."), *function.split(".")]
    return name.startswith(PREFIX) and bool(colon) and all(map(str.isidentifier, parts))


def entry_points() -> dict[str, str]:
    """Return the handlers that installed packages give names to, each as `module:function`.

    This looks through all packages that are installed, in milliseconds. Raises ValueError with the
    name of a package whose entry points cannot be read.
    """
    from importlib import metadata  # noqa: PLC0415 - 20 ms, for those alone who name such a one

    _look_in_folder()
    try:
        return {each.name: each.value for each in metadata.entry_points(group=GROUP)}
    except Exception as error:  # importlib raises a TypeError for a line without "="
        names = ", ".join(filter(_is_broken, (each.name for each in metadata.distributions())))
        raise ValueError(
            f"the entry points of the installed package {names} cannot be read: {error!r}; "
            f'repair or remove that package, or name a handler as "{FORM}"'
        ) from error


def _is_broken(package: str) -> bool:
    """Return whether the entry points of an installed package cannot be read."""
    from importlib import metadata  # noqa: PLC0415 - as above

    try:
        return not isinstance(metadata.distribution(package).entry_points, Iterable)
    except Exception:  # noqa: BLE001 - of whatever kind
        return True


def find(name: str) -> base.Handler:
    """Return the handler of this name; its module is imported, unless it was before.

    Raises ValueError where there is none.
    """
    path = name.removeprefix(PREFIX) if is_path(name) else entry_points().get(name, "")
    if not path:
        raise ValueError(f"there is no service {name}, and no package has a handler of that name")
    module, _, function = path.partition(":")
    _look_in_folder()
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
    return base.Service(base.Stream, base.Datagrams(), find(name))


def _look_in_folder() -> None:
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)


def _failure(module: str, error: BaseException) -> str:
    if isinstance(error, AttributeError) and module in sys.modules:
        return str(error)
    return f"importing {module} failed: {type(error).__name__}: {error}"


def _where(path: Iterable[str]) -> str:
    return f"Python looks in {', '.join(filter(None, path))}"
