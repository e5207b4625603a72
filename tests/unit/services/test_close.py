"""netsrvd.services.close"""

from tests.support.service_client import CLIENT, answered, prepared


def test_close_says_nothing_and_is_done() -> None:
    """A connection has its end at once, a datagram has no answer, not even an empty one."""
    service = prepared("close")
    stream = service.stream(CLIENT, 0.0)
    assert stream.finished
    assert stream.discards_input
    assert stream.greeting() == stream.respond(b"x") == stream.more() == b""
    assert answered(service, b"x") is None
