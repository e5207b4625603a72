"""netsrvd.services.chargen, against RFC 864"""

from hashlib import sha256

from netsrvd.services import chargen
from tests.support.service_client import CLIENT

DIGEST = "d5d3e80916ad39ad74782baa349c20b17fed165ef4e6156f6eecd59c0e6e7285"
"""Of the 95 lines whose first ones the RFC prints; computed without this program."""

FIRST = b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh\r\n"


def test_the_pattern_is_that_of_the_rfc() -> None:
    """95 characters in lines of 72, the first line as it is printed, each one later by one."""
    assert chargen.PATTERN.startswith(FIRST + FIRST[1:72] + b"i\r\n")
    assert len(chargen.PATTERN) == 95 * 74
    assert sha256(chargen.PATTERN).hexdigest() == DIGEST


def test_a_stream_never_ends_and_has_no_seam() -> None:
    """Each piece goes on where the one before ended, whatever the client sends meanwhile."""
    stream = chargen.Stream()
    said = stream.greeting() + stream.respond(b"stop!") + stream.more() + stream.more()
    assert said == chargen.PATTERN * (len(said) // len(chargen.PATTERN))
    assert len(said) > 2 * len(chargen.PATTERN)
    assert stream.discards_input
    assert not stream.finished


def test_a_datagram_has_up_to_512_characters() -> None:
    """Their number is random, from 0 to 512, and they are the beginning of the pattern."""
    answers = [chargen.Datagrams().answer(memoryview(b"x"), CLIENT, 0.0) for _ in range(5000)]
    lengths = {len(answer) for answer in answers}
    assert min(lengths) < 20
    assert 500 < max(lengths) <= 512
    assert len(lengths) > 400
    assert all(chargen.PATTERN.startswith(answer) for answer in answers)
