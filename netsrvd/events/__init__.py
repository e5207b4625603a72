"""Everything the daemon can say: one frozen class an event, by what it is about.

The class docstring is the event's text in the message catalog (`journalctl -x`), so it is written
for the administrator: what it means, and what to do. The fields become `NETSRVD_…` fields of the
journal record, in upper case. A MESSAGE_ID is drawn at random (`systemd-id128 new`), never counted
up, and never used again for something else.
"""

from importlib import import_module
from typing import ClassVar

ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7
"""The priorities of syslog(3) that are in use here."""

MODULES = ("life", "handover", "sockets", "connections", "flows", "refusals", "log")

LEVELS = {"error": ERROR, "warning": WARNING, "notice": NOTICE, "info": INFO, "debug": DEBUG}


class Event:
    """What all events have. `text()` is the one line that a person reads first."""

    __slots__ = ()
    MESSAGE_ID: ClassVar[str]
    PRIORITY: ClassVar[int] = INFO
    SUBJECT: ClassVar[str]

    def text(self) -> str:
        """Return the message of the record, without a line break."""
        raise NotImplementedError


def one_line(text: str) -> str:
    """Return `text` with its line breaks as semicolons."""
    return "; ".join(text.splitlines())


def all_events() -> list[type[Event]]:
    """Return the classes of all events, in the order of their modules."""
    modules = [import_module(f"{__name__}.{name}") for name in MODULES]
    named = [value for module in modules for value in vars(module).values()]
    classes = [value for value in named if isinstance(value, type) and issubclass(value, Event)]
    return [kind for kind in classes if kind is not Event]
