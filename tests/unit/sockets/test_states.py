"""netsrvd.sockets.states"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.sockets.states import (
    VERSION,
    ConnectionState,
    GuestState,
    Handover,
    decode,
    encode,
)

ADDRESSES = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))
COUNTS, TIMES = st.integers(0, 1 << 62), st.floats(0, 1e9)
STATES = st.builds(
    ConnectionState,
    identity=st.text(max_size=20),
    listener=st.text(max_size=20),
    service=st.text(max_size=20),
    peer=ADDRESSES,
    local=ADDRESSES,
    opened_at=TIMES,
    active_at=TIMES,
    bytes_received=COUNTS,
    bytes_sent=COUNTS,
    backlog=st.binary(max_size=100),
    client_done=st.booleans(),
    proxy=st.none() | ADDRESSES,
    memory=st.none() | st.integers() | st.lists(st.text(max_size=5), max_size=3),
)
GUESTS = st.builds(
    GuestState,
    listener=st.text(max_size=20),
    peer=ADDRESSES,
    since=TIMES,
    header=st.binary(max_size=100),
    has_header=st.booleans(),
)
COOKIES = st.integers(0, (1 << 64) - 1)
STATE = ConnectionState(
    *("a-1", "echo", "echo", ("192.0.2.1", 40_000), ("192.0.2.9", 7)), 1.5, 2.5, 3, 4, b"\0x", True
)


def changed(**changes: Any) -> bytes:
    """Return a handover of one connection with some of its fields changed, or None for left out."""
    found = json.loads(encode(Handover(1.0, {7: STATE})))
    entry = found["connections"]["7"] | changes
    found["connections"]["7"] = {key: value for key, value in entry.items() if value is not None}
    return json.dumps(found).encode()


@given(
    TIMES,
    st.dictionaries(COOKIES, STATES, max_size=5),
    st.dictionaries(COOKIES, GUESTS, max_size=5),
)
def test_what_is_written_is_read(
    at: float, states: dict[int, ConnectionState], guests: dict[int, GuestState]
) -> None:
    """Nothing changes on the way, whatever a connection has seen."""
    handover = Handover(at, states, guests)
    assert decode(encode(handover)) == handover


def test_it_is_understood_by_older_and_newer_ones() -> None:
    """What an older process did not know is filled in; what only a newer one knows is left out."""
    assert decode(changed(memory=None, proxy=None)).connections == {7: STATE}
    assert decode(changed(invented="later")).connections == {7: STATE}
    found = json.loads(encode(Handover(1.0, {7: STATE})))
    del found["guests"]
    assert decode(json.dumps(found).encode()) == Handover(1.0, {7: STATE})
    for guests in (None, [], {"x": {}}, {"8": {"listener": 5}}):
        data = json.dumps(found | {"guests": guests}).encode()
        assert decode(data) == Handover(1.0, {7: STATE})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "malformed|Expecting"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "malformed"),
        (json.dumps({"version": VERSION + 1, "at": 1, "connections": {}}).encode(), "of version"),
        (json.dumps({"version": 1, "at": 10**400, "connections": {}}).encode(), "malformed"),
        (json.dumps({"version": 1, "at": 1, "connections": [1]}).encode(), "malformed"),
        (json.dumps({"version": 1, "at": 1, "connections": {"x": {}}}).encode(), "invalid literal"),
        (changed(peer="192.0.2.1"), "malformed"),
        (changed(peer=["192.0.2.1"]), "not enough values"),
        (changed(proxy=["192.0.2.1"]), "not enough values"),
        (changed(proxy=7), "malformed"),
        (changed(bytes_sent="many"), "malformed"),
        (changed(bytes_sent=True), "malformed"),
        (changed(backlog="?"), "malformed"),
        (changed(identity=None), "malformed"),
    ],
)
def test_what_cannot_be_understood_is_told(data: bytes, why: str) -> None:
    """A version beyond ours, or anything that `encode` does not write, is one kind of error."""
    with pytest.raises(ValueError, match=why):
        decode(data)


@pytest.mark.parametrize(
    "peer", [("nowhere", 7), ("192.0.2", 7), ("192.0.2.1", 65536), ("::1", -1), ("a\0b", 7)]
)
def test_a_peer_that_is_no_address_costs_one_connection(peer: tuple[str, int]) -> None:
    """Its state is left out; the others of the same file are read."""
    states = {1: STATE, 2: STATE._replace(peer=peer), 3: STATE._replace(proxy=peer)}
    assert decode(encode(Handover(1.0, states))).connections == {1: STATE}
