"""netsrvd.tcp: the limit of all listeners, and the spare descriptor"""

import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.settings import ListenerSettings
from netsrvd.tcp import (
    SHORTEST_SWEEP_SECONDS,
    SWEEP_SECONDS,
    ConnectionLimit,
    SpareDescriptor,
    sweep_seconds,
)


class Blocked:
    """A listener that notes when it is to look again, and takes connections then."""

    def __init__(self, limit: ConnectionLimit, wants: int = 0) -> None:
        self.limit = limit
        self.looks = 0
        self.wants = wants

    def look_again(self) -> None:
        """Take as many connections as are wanted and possible."""
        self.looks += 1
        while self.wants and not self.limit.is_reached:
            self.limit.used += 1
            self.wants -= 1
        if self.wants:
            self.limit.block(self)  # type: ignore[arg-type]


def test_the_limit_is_reached_with_the_last_connection() -> None:
    """Not before, and it is no more when one has ended."""
    limit = ConnectionLimit(2)
    assert not limit.is_reached
    limit.used += 1
    assert not limit.is_reached
    limit.used += 1
    assert limit.is_reached
    limit.release()
    assert not limit.is_reached


def test_a_listener_that_is_blocked_looks_once() -> None:
    """When there is room again: at the first release, and not at the next ones."""
    limit = ConnectionLimit(2)
    limit.used = 3  # one was restored beyond the limit
    one: Any = Blocked(limit)
    limit.block(one)
    limit.block(one)
    limit.release()
    assert one.looks == 0
    limit.release()
    assert one.looks == 1
    limit.release()
    assert one.looks == 1


@given(
    most=st.integers(1, 5),
    wants=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    releases=st.integers(0, 20),
)
def test_as_many_are_taken_as_there_is_room_for(most: int, wants: list[int], releases: int) -> None:
    """Whatever listeners want and however connections end: never too many, never too few."""
    limit = ConnectionLimit(most)
    listeners = [Blocked(limit, each) for each in wants]
    for each in listeners:
        each.look_again()
    for _ in range(releases):
        if limit.used:
            limit.release()
        assert 0 <= limit.used <= most
        assert limit.is_reached or not any(each.wants for each in listeners)


def test_the_last_connection_is_told() -> None:
    """Each time that none is left, once that is wanted."""
    limit = ConnectionLimit(5)
    told: list[int] = []
    limit.used = 1
    limit.release()
    limit.on_empty = lambda: told.append(limit.used)
    limit.used = 2
    limit.release()
    assert told == []
    limit.release()
    assert told == [0]


@pytest.fixture
def spare() -> Iterator[SpareDescriptor]:
    made = SpareDescriptor()
    yield made
    made.release()


def test_it_frees_one_descriptor_once(spare: SpareDescriptor) -> None:
    """What was taken is freed, and then there is none until it is taken again."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as many as there are
    assert spare.release()
    assert len(os.listdir("/proc/self/fd")) == before - 1  # noqa: PTH208
    assert not spare.release()
    spare.take()
    spare.take()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert spare.release()


def test_without_a_descriptor_there_is_none_to_spare(spare: SpareDescriptor) -> None:
    """It is no error; the next time there may be one."""
    spare.release()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    spare.take()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not spare.release()
    spare.take()
    assert spare.release()


@pytest.mark.parametrize(
    ("idle", "write", "age", "seconds"),
    [
        (0.0, 0.0, 0.0, SWEEP_SECONDS),
        (60.0, 30.0, 0.0, SWEEP_SECONDS),
        (2.0, 30.0, 0.0, 0.5),
        (60.0, 2.0, 0.0, 0.5),
        (60.0, 30.0, 2.0, 0.5),
        (0.001, 0.0, 0.0, SHORTEST_SWEEP_SECONDS),
    ],
)
def test_time_outs_are_looked_for_often_enough(
    idle: float, write: float, age: float, seconds: float
) -> None:
    """Four times within the shortest one, once a second at least, and not without a pause."""
    settings = ListenerSettings(
        "lab", idle_seconds=idle, write_seconds=write, max_connection_seconds=age
    )
    assert sweep_seconds(settings) == seconds
