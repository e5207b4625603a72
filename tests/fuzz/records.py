"""Whatever stands in an event: its record is one that no log and no reader can be deceived by."""

import re
import time
from typing import get_type_hints

from netsrvd.events import all_events
from netsrvd.log import journal, stderr, syslog
from netsrvd.log.records import LONGEST_FIELD, TRACEBACK, Record, record
from tests.support.logs import journal_fields
from tests.support.samples import sample

EVENTS = all_events()
NUMBERS = (0, 1, 65_535, 2**63, -1, 10**30)
NEXT_TEXT = "\x00\x01"
"""What separates the texts of one input."""

MANY = 0xF0
"""From this third byte on, each text is repeated until it is as long as a field may be."""


def check(data: bytes) -> None:
    """Fill an event, chosen by the first byte, with a number and texts; encode its record."""
    kind = EVENTS[data[0] % len(EVENTS)] if data else EVENTS[0]
    number = NUMBERS[data[1] % len(NUMBERS)] if data[1:] else 0
    texts = _decoded(data[3:]).split(NEXT_TEXT)
    if data[2:] and data[2] >= MANY:
        texts = [text * (LONGEST_FIELD // (len(text) + 1) + 1) for text in texts]
    hints = get_type_hints(kind)
    given: dict[str, object] = {
        name: texts[place % len(texts)] if hints.get(name) is str else number
        for place, name in enumerate(kind.FIELDS)
        if hints.get(name, int) in (str, int)
    }
    made = record(sample(kind, **given))
    _is_clean(made)
    _suits_the_journal(made)
    _suits_syslog(made)
    _suits_standard_error(made)


def _decoded(data: bytes) -> str:
    """Return any text that Python can have: UTF-16 where it is that, else bytes with surrogates."""
    if data[:1] == b"\xff":
        return data[1:].decode("utf-16-le", "surrogatepass" if len(data) % 2 else "replace")
    return data.decode("utf-8", "surrogateescape")


def _is_clean(made: Record) -> None:
    assert made.text.isprintable()
    assert 0 < len(made.text) <= LONGEST_FIELD
    for name, value in made.fields:
        assert re.fullmatch("NETSRVD_[A-Z_]+", name)
        assert 0 < len(value) <= LONGEST_FIELD
        lines = value.split("\n") if name == TRACEBACK else [value]
        assert all(line.isprintable() for line in lines), lines


def _suits_the_journal(made: Record) -> None:
    """See that an independent reader of the format finds the fields of the record, and no other."""
    head = {
        "MESSAGE": made.text,
        "PRIORITY": str(made.priority),
        "MESSAGE_ID": made.message_id,
        "SYSLOG_IDENTIFIER": "netsrvd",
    }
    expected = head | dict(made.fields)
    assert journal_fields(journal.encoded(made, None)) == expected
    short = {
        name: value if name in ("PRIORITY", "MESSAGE_ID") else value[: journal.SHORTENED]
        for name, value in expected.items()
    }
    assert journal_fields(journal.encoded(made, journal.SHORTENED)) == short


def _suits_syslog(made: Record) -> None:
    whole = syslog.encoded(made, time.gmtime(0), 7)
    line = whole.decode()
    assert line.isprintable()
    assert re.match(r"<\d{1,2}>Jan  1 00:00:00 netsrvd\[7\]: ", line)
    short = syslog.shortened(whole, syslog.LONGEST_LINE).decode()
    assert line.startswith(short)
    assert len(short.encode()) <= syslog.LONGEST_LINE


def _suits_standard_error(made: Record) -> None:
    """See that no line looks like another record than the one it belongs to."""
    lines = stderr.for_systemd(made, 0.0).split("\n")
    assert lines.pop() == ""
    assert lines[0] == f"<{made.priority}>{made.text}"
    assert all(line.startswith(f"<{made.priority}>    ") for line in lines[1:])
    head, *others = stderr.for_people(made, 0.0).split("\n")
    assert head.endswith(made.text)
    assert others.pop() == ""
    assert all(line.startswith("    ") and line.isprintable() for line in others)
