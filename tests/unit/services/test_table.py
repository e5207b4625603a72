"""netsrvd.services: what holds for each row of the table"""

from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.services import SERVICES
from netsrvd.services.base import Datagrams, Stream
from tests.support.service_client import CLIENT, answered, prepared

AT = 1_800_000_000.0

ONE_WAY = ("daytime", "time", "qotd", "active", "whoami")
"""The services that say something at once and then no more."""

ANSWERS_REQUESTS = ("metrics",)
"""The services whose connections are not handed over."""


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_keeps_the_contract(name: str) -> None:
    """Each has all that the listeners call."""
    service = prepared(name)
    stream: Stream = service.stream(CLIENT, AT)
    assert isinstance(stream.greeting(), bytes)
    assert isinstance(stream.respond(b"x"), bytes)
    assert isinstance(stream.more(), bytes | None)
    assert isinstance(stream.finished, bool)
    assert isinstance(stream.discards_input, bool)
    assert stream.answers_requests == stream.end_soon() == (name in ANSWERS_REQUESTS)
    datagrams: Datagrams = service.datagrams
    assert isinstance(datagrams.is_echo, bool)
    assert 0 <= datagrams.reply_floor_bytes <= 64
    assert isinstance(datagrams.answer(memoryview(b"x"), CLIENT, AT), bytes | None)
    assert name.islower()


@pytest.mark.parametrize("name", ONE_WAY)
def test_a_one_way_service_says_all_at_once(name: str) -> None:
    """By TCP there is one greeting and no answer, whatever the client sends, which is thrown away
    meanwhile; by UDP there is the same text.
    """
    service = prepared(name, CLIENT)
    stream = service.stream(CLIENT, AT)
    said = stream.greeting()
    assert said
    assert stream.finished
    assert stream.discards_input
    assert stream.respond(b"x" * 1000) == stream.more() == b""
    assert answered(service, b"x" * 1000, at=AT) == said
    assert not service.datagrams.is_echo


@pytest.mark.parametrize(
    ("name", "floor"),
    [("daytime", 64), ("time", 4), ("whoami", 48), ("qotd", 0), ("active", 0), ("stamp", 44)],
)
def test_what_an_empty_datagram_is_worth(name: str, floor: int) -> None:
    """Short answers fit an empty datagram; long ones are never more than what was sent."""
    assert prepared(name).datagrams.reply_floor_bytes == floor


def test_no_other_service_answers_more_than_was_sent() -> None:
    """The floors above are all that there are."""
    for name in {*SERVICES} - {*ONE_WAY, "stamp"}:
        assert prepared(name).datagrams.reply_floor_bytes == 0


@pytest.mark.parametrize("name", [each for each in SERVICES if each not in ANSWERS_REQUESTS])
@given(
    asked=st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    taken=st.lists(st.integers(0, 40_000), max_size=8),
    cuts=st.sets(st.integers(0, 15), max_size=6),
)
def test_a_stream_goes_on_in_another_process(
    name: str, asked: list[bytes], taken: list[int], cuts: set[int]
) -> None:
    """Wherever a restart cuts it, what the client gets is byte for byte what it would have got."""
    assert heard(name, asked, taken, cuts) == heard(name, asked, taken, set())


def heard(name: str, asked: list[bytes], taken: list[int], cuts: set[int]) -> bytes:
    """Return all that a client is sent that asks this and takes `taken` bytes, a number a step.

    Before the steps whose numbers are in `cuts` the connection moves to another process.
    """
    service = prepared(name)
    stream = service.stream(CLIENT, AT)
    backlog, received = stream.greeting(), b""
    for step, (question, count) in enumerate(zip_longest(asked, taken, fillvalue=None)):
        if step in cuts:
            stream = service.stream(CLIENT, AT)
        if question and (stream.discards_input or not backlog):
            backlog += stream.respond(question)
        if not backlog and not stream.finished:
            backlog = stream.more()
        received, backlog = received + backlog[: count or 0], backlog[count or 0 :]
    return received + backlog
