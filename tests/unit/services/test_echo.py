"""netsrvd.services: the table, and echo"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.listeners.contracts import StreamService
from netsrvd.services import SERVICES, echo

CHUNKS = st.lists(st.binary(max_size=100))


class Batch:
    """A batch that remembers what it was asked for."""

    def __init__(self) -> None:
        self.replies: list[int] = []

    def reply_as_received(self, count: int) -> None:
        self.replies.append(count)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_keeps_the_contract(name: str) -> None:
    """Each service can be made without arguments and has all that the listeners call."""
    stream, datagrams, _ = SERVICES[name]
    service: StreamService = stream()
    assert isinstance(service.greeting(), bytes)
    assert isinstance(service.respond(b"x"), bytes)
    assert isinstance(service.more(), bytes)
    assert isinstance(service.finished, bool)
    assert callable(datagrams().answer)
    assert name.islower()


@given(CHUNKS)
def test_echo_sends_back_every_byte_in_order(chunks: list[bytes]) -> None:
    """What comes in goes out, however it is cut; nothing is added before, after or between."""
    service = echo.Stream()
    said = service.greeting() + b"".join(
        service.respond(chunk) + service.more() for chunk in chunks
    )
    assert said == b"".join(chunks)
    assert not service.finished


@given(st.lists(st.integers(1, 64)))
def test_echo_sends_back_whole_batches(counts: list[int]) -> None:
    """Every datagram of a batch is its own answer, asked for in one call."""
    batch = Batch()
    for count in counts:
        echo.Datagrams().answer(batch, count)
    assert batch.replies == counts
