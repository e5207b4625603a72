"""The payloads of probes and replies: netsrvd.probe.echo and netsrvd.probe.clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.probe.clocks import Clock, daytime_seconds, time_seconds
from netsrvd.probe.echo import LEAST_BYTES, Echo
from netsrvd.probe.exchange import Answer

TOKEN = b"8 bytes!"
OTHER = b"8 others"

SECOND_NS = 1_000_000_000


@given(st.integers(LEAST_BYTES, 3000), st.integers(0, 2**32 - 1))
def test_echo_finds_its_probes(size: int, sequence: int) -> None:
    """A probe has the length that was asked for, and comes back as itself; not as another's."""
    payload = Echo(size, TOKEN).request(sequence)
    assert len(payload) == size
    assert Echo(size, TOKEN).read(payload) == Answer(sequence)
    assert Echo(size, OTHER).read(payload) is None


@given(st.integers(LEAST_BYTES, 400), st.data())
def test_echo_sees_what_was_changed(size: int, data: st.DataObject) -> None:
    """A shorter answer is truncated, one with another byte or more of them is damaged."""
    exchange = Echo(size, TOKEN)
    payload = exchange.request(1)
    length = data.draw(st.integers(0, size))
    cut = exchange.read(payload[:length])
    if length < LEAST_BYTES:
        assert cut is None
    else:
        assert cut == Answer(1, truncated=length < size)
    assert exchange.read(payload + b"x") == Answer(1, damaged=True)
    if size > LEAST_BYTES:
        place = data.draw(st.integers(LEAST_BYTES, size - 1))
        changed = bytearray(payload)
        changed[place] ^= 0x55
        assert exchange.read(bytes(changed)) == Answer(1, damaged=True)


@pytest.mark.parametrize(
    ("payload", "near", "expected"),
    [
        ("83aa7e80", 0, 0),
        ("e8fe6f80", 1_700_000_000, 1_700_000_000),
        ("ffffffff", 2_085_978_495, 2_085_978_495),
        ("00000000", 2_085_978_496, 2_085_978_496),  # the next era begins
        ("e8fe6f80", 6_000_000_000, 5_994_967_296),
        ("e8fe6f", 0, None),
        ("e8fe6f8000", 0, None),
    ],
)
def test_time(payload: str, near: int, expected: int | None) -> None:
    """A reply of `time` is the moment nearest to now, also in the next era."""
    assert time_seconds(bytes.fromhex(payload), near) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1982-02-22T17:37:43-08:00\r\n", 383276263),
        ("Monday, February 22, 1982 17:37:43-UTC\r\n", 383247463),
        ("22 FEB 82 17:37:43 UTC\r\n", 383247463 + 3155760000),  # two digits are of this century
        ("29 NOV 2026 18:10:44 GMT\r\n", 1795975844),
        ("Monday, February 22, 1982 17:37:43-PST\r\n", None),
        ("Sun Nov 29 18:10:44 2026\r\n", None),
        ("1982-02-22T17:37:43\r\n", None),
        ("99 FEB 82 17:37:43 UTC\r\n", None),
        ("\xff", None),
        ("", None),
    ],
)
def test_daytime(line: str, expected: int | None) -> None:
    """A line with an unambiguous time zone is a moment; another one is none."""
    assert daytime_seconds(line.encode("latin-1")) == expected


def test_a_clock_tells_a_second() -> None:
    """A reply means any moment of its second; one that cannot be read is damaged."""
    clock = Clock(time_seconds)
    assert clock.request(0, 1_700_000_123 * SECOND_NS) == b""
    start = 1_700_000_000 * SECOND_NS
    reply = clock.read(bytes.fromhex("e8fe6f80"))
    assert reply == Answer(None, clock=(start, start + SECOND_NS))
    assert clock.read(b"") == Answer(None, damaged=True)
