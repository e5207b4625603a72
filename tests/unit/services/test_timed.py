"""netsrvd.services.timed, stamp and echoplus: what a reflector remembers is bounded"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from netsrvd.packets import stamp, udpechoplus
from netsrvd.services import stamp as service
from netsrvd.services.timed import MOST_SESSIONS, SESSION_SECONDS, Sessions
from tests.support.service_client import CLIENT, FakeClient, prepared

SECOND_NS = 1_000_000_000
AT_NS = 1_800_000_000 * SECOND_NS


class FakeArrival(NamedTuple):
    """How a datagram came."""

    destination: bytes = bytes([192, 0, 2, 9])
    received_ns: int = AT_NS
    ttl: int | None = 61
    tos: int = 0


def request(number: int = 1, **other: Any) -> bytes:
    return stamp.make_request(number, bytes(8), 1, **other)


def test_a_silent_session_is_forgotten() -> None:
    """After 900 s; a packet before that begins them anew."""
    sessions = Sessions(object)
    first = sessions.find("one", 0.0)
    assert sessions.find("one", SESSION_SECONDS - 1) is first
    assert sessions.find("one", 2 * SESSION_SECONDS - 2) is first
    assert sessions.find("one", 3 * SESSION_SECONDS) is not first
    sessions.find("two", 10 * SESSION_SECONDS)
    assert len(sessions._found) == 1


def test_sessions_are_bounded() -> None:
    """The one that was silent for the longest leaves for one more."""
    sessions = Sessions(object)
    kept = [sessions.find(number, 1.0) for number in range(MOST_SESSIONS)]
    assert sessions.find(0, 2.0) is kept[0]
    sessions.find("one more", 3.0)
    assert len(sessions._found) == MOST_SESSIONS
    assert sessions.find(0, 4.0) is kept[0]
    assert sessions.find(1, 5.0) is not kept[1]


def answer(made: Any, payload: bytes, now: float = 0.0, *, sends: bool = True) -> bytes:
    """Return the reply to a packet, and have it sent or not."""
    reply = made.reply(payload, CLIENT, FakeArrival(), now)
    data: bytes = reply.finish(AT_NS + SECOND_NS)
    if sends:
        reply.sent_ns = AT_NS + SECOND_NS + 1
    return data


def test_a_reply_that_could_not_be_sent_has_no_number() -> None:
    """A stateful reflector counts replies: a lost number would look like a lost packet."""
    made: Any = prepared("stamp", stamp_stateful=True).datagrams
    numbers = [
        stamp.read_reply(answer(made, request(), sends=sends)).sequence
        for sends in (True, False, True, True)
    ]
    assert numbers == [0, 1, 1, 2]


def test_a_session_is_that_of_both_ends() -> None:
    """Another port of the sender, another address of ours, or another SSID is another session."""
    made: Any = prepared("stamp", stamp_stateful=True).datagrams
    answer(made, request())
    for client, ssid in (
        (FakeClient(peer=("192.0.2.1", 40_001)), 0),
        (FakeClient(local=("192.0.2.8", 7)), 0),
        (CLIENT, 1),
    ):
        reply = made.reply(request(ssid=ssid), client, FakeArrival(), 0.0)
        assert reply.sequence == 0
    assert made.reply(request(), CLIENT, FakeArrival(), 0.0).sequence == 1


def test_replies_are_not_kept() -> None:
    """A session keeps its last reply, and that one no other."""
    made: Any = prepared("stamp", stamp_stateful=True).datagrams
    for number in range(5):
        answer(made, request(number, tlvs=bytes(1000)))
    session = made._sessions.find((CLIENT.peer, CLIENT.local, 0), 0.0)
    assert session.last._session is None
    assert session.last._tlvs == b""
    echo: Any = prepared("echoplus").datagrams
    for number in range(5):
        answer(echo, udpechoplus.make_request(number, 1, bytes(1000)))
    assert echo._sources.find(CLIENT.peer[0], 0.0)._last._source is None


@pytest.mark.parametrize(
    ("arrival", "ttl", "is_known"),
    [
        (FakeArrival(), 61, True),
        (FakeArrival(ttl=None), 255, True),
        (FakeArrival(received_ns=0), 61, False),
    ],
)
def test_what_the_kernel_has_not_told(arrival: FakeArrival, ttl: int, is_known: bool) -> None:  # noqa: FBT001
    """An unknown TTL is 255 (RFC 5357, 4.2.1); an unknown time has the largest error."""
    made: Any = prepared("stamp", stamp_clock="ntp", stamp_clock_error_seconds=0.001).datagrams
    reply = stamp.read_reply(made.reply(request(), CLIENT, arrival, 0.0).finish(AT_NS + 5))
    assert reply.sender_ttl == ttl
    times = [stamp.time_of(each, 1, AT_NS) for each in (reply.received, reply.timestamp)]
    assert times == ([AT_NS, AT_NS + 5] if is_known else [AT_NS + 5, AT_NS + 5])
    assert (reply.error_estimate == 0x3FFF) != is_known


def test_an_echo_that_could_not_be_sent_is_a_failure() -> None:
    """It is counted as one, and not as a reply, when the next request comes."""
    made: Any = prepared("echoplus").datagrams
    found = [
        udpechoplus.read(answer(made, udpechoplus.make_request(1, 1), sends=sends))
        for sends in (True, False, True, True)
    ]
    assert [each and (each.response_sequence, each.failures) for each in found] == [
        *((1, 0), (2, 0), (2, 1), (3, 1)),
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\n\n", b"secret\n"),
        (b"hex:00ff\n", b"\0\xff"),
        (b"hex:00 ff", b"\0\xff"),
        (b"x" * 1024, b"x" * 1024),
        (b"hex:" + b"61" * 1024, b"a" * 1024),
    ],
)
def test_forms_of_a_key(tmp_path: Any, text: bytes, key: bytes) -> None:
    """A text without the line feed at its end, or digits."""
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(text)
    assert service.read_key(str(path)) == key


@pytest.mark.parametrize("text", [b"", b"\n", b"hex:", b"hex:0", b"hex:xy", b"x" * 1025])
def test_what_is_no_key(tmp_path: Any, text: bytes) -> None:
    """An empty one, a long one, and digits that are none."""
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(text)
    with pytest.raises(ValueError, match="stamp_key: "):
        service.read_key(str(path))


Change = Callable[[bytes], bytes]


@pytest.mark.parametrize("key", [None, b"secret"], ids=["open", "authenticated"])
def test_a_reply_from_port_862_is_not_answered(tmp_path: Any, key: bytes | None) -> None:
    """With a key or without one, and a request from there is."""
    settings = {}
    if key:
        path = tmp_path / "key"
        path.touch(0o600)
        path.write_bytes(key)
        settings = {"stamp_key": str(path)}
    made: Any = prepared("stamp", **settings).datagrams
    other = FakeClient(peer=("192.0.2.1", 862))
    reply = made.reply(request(key=key), other, FakeArrival(), 0.0)
    data = reply.finish(AT_NS)
    assert made.reply(data, other, FakeArrival(), 0.0) == "it is the reply of a reflector"
    assert made.reply(data, CLIENT, FakeArrival(), 0.0).finish(AT_NS)
