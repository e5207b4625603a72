"""netsrvd.log.records"""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.events import Event, all_events
from netsrvd.events.connections import Closed, ServiceFailed
from netsrvd.log.records import LONGEST_FIELD, printable, record
from tests.support.effort import in_proportion
from tests.support.samples import hostile, sample

HOSTILE = [
    ("line\nMESSAGE=forged", r"line\nMESSAGE=forged"),
    ("\r\n<3>forged", r"\r\n<3>forged"),
    ("\x1b]0;title\x07\x9b31m", r"\x1b]0;title\x07\x9b31m"),
    ("\x00\x7f\t", r"\x00\x7f\t"),
    ("\u2028\u2029\x85\x0b\x0c\x1c", r"\u2028\u2029\x85\x0b\x0c\x1c"),
    ("\u202efdp.exe\u202c\u2066\u200f", r"\u202efdp.exe\u202c\u2066\u200f"),
    ("\ud800\udcff", r"\ud800\udcff"),
    ("\U000e0001\ufeff\u200b", r"\U000e0001\ufeff\u200b"),
    ("größe \N{GRINNING FACE} 日本", "größe \N{GRINNING FACE} 日本"),
]

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Any text that Python can have, lone surrogates included."""


@pytest.mark.parametrize(("text", "shown"), HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    """Control bytes, line breaks, turned writing and lone surrogates become their escapes."""
    assert printable(text) == shown


@given(ANY_TEXT)
def test_a_printable_text_harms_nobody(text: str) -> None:
    """Whatever came, what is left is one line, can be encoded and commands no terminal."""
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize("kind", all_events(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("text", [text for text, _ in HOSTILE], ids=range(len(HOSTILE)))
def test_no_event_lets_anything_through(kind: type, text: str) -> None:
    """Every text of every event passes through that one function, and so does its message."""
    made = record(hostile(kind, text))
    assert made.text.isprintable()
    for name, value in made.fields:
        assert re.fullmatch("[A-Z_]+", name)
        assert value.isprintable() or name == "NETSRVD_TRACEBACK"


def test_fields_are_named_for_the_journal() -> None:
    """Fields are in upper case with a prefix; numbers are written out; empty ones left away."""
    made = record(sample(Closed, connection="c-1", bytes_received=0, seconds=1.5, error=""))
    fields = dict(made.fields)
    assert fields["NETSRVD_CONNECTION"] == "c-1"
    assert fields["NETSRVD_BYTES_RECEIVED"] == "0"
    assert fields["NETSRVD_SECONDS"] == "1.500000"
    assert "NETSRVD_ERROR" not in fields
    assert (made.priority, made.message_id) == (Closed.PRIORITY, Closed.MESSAGE_ID)


def test_long_fields_are_cut() -> None:
    """A record fits a datagram whatever its texts are: each is cut, and shows that it was."""
    made = record(sample(Closed, error="x" * 100_000))
    cut = dict(made.fields)["NETSRVD_ERROR"]
    assert (len(cut), cut[-1]) == (LONGEST_FIELD, "…")
    assert (len(made.text), made.text[-1]) == (LONGEST_FIELD, "…")


def test_escapes_do_not_make_a_field_longer() -> None:
    """A text is cut as it is written, so escapes count, too."""
    assert len(printable("\x00" * LONGEST_FIELD)) == LONGEST_FIELD


def test_a_traceback_keeps_its_lines() -> None:
    """A traceback has line breaks, and each of its lines is printable; the end is what counts."""
    made = record(sample(ServiceFailed, traceback="first\n  second \x1b[31m\r\nlast"))
    assert made.traceback() == "first\n  second \\x1b[31m\nlast"
    assert "\n" not in made.text
    long = record(sample(ServiceFailed, traceback="x" * 100_000 + "\nEnd"))
    assert long.traceback().endswith("\nEnd")
    assert len(long.traceback()) <= LONGEST_FIELD
    escaped = record(sample(ServiceFailed, traceback="\U000e0001\n" * 10_000 + "End"))
    assert escaped.traceback().endswith("\nEnd")
    assert len(escaped.traceback()) == LONGEST_FIELD


def test_the_effort_is_in_proportion() -> None:
    """Four times as long a text takes about four times as long, whatever has to be escaped."""

    def make(size: int) -> None:
        record(sample(ServiceFailed, error="\x00\n" * size, traceback="\x00\n" * size))

    assert in_proportion(make)


def test_most_events_have_no_traceback() -> None:
    """Without a traceback there is an empty text."""
    assert record(sample(Closed)).traceback() == ""


@pytest.mark.parametrize("kind", all_events(), ids=lambda kind: kind.__name__)
def test_its_fields_are_those_of_the_event(kind: type[Event]) -> None:
    """Every field that has something to say becomes a field of the record, zero included."""
    texts = [name for name in kind.FIELDS if isinstance(getattr(sample(kind), name), str)]
    every = [f"NETSRVD_{name.upper()}" for name in kind.FIELDS]
    silent = [f"NETSRVD_{name.upper()}" for name in texts]

    assert [name for name, _ in record(sample(kind)).fields] == every
    spoken = [name for name, _ in record(sample(kind, **dict.fromkeys(texts, ""))).fields]
    assert spoken == [name for name in every if name not in silent]
