"""The events that the daemon reports: one class each, in a module for each subject.

The class docstring is the event's text in the message catalog (`journalctl -x`), so it is written
for the administrator: what it means, and what to do. The fields become `NETSRVD_…` fields of the
journal record, in upper case. A MESSAGE_ID is drawn at random (`systemd-id128 new`), never counted
up, and never used again for another event.
"""

from collections.abc import Iterable
from importlib import import_module
from operator import itemgetter
from typing import Any, ClassVar, Self, dataclass_transform

ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7
"""The priorities of syslog(3) that are in use here."""

MODULES = (
    "lifecycle",
    "handover",
    "sockets",
    "connections",
    "flows",
    "handlers",
    "refusals",
    "log",
)

LEVELS = {"error": ERROR, "warning": WARNING, "notice": NOTICE, "info": INFO, "debug": DEBUG}


@dataclass_transform(frozen_default=True)
class Event(tuple[Any, ...]):
    """The base class of the events. `text()` is the one line that is shown first.

    An event is the tuple of its fields, which are the annotations of its class. It looks like a
    frozen dataclass and is made three times as fast, two for each connection; and to make some
    thirty dataclasses would take a quarter of the time that a start takes.
    """

    __slots__ = ()
    MESSAGE_ID: ClassVar[str]
    PRIORITY: ClassVar[int] = INFO
    SUBJECT: ClassVar[str]
    FIELDS: ClassVar[tuple[str, ...]] = ()
    DEFAULTS: ClassVar[dict[str, object]] = {}

    def __init_subclass__(cls, more: Iterable[str] = ()) -> None:
        """Make properties of the annotations and of `more` fields."""
        annotated = (name for name in cls.__annotations__ if name.islower())
        cls.FIELDS = (*annotated, *more)
        cls.DEFAULTS = {name: vars(cls)[name] for name in cls.FIELDS if name in vars(cls)}
        for index, name in enumerate(cls.FIELDS):
            setattr(cls, name, property(itemgetter(index)))

    def __new__(cls, *values: object, **named: object) -> Self:
        """Return an event with these fields, in their order or by their names."""
        if len(values) != len(cls.FIELDS) or named:
            given = cls.DEFAULTS | dict(zip(cls.FIELDS, values, strict=False)) | named
            if len(values) > len(cls.FIELDS) or given.keys() != {*cls.FIELDS}:
                raise TypeError(f"{cls.__name__} has the fields {', '.join(cls.FIELDS)}")
            values = tuple(given[name] for name in cls.FIELDS)
        return tuple.__new__(cls, values)

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same kind of event with the same fields."""
        return type(self) is type(other) and super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        """Return whether it is not."""
        return not self == other

    def __hash__(self) -> int:
        """Return a hash that equal events share."""
        return super().__hash__()

    def __repr__(self) -> str:
        """Return it as it was made."""
        fields = ", ".join(
            f"{name}={value!r}" for name, value in zip(self.FIELDS, self, strict=True)
        )
        return f"{type(self).__name__}({fields})"

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
