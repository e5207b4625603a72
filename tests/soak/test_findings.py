"""What is computed from the lines of a soak."""

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.lifecycle import Starting, Stopped
from netsrvd.events.refusals import Refused, RefusedAgain
from tests.soak.findings import COUNTED, Journal, fit, scraped, unbalanced
from tests.soak.load import figures

EXPOSITION = """\
# TYPE netsrvd_connections_accepted counter
netsrvd_connections_accepted_total{listener="echo",protocol="tcp"} 7
netsrvd_connections_restored_total{listener="echo",protocol="tcp"} 2
netsrvd_connections_closed_total{listener="echo",protocol="tcp",reason="client"} 5
netsrvd_connections_closed_total{listener="echo",protocol="tcp",reason="idle"} 1
netsrvd_connections{listener="echo",protocol="tcp"} 3
netsrvd_connections{listener="other",protocol="tcp"} 0
netsrvd_log_records_total 12
"""


def record(kind: type, pid: str = "7", **fields: object) -> dict[str, str]:
    """Return a record of the daemon as journalctl prints it."""
    common = {"SYSLOG_IDENTIFIER": "netsrvd", "PRIORITY": "6", "MESSAGE": "said", "_PID": pid}
    named = {f"NETSRVD_{name.upper()}": str(value) for name, value in fields.items()}
    return common | {"MESSAGE_ID": kind.MESSAGE_ID, "__REALTIME_TIMESTAMP": "1000000"} | named


def accepted(name: str, pid: str = "7") -> dict[str, str]:
    return record(Accepted, pid, connection=name, listener="echo")


def closed(name: str, pid: str = "7") -> dict[str, str]:
    return record(
        Closed,
        pid,
        connection=name,
        listener="echo",
        reason="client",
        bytes_received=3,
        bytes_sent=3,
        peer_port=4711,
    )


def stopped(pid: str, **counts: int) -> dict[str, str]:
    return record(Stopped, pid, **dict.fromkeys(COUNTED, 0) | counts)


def test_a_line_through_points() -> None:
    """Points on a line give that line; noise on both sides of it changes nothing."""
    assert fit([(0, 1), (1, 3), (2, 5)]) == (2, 1, 5)
    noisy = fit([(0, 9), (0, 11), (10, 29), (10, 31)])
    assert noisy == pytest.approx((2, 10, 30))


def test_samples_of_an_exposition() -> None:
    """Samples that are not 0 are found by their names and labels, and summed."""
    found = figures(EXPOSITION)
    assert found["connections_closed_total echo tcp client"] == 5
    assert found["log_records_total"] == 12
    assert "connections other tcp" not in found
    assert scraped(found, "connections_closed_total") == 6
    assert scraped(found, "connections_closed_total", "echo") == 6
    assert scraped(found, "connections_closed_total", "other") == 0


def test_a_scrape_that_is_unbalanced() -> None:
    """A connection that is neither closed nor live is found, with its listener."""
    found = figures(EXPOSITION)
    assert unbalanced(found) == {}
    assert unbalanced(found | {"connections echo tcp": 2.0}) == {"echo": 1}


def test_a_connection_that_a_restart_hands_over() -> None:
    """Its beginning is in one process and its end in the next; both are balanced."""
    journal = Journal(
        [
            record(Starting, "7", version="1"),
            *(accepted("a"), accepted("b"), closed("a")),
            stopped("7", accepted=2, closed=1, handed_over=1),
            *(record(Starting, "8", version="2"), closed("b", "8")),
            stopped("8", restored=1, closed=1),
        ]
    )
    assert [each.missing for each in journal.processes.values()] == [0, 0]
    assert [each.version for each in journal.processes.values()] == ["1", "2"]
    assert {*map(tuple, journal.ids.values())} == {(1, 1)}
    assert (journal.sums["accepted"], journal.sums["closed"]) == (2, 2)
    assert journal.ends["4711"] == {(3, 3)}


def test_a_connection_that_is_lost() -> None:
    """It is missing in the counters of its process, and in the journal."""
    journal = Journal([accepted("a"), stopped("7", accepted=1)])
    assert journal.processes["7"].missing == 1
    assert journal.ids["a"] == [1, 0]


def test_refusals_are_summed() -> None:
    """A record with a count stands for that number of refusals."""
    common = {"listener": "strict", "protocol": "tcp", "reason": "rate"}
    journal = Journal([record(Refused, **common), record(RefusedAgain, **common, times=5)])
    assert journal.processes["7"].records["refused"] == 6
    assert journal.refused["strict"] == 6


def test_a_traceback_is_found() -> None:
    """Of whichever program it is, and in a field of a record, too."""
    foreign = {"MESSAGE": "Traceback (most recent call last):", "PRIORITY": "6"}
    assert len(Journal([foreign]).tracebacks) == 1
    assert len(Journal([accepted("a") | {"NETSRVD_TRACEBACK": "x"}]).tracebacks) == 1
    assert Journal([accepted("a")]).tracebacks == []


def test_what_journald_drops_is_found() -> None:
    """It says so itself."""
    said = {"SYSLOG_IDENTIFIER": "systemd-journald", "MESSAGE": "Suppressed 9 messages from x"}
    assert Journal([said]).suppressed == ["Suppressed 9 messages from x"]
