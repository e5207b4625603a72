"""netsrvd.overview: what the status page shows"""

import pytest

from netsrvd.counters import ByReason, Counters, Gauges, RunFigures
from netsrvd.overview import of
from netsrvd.run_state import RunNotes
from netsrvd.services.page import CHARTS
from netsrvd.snapshot import Address, ListenerFigures, Snapshot

NOTES = RunNotes("/etc/netsrvd/netsrvd.toml")
NOW = 1_800_000_000.0
LOOPBACK = Address("127.0.0.1", 7, "systemd", "")


def snapshot(**run: float) -> Snapshot:
    """Return the figures of a listener that serves both protocols."""
    tcp = Counters(
        accepted=5,
        refused=ByReason(rate=2, access=0),
        closed=ByReason(client=3),
        accept_errors=1,
        bytes_received=1000,
        bytes_sent=2000,
    )
    udp = Counters(
        datagrams_received=40,
        datagrams_refused=ByReason(port=4),
        datagrams_dropped=1,
        datagrams_truncated=2,
        datagrams_unsent=4,
        bytes_received=10,
        bytes_sent=20,
    )
    figures = RunFigures(
        **{"start_time": NOW - 90_000, "connections_limit": 100, "reload_successful": 1, **run}
    )
    both = (
        ListenerFigures(
            "lab", "echo", "tcp", (LOOPBACK,), tcp, Gauges(connections=2, connections_limit=10)
        ),
        ListenerFigures("lab", "echo", "udp", (), udp, Gauges(flows_live=3)),
    )
    retired = Counters(accepted=1)
    return Snapshot("1.0", figures, both, retired, retired + tcp + udp)


def test_a_row_for_each_listener_and_protocol() -> None:
    """What came, was refused and was lost is counted in connections or in datagrams."""
    [listeners, refusals, ended] = of(snapshot(), NOTES, NOW, "").tables
    assert list(listeners.rows) == [
        *[
            (
                "lab",
                "echo",
                "tcp",
                "127.0.0.1:7 (systemd)",
                *["2", "10", "5", "2", "1", "1,000", "2,000"],
            )
        ],
        ("lab", "echo", "udp", "", "3", "", "40", "4", "7", "10", "20"),
    ]
    assert list(refusals.rows) == [("lab", "tcp", "rate", "2"), ("lab", "udp", "port", "4")]
    assert list(ended.rows) == [("lab", "tcp", "client", "3")]


def test_numbers_of_the_history() -> None:
    """They are sums, with those of listeners that were removed, and there is one for each chart."""
    found = of(snapshot(), NOTES, NOW, "")
    assert {*found.series} == {each.key for each in CHARTS}
    assert found.series == {
        "connections": 2,
        "accepted": 6,
        "datagrams": 40,
        "received": 1010,
        "sent": 2020,
        "refused": 6,
    }


@pytest.mark.parametrize(
    ("run", "marked"),
    [
        ({}, set()),
        ({"log_records_lost": 1}, {"lost"}),
        ({"connections_limit": 2}, {"live"}),
        ({"udp_lag": 0.1}, {"lag"}),
    ],
)
def test_what_needs_somebody_is_marked(run: dict[str, float], marked: set[str]) -> None:
    """Lost records, a limit that is reached, lag."""
    found = of(snapshot(**run), NOTES, NOW, "")
    assert {each.key for each in found.facts if each.is_bad} == marked


def test_what_is_wrong_with_the_configuration_is_said() -> None:
    """Why the last reload failed, and what passed sockets do not put into force."""
    notes = RunNotes("/etc/netsrvd/netsrvd.toml", "no such key", ("one", "other"))
    found = of(snapshot(), notes, NOW, "")
    assert {each.key: each.text for each in found.facts if each.is_bad} == {
        "configuration": "The last reload failed: no such key",
        "problems": "one; other",
    }


def test_an_instance_is_told_apart() -> None:
    """By its unit, in the title; the time of the run has two units."""
    found = of(snapshot(), NOTES, NOW, "netsrvd@2.service")
    assert found.title == "netsrvd netsrvd@2.service"
    assert of(snapshot(), NOTES, NOW, "").title == "netsrvd"
    [since] = [each.text for each in found.facts if each.key == "since"]
    assert since.endswith(" (1 d 1 h)")
