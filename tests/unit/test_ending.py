"""netsrvd.ending, on a house that is none"""

import signal
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from netsrvd import ending, handover
from netsrvd.counters import Counters
from netsrvd.ending import Ending
from netsrvd.events.handover import HandedOver
from netsrvd.events.life import NotHandedOver, Stopped, Stopping
from tests.support.fake_house import FakeHouse, FakeNotifier

TERM, WAKE, RELOAD = int(signal.SIGTERM), int(signal.SIGUSR2), int(signal.SIGHUP)


class Stage:
    """A stop whose time passes while it waits for signals; each wait can change the house."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.house, self.notifier = FakeHouse(self.steps), FakeNotifier(self.steps)
        self.now = 1000.0
        self.signals: list[int | None] = []
        self.meanwhile: Callable[[], object] = list

    def wait(self, seconds: float) -> int | None:
        received = self.signals.pop(0) if self.signals else None
        self.now += seconds if received is None else 0.0
        self.meanwhile()
        return received

    def end(self, drain_seconds: float = 10.0, *, is_followed: bool = False) -> Stopped:
        house: Any = self.house
        notifier: Any = self.notifier
        Ending(house, notifier, self.wait, "SIGTERM").end(
            drain_seconds, 60.0, is_followed=is_followed
        )
        return self.said(Stopped)

    def said(self, kind: type) -> Any:
        [event] = [event for event in self.house.report.events if isinstance(event, kind)]
        return event


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage()
    monkeypatch.setattr(ending, "monotonic", lambda: made.now)
    return made


def test_a_drain_ends_with_the_last_connection(stage: Stage) -> None:
    """A stop waits for live connections; each that ends wakes it; who drained is counted."""
    stage.house.connections, stage.signals = 2, [WAKE, RELOAD]

    def leave() -> None:
        stage.house.connections -= 1

    stage.meanwhile = leave
    stopped = stage.end()
    assert (stage.said(Stopping).connections, stage.said(Stopping).drain_seconds) == (2, 10.0)
    assert (stopped.drained, stopped.cut) == (2, 0)
    assert stage.now == 1000.0


def test_a_second_signal_ends_the_drain(stage: Stage) -> None:
    """Who does not want to wait asks again; what is left is cut off and counted."""
    stage.house.connections, stage.signals = 2, [TERM]
    stopped = stage.end()
    assert (stopped.drained, stopped.cut, stage.now) == (0, 2, 1000.0)


def test_a_drain_ends_with_its_time(stage: Stage) -> None:
    """Connections that do not end by themselves are cut off when the time is up."""
    stage.house.connections = 1
    assert stage.end(2.5).cut == 1
    assert stage.now == 1002.5


def test_a_drain_is_told_as_it_goes_on(stage: Stage) -> None:
    """The status line counts down; systemd is asked for more time only while something moves."""
    stage.house.connections = 3

    def talk() -> None:
        stage.house.moved += stage.now < 1002

    stage.meanwhile = talk
    stage.end(4.0)
    assert stage.steps[:7] == [
        "stopping Stopping on SIGTERM 24.0",
        "stop listening",
        "status Stopping on SIGTERM: 3 connection",
        "stopping Stopping on SIGTERM: 3 connecti",
        "stopping Stopping on SIGTERM: 3 connecti",
        "status Stopping on SIGTERM: 3 connection",
        "stop workers",
    ]


def test_a_drain_in_which_nothing_moves_is_over(stage: Stage) -> None:
    """However long it may take, half a minute after the last byte the rest is cut off."""
    stage.house.connections = 1

    def talk() -> None:
        stage.house.moved += stage.now < 1100

    stage.meanwhile = talk
    assert stage.end(3600.0).cut == 1
    assert 1129 <= stage.now <= 1131


def test_who_is_followed_gives_all_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drained; the record says how many; the store keeps one descriptor for their
    states.
    """
    given: list[Any] = []
    monkeypatch.setattr(handover, "give", lambda connections, *_: given.extend(connections))
    stage.house.connections, stage.notifier.store_room = 3, 10
    stopped = stage.end(is_followed=True)
    assert (len(given), stopped.handed_over, stopped.drained, stopped.cut) == (3, 3, 0, 0)
    assert stage.said(HandedOver).connections == 3
    assert stage.said(Stopping).purpose == "restart"


def test_the_last_record_has_all_that_was_counted(stage: Stage) -> None:
    """Whatever somebody counts somewhere is of use to whoever reads the log."""
    counted = {name: number for number, name in enumerate(Counters.__annotations__, 100)}
    counters = Counters(**counted)
    stage.house.counters = lambda: counters  # type: ignore[method-assign]
    stopped = stage.end()
    assert {name: getattr(stopped, name) for name in counted} == counted
    assert (stopped.seconds, stopped.records_lost) == (60.0, 5)


def test_what_does_not_fit_is_drained(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is too small is used as far as it goes, and the rest is told. Meanwhile all are
    served: nothing is given before the drain is over.
    """
    monkeypatch.setattr(handover, "give", lambda *_: stage.steps.append("give"))
    stage.house.connections, stage.notifier.store_room = 3, 2
    stopped = stage.end(2.0, is_followed=True)
    assert (stopped.handed_over, stopped.cut) == (1, 2)
    assert stage.said(NotHandedOver).connections == 2
    assert stage.now == pytest.approx(1002.0)
    steps = [step.split()[0] for step in stage.steps[2:]]
    assert [key for key, _ in groupby(steps)] == [
        *("stop", "status", "surrender", "readmit", "give", "stop", "close"),
    ]


def test_while_handlers_are_drained_others_are_taken(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes meanwhile goes along; the last record tells who drained from who was given."""
    given: list[Any] = []
    monkeypatch.setattr(handover, "give", lambda connections, *_: given.extend(connections))
    stage.house.connections, stage.house.handled, stage.notifier.store_room = 3, 2, 10

    def pass_by() -> None:
        assert "stop listening, keep guests" not in stage.steps
        if stage.house.handled:
            stage.house.handled -= 1
            stage.house.accepted += 1  # one leaves, one comes

    stage.meanwhile = pass_by
    stopped = stage.end(30.0, is_followed=True)
    assert stage.said(NotHandedOver) == NotHandedOver(2, "they are of handlers")
    assert stage.steps[1] == "stop handling"
    assert (len(given), stopped.handed_over, stopped.drained, stopped.cut) == (3, 3, 2, 0)


@pytest.mark.parametrize("room", [0, 2])
def test_a_store_that_is_full_takes_nobody_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """However long handlers are waited for: whoever came could not go along."""
    monkeypatch.setattr(handover, "give", lambda *_: None)
    stage.house.connections, stage.house.handled = 3, 2
    stage.notifier.store_room = room

    def come() -> None:
        if "stop listening, keep guests" not in stage.steps:
            stage.house.connections += 1
            stage.house.accepted += 1

    stage.meanwhile = come
    stopped = stage.end(2.0, is_followed=True)
    assert stage.house.accepted == 9
    assert (stopped.handed_over, stopped.cut) == ((1, 2) if room else (0, 3))
    assert stage.now == pytest.approx(1002.0)


def test_handlers_that_do_not_end_hold_nobody_up_twice(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When their time is up they are cut off; they are told once."""
    monkeypatch.setattr(handover, "give", lambda *_: None)
    stage.house.connections, stage.house.handled, stage.notifier.store_room = 3, 2, 10
    stopped = stage.end(2.0, is_followed=True)
    assert stage.said(NotHandedOver).connections == 2
    assert (stopped.handed_over, stopped.drained, stopped.cut) == (1, 0, 2)
    assert stage.now == pytest.approx(1002.0)


@pytest.mark.parametrize("leaves", ["stuck", "movable"])
def test_a_drain_before_a_handover_ends_when_the_rest_can_go(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    """Whether it is one that could not have gone who leaves, or one that makes room for another."""
    given: list[Any] = []
    monkeypatch.setattr(handover, "give", lambda connections, *_: given.extend(connections))
    stage.house.connections, stage.house.fixed = 3, int(leaves == "stuck")
    stage.notifier.store_room = 3

    def leave() -> None:
        if stage.now >= 1001 and stage.house.connections == 3:
            stage.house.connections -= 1
            stage.house.fixed = 0

    stage.meanwhile = leave
    stopped = stage.end(30.0, is_followed=True)
    assert (len(given), stopped.handed_over, stopped.drained, stopped.cut) == (2, 2, 1, 0)
    assert stage.now < 1001.1


def test_a_second_signal_hands_over_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who cannot go are cut off then."""
    monkeypatch.setattr(handover, "give", lambda *_: None)
    stage.house.connections, stage.house.fixed, stage.notifier.store_room = 3, 1, 10
    stage.signals = [TERM]
    stopped = stage.end(30.0, is_followed=True)
    assert (stopped.handed_over, stopped.cut, stage.now) == (2, 1, 1000.0)


def test_what_systemd_does_not_take_is_drained(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the connections are served again until they end."""

    def give(*_: object) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(handover, "give", give)
    stage.house.connections, stage.notifier.store_room = 3, 10
    stopped = stage.end(2.0, is_followed=True)
    assert "readmit" in stage.steps
    assert (stopped.handed_over, stopped.cut) == (0, 3)
    assert "no answer" in stage.said(NotHandedOver).reason


def test_a_bug_of_a_service_hands_nothing_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot say what it remembers does not end the daemon, but all are drained."""

    def give(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(handover, "give", give)
    stage.house.connections, stage.notifier.store_room = 3, 10
    assert stage.end(2.0, is_followed=True).cut == 3
    assert "readmit" in stage.steps
    assert "ZeroDivisionError('a bug')" in stage.said(NotHandedOver).reason


def test_without_connections_there_is_nothing_to_hand_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart of a daemon that serves nobody is a plain stop, and tells of no handover."""
    given: list[Any] = []
    monkeypatch.setattr(handover, "give", lambda *what: given.append(what))
    stage.notifier.store_room = 10
    stage.end(is_followed=True)
    assert given == []
    assert stage.house.report.kinds == ["Stopping", "Stopped"]


class Waiting:
    """One that waits for the header of its proxy."""

    def __init__(self) -> None:
        self.sock = self
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("room", "fit"), [(10, 3), (5, 2), (3, 0), (0, 0)])
def test_who_waits_for_a_proxy_goes_along_where_there_is_room(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, room: int, fit: int
) -> None:
    """After those who are served already; nobody has heard of the others, which are closed."""
    given: list[Any] = []
    monkeypatch.setattr(handover, "give", lambda _, guests, *more: given.extend(guests))
    stage.house.waiting = [Waiting() for _ in range(3)]
    stage.house.connections, stage.notifier.store_room = 2, room
    stopped = stage.end(1.0, is_followed=True)
    assert given == stage.house.waiting[:fit]
    assert all(each.closed for each in stage.house.waiting[fit:])
    assert stopped.handed_over == min(2, max(0, room - 1))


def test_nobody_hears_of_a_handover_of_guests_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no record of their coming either."""
    given: list[Any] = []
    monkeypatch.setattr(handover, "give", lambda _, guests, *more: given.extend(guests))
    stage.house.waiting, stage.notifier.store_room = [Waiting()], 10
    stage.end(is_followed=True)
    assert given == stage.house.waiting
    assert stage.house.report.kinds == ["Stopping", "Stopped"]


def test_who_waits_for_a_proxy_is_turned_away_by_a_stop(stage: Stage) -> None:
    """Nobody would take it up."""
    stage.house.waiting, stage.notifier.store_room = [Waiting()], 10
    stage.end()
    assert stage.steps[1] == "stop listening"
