"""The services by name, which is that of its module here. One is imported when it is used."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from netsrvd.services.base import ServerView, Service, ServiceSettings

if TYPE_CHECKING:
    from netsrvd.services import handler

SERVICES = (
    *("echo", "discard", "chargen", "daytime", "time", "qotd", "active"),
    *("whoami", "close", "stamp", "echoplus", "metrics"),
)

MONITORING = frozenset({"metrics"})
"""Services whose clients look at the daemon: they do not keep one that is idle."""


def reader() -> Callable[[object], str]:
    """Return what checks the name of a service or of a handler.

    It raises ValueError, whose text says what was expected. Installed packages are asked for names
    at most once, and only for one that is none of ours.
    """
    found: list[handler.Named] = []

    def read(value: object) -> str:
        if isinstance(value, str) and value in SERVICES:
            return value
        from netsrvd.services import handler  # noqa: PLC0415 - most configurations name none

        def entry_points() -> "handler.Named":
            if not found:
                found.append(handler.entry_points())
            return found[0]

        if isinstance(value, str) and (handler.is_path(value) or value in entry_points().by_name):
            return value
        known = ", ".join(f'"{each}"' for each in (*SERVICES, *entry_points().by_name))
        unread = "".join(f"; {each}" for each in entry_points().unreadable)
        raise ValueError(f'one of {known}, or a handler as "{handler.FORM}"{unread}')

    return read


def prepare(name: str, settings: ServiceSettings, server: ServerView) -> Service:
    """Return a service for a listener; the files that it needs are read now.

    Raises OSError or ValueError where these cannot be used.
    """
    if name not in SERVICES:
        from netsrvd.services import handler  # noqa: PLC0415 - as above

        return handler.prepare(name)
    module = import_module(f"{__name__}.{name}")
    service: Service = module.prepare(settings, server)
    return service
