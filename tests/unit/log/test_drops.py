"""netsrvd.log.drops"""

import errno
import struct

import pytest

from netsrvd.events.flows import DatagramsDropped, DropsEnded
from netsrvd.log.drops import KernelDrops
from tests.support.listening import failure
from tests.support.reports import Reports

WHERE = ("echo", "127.0.0.1", 7)


class Counting:
    """A socket whose count of drops can be set, or that has none."""

    def __init__(self, drops: int | None = 0) -> None:
        self.drops = drops

    def getsockopt(self, level: int, number: int, size: int) -> bytes:
        if self.drops is None:
            raise failure(errno.ENOPROTOOPT)
        return struct.pack("9I", *range(8), self.drops)


def test_drops_are_told_when_they_begin_and_when_they_end() -> None:
    """However often the kernel drops, there are two records, the second with the number."""
    sock, reports = Counting(5), Reports()
    drops = KernelDrops(sock, reports, WHERE)  # type: ignore[arg-type]
    found = []
    for now, count in ((1.0, 5), (2.0, 7), (3.0, 17), (4.0, 18), (6.0, 18), (7.0, 18)):
        sock.drops = count
        found.append(drops.look(now))
    assert found == [0, 2, 10, 1, 0, 0]
    assert reports.events == [DatagramsDropped(*WHERE), DropsEnded(*WHERE, 13, 4.0)]


def test_the_kernels_counter_may_begin_anew() -> None:
    """It has 32 bits, so after 4,294,967,295 comes 0."""
    sock, reports = Counting(2**32 - 2), Reports()
    drops = KernelDrops(sock, reports, WHERE)  # type: ignore[arg-type]
    sock.drops = 3
    assert drops.look(1.0) == 5
    drops.look(2.0)
    assert reports.events[1] == DropsEnded(*WHERE, 5, 1.0)


@pytest.mark.parametrize("earlier_look", [False, True])
def test_what_was_dropped_between_two_processes_is_counted(*, earlier_look: bool) -> None:
    """The one before has seen 3 of 10; 2 more were dropped since: each is counted once."""
    sock, reports = Counting(10), Reports()
    drops = KernelDrops(sock, reports, WHERE)  # type: ignore[arg-type]
    sock.drops = 12
    found = [drops.look(1.0)] if earlier_look else []
    drops.go_on_from(3)
    found += [drops.look(2.0), drops.look(3.0)]
    assert sum(found) == 9
    assert drops.seen == 12


@pytest.mark.parametrize("drops", [0, None])
def test_without_drops_there_is_no_record(drops: int | None) -> None:
    """Nor is there one where the kernel does not count them."""
    reports = Reports()
    made = KernelDrops(Counting(drops), reports, WHERE)  # type: ignore[arg-type]
    assert [made.look(now) for now in (1.0, 2.0)] == [0, 0]
    assert reports.events == []
