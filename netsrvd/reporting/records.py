"""Turns an event into what a log takes; the only place that text from outside passes through."""

from typing import NamedTuple

from netsrvd.events import Event

IDENTIFIER = "netsrvd"
FIELD_PREFIX = "NETSRVD_"
LONGEST_FIELD = 16_384
"""Characters of one field that are kept: a record must fit a datagram of the log's socket."""


class Record(NamedTuple):
    """An event, ready to be written. Nothing in it can end a line or command a terminal, but that
    the value of a field may have line breaks (a traceback).
    """

    priority: int
    message_id: str
    text: str
    fields: tuple[tuple[str, str], ...]

    def traceback(self) -> str:
        """Return the traceback that belongs to it, or an empty text."""
        return dict(self.fields).get(f"{FIELD_PREFIX}TRACEBACK", "")


def record(event: Event) -> Record:
    """Return the record of an event."""
    fields = tuple(
        (FIELD_PREFIX + name.upper(), _value(name, value)) for name, value in event.items()
    )
    return Record(event.PRIORITY, event.MESSAGE_ID, printable(event.text()), fields)


def _value(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    if name == "traceback":
        lines = str(value)[-LONGEST_FIELD:].splitlines()
        return "\n".join(printable(line) for line in lines)
    return printable(str(value))


def printable(text: str) -> str:
    r"""Return `text` with everything that is not printable as its escape, such as `\x1b` or `\n`.

    Control characters would command a terminal, a line break would forge a record, lone surrogates
    cannot be encoded, and characters that turn the direction of writing deceive the eye.
    """
    if not text.isprintable():
        text = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
            for each in text
        )
    return text if len(text) <= LONGEST_FIELD else text[: LONGEST_FIELD - 1] + "…"
