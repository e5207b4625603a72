"""netsrvd.services.echo"""

from hypothesis import given
from hypothesis import strategies as st

from netsrvd.services import echo

CHUNKS = st.lists(st.binary(max_size=100))


@given(CHUNKS)
def test_echo_sends_back_every_byte_in_order(chunks: list[bytes]) -> None:
    """What comes in goes out, however it is cut; nothing is added before, after or between."""
    service = echo.Stream()
    said = service.greeting() + b"".join(
        service.respond(chunk) + service.more() for chunk in chunks
    )
    assert said == b"".join(chunks)
    assert not service.finished


def test_echo_sends_back_whole_batches() -> None:
    """Every datagram is its own answer, so nobody is asked about it."""
    assert echo.Datagrams.is_echo
