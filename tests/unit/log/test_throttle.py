"""netsrvd.log.throttle"""

import errno
from math import inf

import pytest

from netsrvd.events.connections import AcceptFailing, AcceptRecovered
from netsrvd.log.throttle import (
    LASTING_SECONDS,
    PAUSE_SECONDS,
    QUIET_SECONDS,
    ErrorThrottle,
    format_errno,
)
from tests.support.listening import failure
from tests.support.reports import Reports

WHERE = ("echo", "127.0.0.1", 7)
FULL, ABORTED = failure(errno.EMFILE), failure(errno.ECONNABORTED)


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def trouble(reports: Reports) -> ErrorThrottle:
    return ErrorThrottle(reports, WHERE[0], AcceptFailing, AcceptRecovered)


def test_it_is_told_once_when_it_begins_and_once_when_it_ends(
    trouble: ErrorThrottle, reports: Reports
) -> None:
    """A thousand errors are two records, the second with their number and how long they lasted."""
    for number in range(1000):
        trouble.record(FULL, WHERE[1:], 10.0 + number * 0.1, pause=True)
        trouble.expire(10.0 + number * 0.1)
    last = 10.0 + 999 * 0.1
    trouble.expire(last + QUIET_SECONDS * 0.9)
    assert reports.events == [AcceptFailing(*WHERE, "EMFILE: Too many open files", 100)]
    trouble.expire(last + QUIET_SECONDS)
    trouble.expire(last + 10 * QUIET_SECONDS)
    assert reports.events[1:] == [AcceptRecovered(*WHERE, 1000, pytest.approx(99.9))]


def test_the_next_trouble_is_told_again(trouble: ErrorThrottle, reports: Reports) -> None:
    """After a quiet second an error is the beginning of something new."""
    for start in (0.0, 100.0):
        trouble.record(ABORTED, WHERE[1:], start, pause=False)
        trouble.expire(start + QUIET_SECONDS)
    assert reports.kinds == ["AcceptFailing", "AcceptRecovered"] * 2
    assert reports.events[2] == AcceptFailing(*WHERE, format_errno(ABORTED), 0)
    assert reports.events[3] == AcceptRecovered(*WHERE, 1, 0.0)


def test_a_shortage_pauses(trouble: ErrorThrottle) -> None:
    """What waiting may cure has the socket left alone for a moment; other errors do not."""
    trouble.record(FULL, WHERE[1:], 5.0, pause=True)
    assert trouble.pausing(5.0)
    assert trouble.pausing(5.0 + PAUSE_SECONDS * 0.9)
    assert not trouble.pausing(5.0 + PAUSE_SECONDS)
    trouble.record(FULL, WHERE[1:], 6.0, pause=True)
    trouble.record(ABORTED, WHERE[1:], 6.0, pause=False)
    assert not trouble.pausing(6.0)


def test_there_is_always_a_next_look(trouble: ErrorThrottle) -> None:
    """The loop neither spins nor sleeps over the end of a pause or of the trouble."""
    assert trouble.due_at == inf
    trouble.record(FULL, WHERE[1:], 5.0, pause=True)
    assert trouble.due_at == 5.0 + PAUSE_SECONDS
    trouble.expire(5.0 + PAUSE_SECONDS)
    assert trouble.due_at == 5.0 + QUIET_SECONDS
    trouble.record(ABORTED, WHERE[1:], 5.5, pause=False)
    assert trouble.due_at == 5.5 + QUIET_SECONDS
    trouble.expire(5.5 + QUIET_SECONDS)
    assert trouble.due_at == inf


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FULL, "EMFILE: Too many open files"),
        (OSError(9999, "?"), "9999: Unknown error 9999"),
        (OSError("no number"), "0: Success"),
    ],
)
def test_errors_are_named(error: OSError, text: str) -> None:
    """An error is shown by its symbol, which manuals speak of, and its meaning."""
    assert format_errno(error) == text


def test_it_lasts_when_it_has_an_age(trouble: ErrorThrottle) -> None:
    """A first error may be a passing one; after a second of errors it is not."""
    assert not trouble.persistent(10.0)
    trouble.record(FULL, WHERE[1:], 10.0, pause=True)
    assert not trouble.persistent(10.0 + LASTING_SECONDS - 0.001)
    assert trouble.persistent(10.0 + LASTING_SECONDS)
    trouble.expire(10.0 + QUIET_SECONDS)
    assert not trouble.persistent(100.0)
