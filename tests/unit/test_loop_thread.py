"""netsrvd.loop_thread"""

import os
import select
import threading
from time import monotonic

import pytest

from netsrvd.errors import ResourceError
from netsrvd.loop_thread import LAG_SECONDS, SLOT_SECONDS, Lag, LoopThread
from tests.support.patience import SECONDS
from tests.support.reports import Failures
from tests.support.threads import flushed
from tests.support.waiting import wait_end, wait_event


class Loop:
    """A thread that turns until it is stopped."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.turned = threading.Event()
        self.thread = LoopThread("loop", self.run, self.failures)
        self.stopping = False

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.thread.calls, select.POLLIN)
        while not self.stopping:
            poll.poll()
            self.thread.calls.run_pending()
            self.turned.set()

    def stop(self) -> None:
        self.stopping = True


def test_a_thread_runs_from_start_to_its_own_end() -> None:
    """Nothing runs before `start`; `join` waits for the end and closes the queue."""
    loop = Loop()
    assert loop.thread.name not in {thread.name for thread in threading.enumerate()}
    loop.thread.start()
    assert loop.thread.name in {thread.name for thread in threading.enumerate()}
    assert not loop.thread.join(0)
    loop.thread.calls.put(loop.stop)
    wait_end(loop.thread)
    assert loop.thread.calls.fileno() == -1
    assert loop.failures.found == []


def test_a_loop_that_turns_answers_a_ping() -> None:
    """The heartbeat is the number of the last ping that the thread has seen."""
    loop = Loop()
    loop.thread.start()
    assert loop.thread.heartbeat == 0
    for number in (1, 2):
        loop.turned.clear()
        loop.thread.ping(number)
        wait_event(loop.turned, "a turn")
        assert loop.thread.heartbeat == number
    loop.thread.calls.put(loop.stop)
    wait_end(loop.thread)


def test_a_loop_that_is_stuck_does_not_answer() -> None:
    """A ping to a thread that does not turn changes nothing: that is what the watchdog sees."""
    stuck, turn = threading.Event(), Loop()
    thread = LoopThread("stuck", lambda: wait_event(stuck, "the release"), turn.failures)
    thread.start()
    thread.ping(1)
    assert thread.heartbeat == 0
    stuck.set()
    wait_end(thread)


def test_what_was_posted_can_be_waited_for() -> None:
    """`flush` returns when the thread has done all that was posted so far, or says it has not."""
    loop, done = Loop(), []
    assert not flushed(loop.thread, 0)
    loop.thread.start()
    loop.thread.calls.put(done.append, 1)
    assert flushed(loop.thread)
    assert done == [1]
    loop.thread.calls.put(loop.stop)
    wait_end(loop.thread)


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), SystemExit(3), KeyboardInterrupt()])
def test_a_failure_is_handed_over(error: BaseException) -> None:
    """Whatever escapes from a thread is handed over in that thread, with its name."""
    found: list[tuple[str, BaseException, str]] = []

    def fail() -> None:
        raise error

    def on_failure(name: str, error: BaseException) -> None:
        found.append((name, error, threading.current_thread().name))

    thread = LoopThread("failing", fail, on_failure)
    thread.start()
    wait_end(thread)
    assert found == [("failing", error, "failing")]


def test_a_duty_that_was_never_started_is_closed() -> None:
    """Joining what did not run leaves no descriptor open."""
    thread = LoopThread("idle", lambda: None, Failures())
    descriptor = thread.calls.fileno()
    assert thread.join()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_no_thread_keeps_the_process_alive() -> None:
    """When the main thread fails the process ends, and does not wait for the others."""
    thread = LoopThread("idle", lambda: None, Failures())
    assert thread._thread.daemon
    thread.join()


def test_a_start_that_fails_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 starts no thread a second time; the thread has a new one then."""
    ran = threading.Event()
    thread = LoopThread("later", ran.set, Failures())
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", _refused)
        with pytest.raises(ResourceError, match="thread later cannot be started"):
            thread.start()
    assert not thread.started
    thread.start()
    assert ran.wait(SECONDS)
    assert thread.join(SECONDS)


def _refused(thread: threading.Thread) -> None:
    thread._started.set()  # type: ignore[attr-defined] # as Python 3.13 does
    raise RuntimeError("can't start new thread")


def test_the_highest_lag_of_a_minute_is_told_to_all() -> None:
    """No one that asks takes it away from another one; it is forgotten a minute later, or up to ten
    seconds after that.
    """
    lag = Lag()
    assert lag.highest(1000.0) == 0.0
    for seconds, now in ((0.1, 1000.0), (0.3, 1001.0), (0.2, 1002.0), (0.05, 1015.0)):
        lag.note(seconds, now)
    assert [lag.highest(1015.0)] * 2 == [0.3, lag.highest(1015.0)]
    assert lag.highest(1001.0 + LAG_SECONDS) == 0.3
    assert lag.highest(1001.0 + LAG_SECONDS + SLOT_SECONDS) == 0.05
    assert lag.highest(1100.0) == 0.0


def test_lag_that_is_noted_often_takes_no_more_room() -> None:
    """As by timers of a busy loop: a minute is told in full, and nothing older is kept."""
    lag = Lag()
    for number in range(10_000):
        lag.note(1.0 - number / 10_000, number * 0.1)
    assert lag.highest(1000.0) == pytest.approx(1.0 - 9400 / 10_000)
    assert len(lag._slots) <= 1 + LAG_SECONDS / SLOT_SECONDS


def test_a_late_answer_to_a_ping_is_lag() -> None:
    """A thread that is busy while it is asked is late by that time."""
    loop = Loop()
    loop.thread.start()
    begun, asked = threading.Event(), threading.Event()
    loop.thread.calls.put(lambda: (begun.set(), asked.wait(SECONDS), busy(0.05)))
    wait_event(begun, "the call")
    loop.thread.ping(1)
    asked.set()
    assert flushed(loop.thread)
    assert loop.thread.lag.highest(monotonic()) >= 0.05
    loop.thread.calls.put(loop.stop)
    wait_end(loop.thread)


def busy(seconds: float) -> None:
    """Compute for this time."""
    until = monotonic() + seconds
    while monotonic() < until:
        pass
