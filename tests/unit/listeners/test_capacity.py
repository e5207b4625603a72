"""netsrvd.listeners.capacity; test_acceptor has the acceptor that it holds back"""

from typing import Any

import pytest

from netsrvd.events.connections import ListenerFull, ListenerRelieved
from netsrvd.linux.mailbox import Mailbox
from netsrvd.listeners.capacity import Capacity
from netsrvd.listeners.places import Places
from netsrvd.settings import ListenerSettings
from tests.support.reports import Reports


class Box:
    """A mailbox whose mail is delivered when somebody asks, and that notes being woken."""

    def __init__(self) -> None:
        self.mail: list[Any] = []
        self.wakes = 0

    def deliver(self) -> None:
        while self.mail:
            self.mail.pop(0)()

    def wake(self) -> None:
        self.wakes += 1


class Stage:
    """The capacity of a listener for ten of a daemon for twenty."""

    def __init__(self) -> None:
        self.reports, self.box, self.places = Reports(), Box(), Places(20)
        box: Mailbox = self.box  # type: ignore[assignment]
        settings = ListenerSettings("lab", max_connections=10)
        self.capacity = Capacity(settings, self.places, self.reports, box)

    def come(self, count: int) -> None:
        for _ in range(count):
            assert self.capacity.take()
            self.capacity.live += 1

    def leave(self, count: int = 1) -> None:
        for _ in range(count):
            self.places.give_back()
            self.capacity.live -= 1


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_there_is_room_until_the_limit(stage: Stage) -> None:
    """By the listener's own limit; that it is full is told once, and who leaves wakes it then."""
    stage.come(9)
    assert (stage.capacity.left, stage.capacity.is_full(100.0)) == (1, False)
    assert not stage.capacity.awaits
    stage.come(1)
    assert [stage.capacity.is_full(100.0 + second) for second in range(3)] == [True] * 3
    assert (stage.capacity.left, stage.capacity.awaits) == (0, True)
    assert stage.reports.events == [ListenerFull("lab", 10, "its max_connections = 10")]


def test_who_has_left_counts_before_it_is_full(stage: Stage) -> None:
    """A departure that is in the mailbox already wakes nobody, and must be seen."""
    stage.come(10)
    stage.box.mail.append(stage.leave)
    assert not stage.capacity.is_full(100.0)
    assert stage.reports.events == []


def test_without_a_place_of_the_daemon_it_is_full(stage: Stage) -> None:
    """Found when one is wanted; whoever gives one back, wherever, wakes the listener."""
    for _ in range(20):
        stage.places.take()
    assert not stage.capacity.is_full(100.0)
    assert not stage.capacity.take()
    assert stage.capacity.is_full(101.0)
    assert stage.reports.events == [ListenerFull("lab", 0, "the daemon's max_connections = 20")]
    stage.places.give_back()
    assert stage.box.wakes == 1
    assert not stage.capacity.is_full(102.0)


def test_relief_is_a_tenth_of_both(stage: Stage) -> None:
    """One departure is no end of the fullness; its end is told with how long it was."""
    others = 8
    for _ in range(others):
        stage.places.take()
    stage.come(10)
    assert stage.capacity.is_full(100.0)
    assert not stage.capacity.has_room
    for _ in range(2):
        stage.places.take()
    stage.leave()
    assert not stage.capacity.is_full(101.0)
    assert not stage.capacity.has_room
    stage.places.give_back()
    assert stage.capacity.has_room
    stage.capacity.relieved(103.5)
    assert stage.reports.events[1:] == [ListenerRelieved("lab", 9, 3.5)]
    assert not stage.capacity.has_room


def test_new_limits_hold_at_once(stage: Stage) -> None:
    """Fewer than there are: nobody has to leave, but more have to before anybody comes."""
    stage.come(5)
    stage.capacity.update(ListenerSettings("lab", max_connections=3))
    assert stage.capacity.left == -2
    assert stage.capacity.is_full(100.0)
    stage.leave(3)
    assert not stage.capacity.is_full(101.0)
