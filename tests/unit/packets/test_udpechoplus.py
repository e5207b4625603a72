"""UDPEchoPlus packets are byte for byte those of TR-143."""

from hypothesis import given
from hypothesis import strategies as st

from netsrvd.packets import udpechoplus

REQUEST = bytes.fromhex("000000010000000000000000000000000000000000000001")
WORDS = st.integers(0, 2**32 - 1)


def test_a_request_and_its_reply() -> None:
    """The server's four words are filled in between the client's two, which are kept."""
    assert udpechoplus.make_request(1, 1) == REQUEST
    made = udpechoplus.make_reply(REQUEST, 1, 0x1020304, 0x5060708, 0)
    assert made.hex() == "000000010000000101020304050607080000000000000001"
    assert udpechoplus.read(made) == (1, 1, 0x1020304, 0x5060708, 0, 1)


def test_what_is_shorter_is_a_plain_echo() -> None:
    """Of 23 bytes nothing is read."""
    assert udpechoplus.read(REQUEST[:23]) is None


@given(WORDS, WORDS, st.lists(st.integers(0, 2**70), min_size=4, max_size=4), st.binary())
def test_data_are_kept_and_numbers_wrap(
    sequence: int, iteration: int, words: list[int], data: bytes
) -> None:
    """All behind the head comes back; what does not fit 32 bits wraps."""
    sent = udpechoplus.make_request(sequence, iteration, data)
    made = udpechoplus.make_reply(sent, *words)
    assert udpechoplus.read(made) == (sequence, *(word % 2**32 for word in words), iteration)
    assert made[24:] == data
