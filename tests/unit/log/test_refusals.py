"""netsrvd.log.refusals"""

from math import inf

import pytest

from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.log import refusals as module
from netsrvd.log.refusals import RefusalLog
from netsrvd.settings import ListenerSettings
from tests.support.reports import Reports

SETTINGS = ListenerSettings("lab", refusal_seconds=60.0)
LOCAL = ("192.0.2.9", 7)
ACCESS, RATE = ("access", "no"), ("rate", "too fast")


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def refusals(reports: Reports) -> RefusalLog:
    return RefusalLog(reports, SETTINGS, "tcp")


def again(reports: Reports) -> list[tuple[str, str, int]]:
    """Return source, reason and number of all summaries."""
    found = [event for event in reports.events if isinstance(event, RefusedAgain)]
    return [(event.source, event.reason, event.times) for event in found]


def test_the_first_is_told_at_once(refusals: RefusalLog, reports: Reports) -> None:
    """With everything that is known of it."""
    refusals.add(ACCESS, ("192.0.2.1", 4711), LOCAL, 100.0)
    assert reports.events == [
        Refused("lab", "echo", "tcp", "192.0.2.1", 4711, *LOCAL, "192.0.2.1", *ACCESS)
    ]


def test_the_proxy_is_told(refusals: RefusalLog, reports: Reports) -> None:
    """A client that came by a proxy is the offender; its record names the proxy as well."""
    refusals.add(ACCESS, ("192.0.2.1", 4711), LOCAL, 100.0, ("10.0.0.1", 443))
    [told] = reports.events
    assert isinstance(told, Refused)
    assert told.source == "192.0.2.1"
    assert (told.proxy_address, told.proxy_port) == ("10.0.0.1", "443")
    assert "tcp 192.0.2.1:4711 via 10.0.0.1:443 refused" in told.text()


def test_then_there_is_one_record_a_window(refusals: RefusalLog, reports: Reports) -> None:
    """An offender that goes on has one record for each window, with exact counts; one that has
    stopped has none, and begins anew.
    """
    for second in range(150):
        for _ in range(10):
            refusals.add(ACCESS, ("192.0.2.1", 4711), LOCAL, 100.0 + second)
        refusals.expire(100.0 + second)
    assert again(reports) == [("192.0.2.1", "access", 609), ("192.0.2.1", "access", 600)]
    refusals.expire(281.0)
    refusals.expire(342.0)
    assert sum(times for _, _, times in again(reports)) == 1499
    assert refusals.due_at == inf
    refusals.add(ACCESS, ("192.0.2.1", 4711), LOCAL, 400.0)
    assert reports.kinds == ["Refused", *["RefusedAgain"] * 3, "Refused"]


def test_reasons_and_sources_are_told_apart(refusals: RefusalLog, reports: Reports) -> None:
    """A source is one offender for each reason; the addresses of an IPv6 /64 are one source."""
    for refusal in (ACCESS, RATE):
        for host in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"):
            refusals.add(refusal, (host, 4711), LOCAL, 100.0)
    assert len(reports.events) == 6
    refusals.expire(100.0, all_of_them=True)
    assert again(reports) == [("2001:db8::/64", reason, 1) for reason in ("access", "rate")]


def test_forged_senders_are_told_together(
    refusals: RefusalLog, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources beyond the number that is kept share one record a window; all are counted."""
    monkeypatch.setattr(module, "REFUSED_SOURCES_KEPT", 10)
    for number in range(1000):
        refusals.add(ACCESS, (f"10.0.{number // 250}.{number % 250}", 1), LOCAL, 100.0)
    assert len(reports.events) == 11
    refusals.add(RATE, ("10.9.9.9", 1), LOCAL, 100.0)
    assert len(refusals._refused) == 12
    refusals.expire(160.0)
    assert again(reports) == [("others", "access", 989)]
    refusals.expire(220.0)
    assert refusals._refused == {}


def test_the_end_of_a_window_is_looked_for(refusals: RefusalLog) -> None:
    """The thread is woken when the first window is over, and sleeps when there is none."""
    assert refusals.due_at == inf
    refusals.add(ACCESS, ("192.0.2.1", 1), LOCAL, 100.0)
    refusals.add(ACCESS, ("192.0.2.2", 1), LOCAL, 130.0)
    assert refusals.due_at == 160.0
    refusals.expire(160.0)
    assert refusals.due_at == 190.0
    refusals.expire(190.0)
    assert refusals.due_at == inf


def test_a_shorter_window_holds_at_once(refusals: RefusalLog, reports: Reports) -> None:
    """What was counted in the longer one is told when the shorter one is over."""
    for _ in range(3):
        refusals.add(ACCESS, ("192.0.2.1", 1), LOCAL, 100.0)
    refusals.update(SETTINGS._replace(refusal_seconds=1.0))
    assert refusals.due_at == 101.0
    refusals.expire(101.0)
    assert again(reports) == [("192.0.2.1", "access", 2)]


def test_new_settings_hold_at_once(refusals: RefusalLog, reports: Reports) -> None:
    """Name and window are those of the latest configuration."""
    refusals.update(SETTINGS._replace(name="new", refusal_seconds=1.0))
    refusals.add(ACCESS, ("192.0.2.1", 1), LOCAL, 100.0)
    refusals.add(ACCESS, ("192.0.2.1", 1), LOCAL, 100.0)
    refusals.expire(101.0)
    assert [event.listener for event in reports.events] == ["new", "new"]  # type: ignore[attr-defined]
