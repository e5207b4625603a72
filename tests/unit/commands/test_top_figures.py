"""netsrvd.commands.top_figures"""

from typing import Any

from netsrvd.commands.top_figures import HISTORY, ORDERS, History, bars, first
from netsrvd.escapes import BLOCKS


def report(seconds: float, pid: int = 1, **totals: Any) -> dict[str, Any]:
    """Return an answer to Status."""
    counted = dict.fromkeys(
        (
            *("accepted", "datagrams_received", "datagrams_sent"),
            *("bytes_received", "bytes_sent"),
        ),
        0,
    )
    refused = {"refused": {"access": 0}, "datagrams_refused": {"rate": 0}}
    return {
        "seconds": seconds,
        "pid": pid,
        "connections": 7,
        "flows": 3,
        "run": {"log_records_lost": 0},
        "totals": {**counted, **refused, **totals},
    }


def test_a_rate_is_the_growth_a_second() -> None:
    """Two answers give a rate by the clock of the daemon; refusals of both protocols are one."""
    history = History()
    history.add(report(10, accepted=5))
    assert [*history.samples["new connections/s"]] == []
    assert [*history.samples["connections"]] == [7]
    refused = {"refused": {"access": 4}, "datagrams_refused": {"rate": 2}}
    history.add(report(12, accepted=15, **refused))
    assert [*history.samples["new connections/s"]] == [5.0]
    assert [*history.samples["refused/s"]] == [3.0]


def test_another_process_gives_no_rate_at_first() -> None:
    """The counts of the next process begin at 0, which is no negative rate."""
    history = History()
    history.add(report(10, accepted=500))
    history.add(report(1, pid=2, accepted=3))
    assert [*history.samples["new connections/s"]] == []
    history.add(report(2, pid=2, accepted=5))
    assert [*history.samples["new connections/s"]] == [2.0]


def test_answers_that_are_close_together_give_no_rate() -> None:
    """The next one that is far enough gives the rate over the whole time."""
    history = History()
    history.add(report(10))
    history.add(report(10.1, accepted=1))
    assert [*history.samples["new connections/s"]] == []
    history.add(report(11, accepted=1))
    assert [*history.samples["new connections/s"]] == [1.0]


def test_the_history_is_bounded() -> None:
    """The oldest samples go."""
    history = History()
    for second in range(2 * HISTORY):
        history.add(report(second, accepted=second))
    assert {len(each) for each in history.samples.values()} == {HISTORY}


def test_bars() -> None:
    """The highest sample has the highest block, 0 the lowest one, and nothing else the lowest."""
    assert bars([0, 1, 500, 1000], 10) == "▁▂▅█"
    assert bars([0, 0], 10) == "▁▁"
    assert bars([], 10) == ""
    assert bars([1000, 3, 4], 2) == "▆█"
    assert bars([1, 2], 0) == ""
    assert bars([3, 0], 5, "_#") == "#_"
    assert len(BLOCKS) == 8


def connection(address: str, port: int, seconds: float, size: int) -> dict[str, Any]:
    """Return a connection."""
    return {
        "peer_address": address,
        "peer_port": port,
        "seconds": seconds,
        "bytes_received": size,
        "bytes_sent": size,
    }


def test_orders() -> None:
    """By bytes and age the highest come first, by source IPv4 before IPv6, as numbers."""
    found = [
        connection("2001:db8::1", 1, 5, 30),
        connection("192.0.2.10", 1, 50, 3),
        connection("192.0.2.9", 2, 1, 300),
        connection("fe80::1%eth0", 2, 2, 3),
    ]
    ends = {}
    for order in ORDERS:
        kept, count = first(iter(found), order, 3)
        assert count == 4
        ends[order.title] = [each["peer_address"] for each in kept]
    assert ends == {
        "bytes": ["192.0.2.9", "2001:db8::1", "192.0.2.10"],
        "age": ["192.0.2.10", "2001:db8::1", "fe80::1%eth0"],
        "source": ["192.0.2.9", "192.0.2.10", "2001:db8::1"],
    }
