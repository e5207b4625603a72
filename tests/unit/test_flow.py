"""netsrvd.flow"""

import pytest

from netsrvd.access.sources import Source
from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.flow import Flow
from netsrvd.settings import ListenerSettings

PEER = ("192.0.2.1", 40_000)
SETTINGS = ListenerSettings("lab")


def flow(
    host: str = "192.0.2.9",
    *,
    source_unknown: bool = False,
) -> Flow:
    """Return a flow that began at 100 seconds."""
    return Flow(
        SETTINGS, PEER, (host, 7), Source(PEER[0], None), 100.0, source_unknown=source_unknown
    )


def test_a_flow_begins_with_a_record() -> None:
    """The first datagram of a peer is told, with the address that it was sent to."""
    assert flow().began() == FlowBegan("lab", "echo", *PEER, "192.0.2.9", 7)


def test_a_flow_ends_with_a_summary() -> None:
    """What came is what was answered and what was not, for each of its reasons."""
    made = flow()
    made.received, made.refused, made.truncated, made.unsent = 10, 1, 2, 3
    made.bytes_received, made.bytes_unanswered = 1000, 600
    made.active_at, made.error = 102.5, "oh"
    assert made.ended("silent") == FlowEnded(
        *("lab", "echo", *PEER, "192.0.2.9", 7, "silent", 2.5),
        datagrams_received=10,
        datagrams_sent=4,
        datagrams_refused=1,
        datagrams_truncated=2,
        datagrams_unsent=3,
        bytes_received=1000,
        bytes_sent=400,
        error="oh",
    )


@pytest.mark.parametrize(
    ("is_logged", "has_began", "error", "has_end"),
    [
        (True, True, "", True),
        (True, False, "", False),  # one of too many new flows in a second
        (True, False, "oh", False),
        (False, False, "", False),
        (False, False, "oh", True),
    ],
)
def test_the_end_has_a_record_if_the_beginning_had(
    is_logged: bool,  # noqa: FBT001
    has_began: bool,  # noqa: FBT001
    error: str,
    has_end: bool,  # noqa: FBT001
) -> None:
    """An unlogged flow has one after an error alone."""
    made = flow()
    made.is_logged, made.has_began_record, made.error = is_logged, has_began, error
    assert made.has_end_record == has_end


def test_its_records_name_the_proxy() -> None:
    """If another one sent for the peer, all records say who, in fields of their own."""
    made = flow()
    made.proxy = ("10.0.0.1", 443)
    for record in (made.began(), made.ended("silent"), made.service_failed(ValueError())):
        assert (record.peer_address, record.peer_port) == PEER
        assert (record.proxy_address, record.proxy_port) == ("10.0.0.1", "443")
    assert made.began().text().endswith(" sends to 192.0.2.9:7 via 10.0.0.1:443")


@pytest.mark.parametrize(
    ("host", "unknown", "pinned", "special"),
    [
        ("192.0.2.9", False, False, False),
        ("2001:db8::9", False, False, False),
        ("fe80::9", False, True, True),
        ("169.254.0.9", False, True, True),
        ("192.0.2.9", True, False, True),
    ],
)
def test_some_answers_need_more_than_the_routing_table(
    host: str,
    unknown: bool,  # noqa: FBT001
    pinned: bool,  # noqa: FBT001
    special: bool,  # noqa: FBT001
) -> None:
    """A link-local address does not tell its interface; an unknown source has to be filled in."""
    made = flow(host, source_unknown=unknown)
    assert (made.is_link_local, made.needs_source) == (pinned, special)
