"""Makes instances of events and settings without knowing them one by one."""

from typing import Any, get_type_hints

from netsrvd.events import Event

VALUES: dict[type, object] = {str: "text", int: 7, float: 1.5}


def sample(kind: type[Event], **given: object) -> Event:
    """Return an event of a class: `given` fields as they are, others by their annotations."""
    hints = get_type_hints(kind)
    made: dict[str, Any] = {name: VALUES[hints.get(name, int)] for name in kind.FIELDS}
    return kind(**made | given)


def hostile(kind: type[Event], text: str) -> Event:
    """Return an event of a class whose every text is `text`."""
    hints = get_type_hints(kind)
    return sample(kind, **{name: text for name in kind.FIELDS if hints.get(name) is str})
