"""netsrvd.log.writer"""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netsrvd.events import DEBUG, ERROR, INFO, Event
from netsrvd.events.lifecycle import ReloadFailed, Starting
from netsrvd.events.log import RecordsLost
from netsrvd.log import writer as module
from netsrvd.log.journal import JournalLog
from netsrvd.log.writer import Log, LogWriter
from tests.support.listening import failure
from tests.support.logs import FakeLog, LogDaemon
from tests.support.reports import Failures
from tests.support.waiting import wait_end, wait_event

Make = Callable[..., LogWriter]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return what makes reporters; each is ended with the test, and none of them may fail."""
    monkeypatch.setattr(module, "LAST_PATIENCE_SECONDS", 0.0)
    failures, made = Failures(), []

    def make(log: Log, limit: int = 3, *, waits: bool = False, starts: bool = True) -> LogWriter:
        log_writer = LogWriter(log, INFO, limit, failures, waits=waits)
        made.append(log_writer)
        if starts:
            log_writer.thread.start()
        return log_writer

    yield make
    for log_writer in made:
        end(log_writer)
    assert not failures.found


def end(log_writer: LogWriter) -> None:
    """Stop a log writer and wait for its end, which must come."""
    log_writer.stop()
    wait_end(log_writer.thread)


def event(number: int) -> Event:
    """Return one of many events, with a number to know it by."""
    return Starting(f"v{number}", "3", number)


def text(number: int) -> str:
    """Return the text of that event."""
    return event(number).text()


def written(log: FakeLog) -> list[str]:
    """Return what a log took besides the counts of losses."""
    return [line for line in log.texts if "records lost" not in line]


def stuck(make: Make, **given: bool) -> tuple[LogWriter, FakeLog]:
    """Return a log writer whose log takes nothing, with event 0 in its hands and an empty queue."""
    log = FakeLog()
    log.shut = True
    log_writer = make(log, **given)
    log_writer.put(event(0))
    wait_event(log.waited, "the log_writer's wait")
    return log_writer, log


def test_events_are_written_in_order(make: Make) -> None:
    """What is reported is written, one after the other, and all of it before the end."""
    log = FakeLog()
    log_writer = make(log, limit=100)
    port = log_writer.handle()
    for number in range(50):
        port(event(number))
    end(log_writer)
    assert log.texts == [text(number) for number in range(50)]
    assert log.closed
    assert (log_writer.lost, port.lost) == (0, 0)


def test_what_was_reported_before_the_start_is_written(make: Make) -> None:
    """The records of the start wait in the queue until the thread runs."""
    log = FakeLog()
    log_writer = make(log, starts=False)
    log_writer.put(event(1))
    log_writer.thread.start()
    end(log_writer)
    assert log.texts == [text(1)]


def test_what_comes_while_it_rests_is_written_next(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After writing it leaves the others alone for a moment, and what they report comes next."""
    log, rests = FakeLog(), []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 1:
            log_writer.put(event(1))
            log_writer.put(event(2))

    monkeypatch.setattr(module, "sleep", rest)
    log_writer = make(log, starts=False)
    log_writer.put(event(0))
    log_writer.thread.start()
    end(log_writer)
    assert log.texts == [text(number) for number in range(3)]
    assert {*rests} == {module.REST_SECONDS}
    assert 0 < module.REST_SECONDS < 0.05


def test_the_level_decides_what_is_written(make: Make) -> None:
    """Events less important than the level are left out, which is no loss; it may change."""
    log = FakeLog()
    log_writer = make(log)
    log_writer.level = ERROR
    assert log_writer.put(event(1))
    log_writer.put(ReloadFailed("reason"))
    end(log_writer)
    assert log.texts == [ReloadFailed("reason").text()]
    log_writer.level = DEBUG
    assert log_writer.put(event(2))
    assert len(log_writer._queue) == 1


def test_a_full_queue_loses_and_counts_and_tells_once(make: Make) -> None:
    """Beyond its limit records are lost; how many is known exactly and told when there is room."""
    log_writer, log = stuck(make)
    port, other = log_writer.handle(), log_writer.handle()
    for number in range(1, 6):
        port(event(number))
    other(event(6))
    assert (port.lost, other.lost, log_writer.lost) == (2, 1, 3)
    assert not port.congested
    log.shut = False
    end(log_writer)
    assert log.texts == [*map(text, range(4)), RecordsLost(3, 3).text()]


def test_each_loss_is_told_by_itself(make: Make) -> None:
    """A second loss is told with its own number and the sum since the start."""
    log = FakeLog()
    log_writer = make(log, starts=False)
    port = log_writer.handle()
    for count in (4, 5):
        for number in range(count):
            port(event(number))
        log_writer._write_queue()
    told = [line for line in log.texts if "lost" in line]
    assert told == [RecordsLost(1, 1).text(), RecordsLost(2, 3).text()]


def test_no_record_is_lost_unseen(make: Make) -> None:
    """However many threads report at once: what is written and what is lost are all there was."""
    log = FakeLog()
    log_writer = make(log, limit=10)

    def report() -> None:
        port = log_writer.handle()
        for number in range(500):
            port(event(number))

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end(log_writer)
    assert len(written(log)) + log_writer.lost == 4 * 500


def test_with_wait_nothing_is_lost_but_nobody_new_is_taken(make: Make) -> None:
    """Instead of losing records the log writer is congested, until the log has taken some."""
    log_writer, log = stuck(make, waits=True)
    port = log_writer.handle()
    for number in range(1, 3):
        port(event(number))
    assert not port.congested
    for number in range(3, 10):
        port(event(number))
    assert port.congested
    log.shut = False
    end(log_writer)
    assert not port.congested
    assert log.texts == [*map(text, range(10))]
    assert log_writer.lost == 0


def test_a_log_that_takes_nothing_does_not_hold_up_the_end(make: Make) -> None:
    """The end comes in bounded time, and what could not be written is counted to the last."""
    log_writer, log = stuck(make)
    log_writer.put(event(1))
    log_writer.put(event(2))
    end(log_writer)
    assert log_writer.lost == 3
    assert log.texts == []
    assert log.closed


def test_a_log_that_takes_little_does_not_hold_up_the_end(make: Make) -> None:
    """Nor does a log that takes a record now and then: each record left is offered once more."""
    log_writer, log = stuck(make)
    log_writer.put(event(1))
    log_writer.put(event(2))
    log.say(False, True, False)
    end(log_writer)
    assert len(written(log)) + log_writer.lost == 3


def test_the_watchdog_is_answered_while_the_log_is_stuck(make: Make) -> None:
    """A log that nobody reads is no reason for systemd to kill the daemon."""
    log_writer, log = stuck(make)
    for number in (1, 2):
        log_writer.thread.ping(number)
        log.waited.clear()
        wait_event(log.waited, "one more wait")
        log.waited.clear()
        wait_event(log.waited, "the wait after that")
        assert log_writer.thread.heartbeat == number


def test_one_record_that_cannot_be_written_is_one_lost(make: Make) -> None:
    """An error that speaks of one record costs that one; the next ones are written."""
    log = FakeLog([True, failure(errno.EINVAL), True])
    log_writer = make(log, starts=False)
    for number in range(3):
        log_writer.put(event(number))
    log_writer._write_queue()
    assert log.texts == [text(0), text(2), RecordsLost(1, 1).text()]
    assert log_writer.lost == 1


def test_the_count_of_losses_is_itself_no_loss(make: Make) -> None:
    """A log that fails for good, such as a closed pipe: exactly its records count as lost."""
    log = FakeLog([failure(errno.EPIPE)] * 4)
    log_writer = make(log, starts=False)
    for number in range(2):
        log_writer.put(event(number))
        log_writer._write_queue()
    assert log_writer.lost == 2
    log_writer._write_queue()
    assert log.texts == [RecordsLost(2, 2).text()]


def test_a_log_that_is_absent_and_comes_back(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Records wait for a journal that is being restarted, and reach the new one."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.001)
    log_writer = make(JournalLog(tmp_path / "socket"))
    for number in range(2):
        log_writer.put(event(number))
        with LogDaemon(tmp_path / "socket") as daemon:
            assert f"MESSAGE={text(number)}\n".encode() in daemon.read()
    end(log_writer)
    assert log_writer.lost == 0


def test_a_failure_of_the_log_itself_ends_the_daemon() -> None:
    """What is no OSError is a bug, which must not end in silence."""

    class Broken(FakeLog):
        def write(self, record: object) -> bool:
            raise ZeroDivisionError

    failures, log = Failures(), Broken()
    log_writer = LogWriter(log, INFO, 3, failures, waits=False)
    log_writer.thread.start()
    log_writer.put(event(1))
    wait_end(log_writer.thread)
    assert [(name, type(error)) for name, error in failures.found] == [("log", ZeroDivisionError)]
    assert log.closed
