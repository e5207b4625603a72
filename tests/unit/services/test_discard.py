"""netsrvd.services.discard"""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.service_client import CLIENT, prepared


@given(st.lists(st.binary(max_size=100)))
def test_discard_never_says_anything(chunks: list[bytes]) -> None:
    """Whatever comes there is no answer, not even an empty one, and no end (RFC 863)."""
    service = prepared("discard")
    stream = service.stream(CLIENT, 0.0)
    assert stream.greeting() == stream.more() == b""
    for chunk in chunks:
        assert stream.respond(chunk) == stream.more() == b""
        assert service.datagrams.answer(memoryview(chunk), CLIENT, 0.0) is None
    assert not stream.finished
    assert not service.datagrams.is_echo
