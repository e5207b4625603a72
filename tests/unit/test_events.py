"""netsrvd.events: what holds for all of them"""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import netsrvd.events
from netsrvd.events import LEVELS, MODULES, Event, all_events, one_line
from netsrvd.events.connections import AcceptFailing, Closed
from netsrvd.events.flows import FlowEnded, ReceiveFailing
from netsrvd.events.lifecycle import Reloaded, ReloadFailed, Stopping
from netsrvd.events.log import LogFallback
from tests.support.samples import hostile, sample

EVENTS = all_events()
EACH = pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)


def test_there_is_an_event_in_each_module() -> None:
    """The list of modules is complete, and so is the list of events."""
    folder = Path(netsrvd.events.__file__).parent
    assert {*MODULES} == {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {kind.__module__.rpartition(".")[2] for kind in EVENTS} == {*MODULES}


def test_message_ids_are_unique() -> None:
    """No two events share a MESSAGE_ID: `journalctl MESSAGE_ID=...` finds one kind."""
    assert len({kind.MESSAGE_ID for kind in EVENTS}) == len(EVENTS)


@EACH
def test_a_message_id_is_a_random_number(kind: type[Event]) -> None:
    """It has 32 hexadecimal digits, in the form of a random UUID (RFC 4122), as systemd asks."""
    assert re.fullmatch("[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", kind.MESSAGE_ID)


@EACH
def test_an_event_explains_itself(kind: type[Event]) -> None:
    """The subject is a line, the docstring says what it means; both stand in the catalog."""
    assert kind.SUBJECT
    assert kind.SUBJECT.isprintable()
    assert (inspect.getdoc(kind) or "").endswith(".")
    assert kind.PRIORITY in LEVELS.values()


@EACH
def test_its_text_is_one_line(kind: type[Event]) -> None:
    """The message is one line that names where it happened."""
    text = sample(kind).text()
    assert text.isprintable()
    assert len(text) > 10


@EACH
def test_its_text_says_what_its_fields_say(kind: type[Event]) -> None:
    """Whatever text the fields have, the message can be made of it."""
    assert hostile(kind, "\x1b\n").text()


@EACH
def test_it_is_frozen(kind: type[Event]) -> None:
    """An event travels between threads, so nobody can change it."""
    event = sample(kind)
    for name in (*kind.FIELDS, "invented"):
        with pytest.raises(AttributeError):
            setattr(event, name, None)


@pytest.mark.parametrize(
    ("event", "part"),
    [
        (sample(Closed, error="oh"), "text (oh), 1.500 s"),
        (sample(FlowEnded, error="oh"), "unsent, last error: oh"),
        (Reloaded("", "log.queue"), "nothing changed; only after a restart: log.queue"),
        (Reloaded("log.level"), "configuration reloaded: log.level"),
        (ReloadFailed("one\ntwo"), "stays: one; two"),
        (Stopping("SIGTERM", 0, 10.0), "stopping on SIGTERM: nothing to drain"),
        (Stopping("SIGTERM", 2, 0.5), "draining 2 connections for up to 0.5 s"),
        (sample(AcceptFailing, pause_ms=0), "text; going on"),
        (sample(AcceptFailing, pause_ms=100), "text; trying again every 100 ms"),
        (sample(ReceiveFailing, pause_ms=0), "text; going on"),
        (sample(ReceiveFailing, pause_ms=100), "text; trying again every 100 ms"),
    ],
)
def test_texts_with_two_forms(event: Event, part: str) -> None:
    """What is not there is not spoken of; what can be survived says what happens next."""
    assert part in event.text()


def test_one_line() -> None:
    """Line breaks of all sorts become semicolons."""
    assert one_line("one\ntwo\r\nthree\x0bfour\u2028five\n") == "one; two; three; four; five"


def test_the_root_says_nothing() -> None:
    """An event without a text of its own is a mistake."""
    with pytest.raises(NotImplementedError):
        Event().text()


def test_an_event_is_made_by_order_or_by_name() -> None:
    """Fields come in the order of the class or by their names, with the defaults that it gives."""
    made = Stopping("SIGTERM", 2, drain_seconds=0.5)
    assert made == Stopping(connections=2, signal="SIGTERM", drain_seconds=0.5, purpose="stop")
    assert (made.signal, made.connections, made.purpose) == ("SIGTERM", 2, "stop")
    assert repr(made) == (
        "Stopping(signal='SIGTERM', connections=2, drain_seconds=0.5, purpose='stop')"
    )


def test_events_of_two_kinds_are_never_equal() -> None:
    """Though their fields are; equal ones have equal hashes."""
    one, other = Reloaded("a", "b"), LogFallback("a", "b", "")
    assert tuple(one)[:2] == tuple(other)[:2]
    assert one != tuple(one)
    assert hash(one) == hash(Reloaded("a", "b"))
    assert Reloaded("a") == Reloaded("a", "")
    assert Reloaded("a") != ReloadFailed("a")


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), (("a", 1), {}), (("a", 1, 2.0, "b", "c"), {}), (("a", 1, 2.0), {"invented": 3})],
)
def test_an_event_has_all_its_fields_and_no_other(values: Any, named: Any) -> None:
    """Too few, too many or unknown ones are bugs, and told."""
    with pytest.raises(TypeError, match="Stopping has the fields signal, connections"):
        Stopping(*values, **named)
