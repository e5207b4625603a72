"""netsrvd.listeners.places"""

import threading

from hypothesis import given
from hypothesis import strategies as st

from netsrvd.listeners.places import Places

ACTIONS = st.lists(
    st.sampled_from(("take", "give back")) | st.integers(0, 12).map(lambda count: count),
    max_size=80,
)


def test_there_are_so_many_and_no_more() -> None:
    """As many can be taken as there are; one that is given back can be taken again."""
    places = Places(2)
    assert [places.take() for _ in range(3)] == [True, True, False]
    places.give_back()
    assert [places.take() for _ in range(2)] == [True, False]


def test_who_waits_is_woken_once() -> None:
    """Who asked while there was none hears of the next one; who did not ask hears nothing."""
    places, woken = Places(1), []
    wake = woken.append
    assert places.are_left(lambda: wake("not needed"))
    places.take()
    for _ in range(3):
        assert not places.are_left(places.take)
    assert len(places._waiting) == 1
    places.give_back()
    assert not places.take()
    places.give_back()
    places.give_back()
    assert woken == []


@given(st.integers(0, 12), ACTIONS)
def test_never_more_are_inside_than_the_count_allows(count: int, actions: list[object]) -> None:
    """Whatever is taken, given back and resized: a place is had only while fewer than the count
    are inside, and it is had then.
    """
    places, inside = Places(count), 0
    for action in actions:
        if action == "take":
            taken = places.take()
            assert taken == (inside < count)
            inside += taken
        elif action == "give back":
            if inside:
                places.give_back()
                inside -= 1
        else:
            assert isinstance(action, int)
            count = action
            places.resize(count)


def test_many_are_a_tenth() -> None:
    """Relief is told when a tenth of all is free."""
    places = Places(20)
    for _ in range(20):
        places.take()
    assert not places.are_many
    places.give_back()
    assert not places.are_many
    places.give_back()
    assert places.are_many


def test_threads_take_no_place_twice() -> None:
    """Four threads that take and give back never have more than there are, and lose none."""
    places, most = Places(3), []
    inside: list[None] = []

    def come_and_go() -> None:
        for _ in range(5000):
            if places.take():
                inside.append(None)
                most.append(len(inside))
                inside.pop()
                places.give_back()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 3
    assert [places.take() for _ in range(4)] == [True, True, True, False]


def test_a_place_that_is_not_there_can_be_taken_anyway() -> None:
    """It is owed: the next one that is given back is not there for others, and wakes nobody."""
    places, woken = Places(1), []
    for _ in range(3):
        places.take_anyway()
    assert not places.are_left(lambda: woken.append("awake"))
    for _ in range(2):
        places.give_back()
        assert not places.take()
        assert places.are_none
    assert woken == []
    places.give_back()
    assert woken == ["awake"]
    assert not places.are_none
    assert [places.take(), places.take()] == [True, False]


def test_places_that_are_owed_outlive_a_resize() -> None:
    """New places pay first what is owed."""
    places = Places(1)
    for _ in range(3):
        places.take_anyway()
    places.resize(3)
    assert not places.take()
    places.give_back()
    assert places.take()
