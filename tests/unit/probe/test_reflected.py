"""netsrvd.probe.stamp and netsrvd.probe.echoplus: what replies of reflectors say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.packets import stamp, udpechoplus
from netsrvd.probe.echoplus import EchoPlus
from netsrvd.probe.exchange import Answer
from netsrvd.probe.stamp import MOST_SENT, Stamp

KEY = bytes(range(32))
NOW_NS = 1_700_000_000_250_000_000
SECOND_NS = 1_000_000_000


def reply(
    payload: bytes,
    received_ns: int = NOW_NS + 10_000_000,
    sent_ns: int = NOW_NS + 12_000_000,
    *,
    key: bytes | None = None,
    is_ptp: bool = False,
    count: int = 7,
    tos: int = 40,
) -> bytes:
    """Return the reply of a reflector that counts."""
    request = stamp.read_request(payload, key)
    timestamp = stamp.ptp_timestamp if is_ptp else stamp.ntp_timestamp
    answers = {
        stamp.EXTRA_PADDING: stamp.as_received,
        stamp.CLASS_OF_SERVICE: lambda value: stamp.answer_class_of_service(
            value, tos, frozenset()
        ),
    }
    return stamp.make_reply(
        request,
        timestamp(sent_ns),
        timestamp(received_ns),
        stamp.make_error_estimate(5000, is_synchronised=True, is_ptp=is_ptp),
        sequence=count,
        ttl=61,
        tlvs=stamp.reflect_tlvs(
            request.tlvs, answers, sequence=request.sequence, reply_sequence=count, key=key
        ),
        key=key,
    )


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("is_ptp", [False, True])
def test_stamp_times(key: bytes | None, is_ptp: bool) -> None:  # noqa: FBT001 - pytest's
    """Times of the reflector, its count, the TTL there and its clock's error are read."""
    exchange = Stamp(0, key, 0, None)
    found = exchange.read(reply(exchange.request(3, NOW_NS), key=key, is_ptp=is_ptp))
    assert found
    assert found.received_ns == pytest.approx(NOW_NS + 10_000_000, abs=1)
    assert found.sent_ns == pytest.approx(NOW_NS + 12_000_000, abs=1)
    assert (found.sequence, found.reflector_count, found.ttl) == (3, 7, 61)
    assert (found.truncated, found.damaged, found.dscp) == (False, False, None)
    assert found.synchronised
    assert found.error_ns == pytest.approx(5000, rel=0.01)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 30, 1000])
def test_stamp_sizes(key: bytes | None, size: int) -> None:
    """A probe is padded to the length that was asked for, by a TLV where one fits."""
    base = stamp.OPEN_BYTES if key is None else stamp.AUTHENTICATED_BYTES
    exchange = Stamp(base + size, key, 9, None)
    payload = exchange.request(1, NOW_NS)
    assert len(payload) == base + size
    request = stamp.read_request(payload, key)
    assert request.ssid == 9
    assert [each.type for each in stamp.read_tlvs(request.tlvs)] == [stamp.EXTRA_PADDING] * (
        size >= 4
    )
    answer = exchange.read(reply(payload, key=key))
    assert answer
    assert not answer.truncated
    if size and key is None:
        cut = exchange.read(reply(payload)[:-1])
        assert cut
        assert cut.truncated


@pytest.mark.parametrize("key", [None, KEY])
def test_stamp_tells_the_dscp_that_arrived(key: bytes | None) -> None:
    """With a DSCP the reflector is asked for it, and tells the one with which a probe came."""
    exchange = Stamp(200, key, 0, 46)
    payload = exchange.request(1, NOW_NS)
    request = stamp.read_request(payload, key)
    first = stamp.read_tlvs(request.tlvs)[0]
    assert (first.type, first.value[0] >> 2) == (stamp.CLASS_OF_SERVICE, 46)
    if key:
        assert stamp.are_tlvs_authentic(request.tlvs, 1, key)
    found = exchange.read(reply(payload, key=key, tos=8 << 2))
    assert found
    assert found.dscp == 8
    plain = stamp.make_reply(
        request, *[bytes(8)] * 2, 1, sequence=1, ttl=1, tlvs=request.tlvs, key=key
    )
    unknowing = exchange.read(plain)
    assert unknowing
    assert unknowing.dscp is None


def test_stamp_believes_authentic_tlvs_alone() -> None:
    """With a key, a DSCP that somebody on the way has changed is not told (RFC 8972, 4.8)."""
    exchange = Stamp(200, KEY, 0, 46)
    answer = bytearray(reply(exchange.request(1, NOW_NS), key=KEY, tos=8 << 2))
    found = exchange.read(bytes(answer))
    assert found
    assert found.dscp == 8
    answer[stamp.AUTHENTICATED_BYTES + stamp.HEAD_BYTES + 1] ^= 16
    forged = exchange.read(bytes(answer))
    assert forged
    assert forged.dscp is None


def test_stamp_of_others() -> None:
    """A reply without the timestamp of its probe, or the key, is of none; so is a short one."""
    exchange = Stamp(0, None, 0, None)
    payload = exchange.request(1, NOW_NS)
    other = Stamp(0, None, 0, None).request(1, NOW_NS + SECOND_NS)
    assert exchange.read(reply(other)) is None
    assert exchange.read(reply(payload)[:37]) is None
    assert exchange.read(b"") is None
    assert exchange.read(payload) is None
    authentic = Stamp(0, KEY, 0, None)
    answer = bytearray(reply(authentic.request(1, NOW_NS), key=KEY))
    assert authentic.read(bytes(answer))
    answer[0] ^= 1
    assert authentic.read(bytes(answer)) is None


def test_stamp_without_a_time() -> None:
    """A reply whose error is the largest one has no times: the first one of an activation."""
    exchange = Stamp(0, None, 0, None)
    payload = bytearray(reply(exchange.request(1, NOW_NS)))
    payload[12:14] = b"\x3f\xff"
    found = exchange.read(bytes(payload))
    assert found
    assert (found.sequence, found.received_ns, found.sent_ns, found.error_ns) == (1, *[None] * 3)


def test_stamp_of_twamp_light() -> None:
    """A reply that ends behind the sender's error estimate has times, and no TTL."""
    exchange = Stamp(0, None, 0, None)
    found = exchange.read(reply(exchange.request(1, NOW_NS))[:38])
    assert found
    assert (found.sequence, found.ttl, found.truncated) == (1, None, True)


def test_stamp_remembers_some() -> None:
    """What is remembered of probes is bounded, and the last ones are recognised."""
    exchange = Stamp(0, None, 0, None)
    payloads = [exchange.request(number, NOW_NS) for number in range(1, MOST_SENT + 3)]
    assert exchange.read(reply(payloads[0])) is None
    assert exchange.read(reply(payloads[-1]))


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 10**6)), max_size=20))
def test_echoplus_times_do_not_wrap(steps: list[tuple[int, int]]) -> None:
    """Times that wrap at 32 bits of microseconds are returned as those of a clock that goes on."""
    exchange = EchoPlus(100, 77)
    at, first = 2**32 - 5, None
    for number, (step, inside) in enumerate(steps):
        at += step
        answer = exchange.read(
            udpechoplus.make_reply(exchange.request(number), number + 1, at, at + inside, 0)
        )
        assert answer
        assert answer.sequence == number
        assert answer.reflector_count == number + 1
        assert answer.received_ns is not None
        assert answer.sent_ns is not None
        assert answer.sent_ns - answer.received_ns == inside * 1000
        first = (answer.received_ns, at) if first is None else first
        assert answer.received_ns - first[0] == (at - first[1]) * 1000


def test_echoplus_of_a_plain_echo() -> None:
    """A reflector that only echoes is an answer without times; others' datagrams are none."""
    exchange = EchoPlus(30, 77)
    payload = exchange.request(5)
    assert len(payload) == 30
    assert exchange.read(payload) == Answer(5)
    assert exchange.read(payload[:-1]) == Answer(5, truncated=True)
    assert exchange.read(payload[:-1] + b"?") == Answer(5, damaged=True)
    assert exchange.read(payload[:23]) is None
    assert exchange.read(EchoPlus(30, 78).request(5)) is None
