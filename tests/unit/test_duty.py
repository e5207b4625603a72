"""netsrvd.duty"""

import os
import select
import threading

import pytest

from netsrvd.duty import Duty
from netsrvd.errors import ResourceError
from tests.support.patience import SECONDS
from tests.support.reports import Failures
from tests.support.waiting import wait_end, wait_event


class Loop:
    """A duty that turns until it is stopped."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.turned = threading.Event()
        self.duty = Duty("loop", self.run, self.failures)
        self.stopping = False

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.duty.mailbox, select.POLLIN)
        while not self.stopping:
            poll.poll()
            self.duty.mailbox.deliver()
            self.turned.set()

    def stop(self) -> None:
        self.stopping = True


def test_a_thread_runs_from_start_to_its_own_end() -> None:
    """Nothing runs before `start`; `join` waits for the end and closes the mailbox."""
    loop = Loop()
    assert loop.duty.name not in {thread.name for thread in threading.enumerate()}
    loop.duty.start()
    assert loop.duty.name in {thread.name for thread in threading.enumerate()}
    assert not loop.duty.join(0)
    loop.duty.mailbox.post(loop.stop)
    wait_end(loop.duty)
    assert loop.duty.mailbox.fileno() == -1
    assert loop.failures.found == []


def test_a_loop_that_turns_answers_a_ping() -> None:
    """The pulse is the number of the last ping that the thread has seen."""
    loop = Loop()
    loop.duty.start()
    assert loop.duty.pulse == 0
    for number in (1, 2):
        loop.turned.clear()
        loop.duty.ping(number)
        wait_event(loop.turned, "a turn")
        assert loop.duty.pulse == number
    loop.duty.mailbox.post(loop.stop)
    wait_end(loop.duty)


def test_a_loop_that_is_stuck_does_not_answer() -> None:
    """A ping to a thread that does not turn changes nothing: that is what the watchdog sees."""
    stuck, turn = threading.Event(), Loop()
    duty = Duty("stuck", lambda: wait_event(stuck, "the release"), turn.failures)
    duty.start()
    duty.ping(1)
    assert duty.pulse == 0
    stuck.set()
    wait_end(duty)


def test_what_was_posted_can_be_waited_for() -> None:
    """`settle` returns when the thread has done all that was posted so far, or says it has not."""
    loop, done = Loop(), []
    assert not loop.duty.settle(0)
    loop.duty.start()
    loop.duty.mailbox.post(done.append, 1)
    assert loop.duty.settle(SECONDS)
    assert done == [1]
    loop.duty.mailbox.post(loop.stop)
    wait_end(loop.duty)


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), SystemExit(3), KeyboardInterrupt()])
def test_a_failure_is_handed_over(error: BaseException) -> None:
    """Whatever escapes from a thread is handed over in that thread, with its name."""
    found: list[tuple[str, BaseException, str]] = []

    def fail() -> None:
        raise error

    def on_failure(name: str, error: BaseException) -> None:
        found.append((name, error, threading.current_thread().name))

    duty = Duty("failing", fail, on_failure)
    duty.start()
    wait_end(duty)
    assert found == [("failing", error, "failing")]


def test_a_duty_that_was_never_started_is_closed() -> None:
    """Joining what did not run leaves no descriptor open."""
    duty = Duty("idle", lambda: None, Failures())
    descriptor = duty.mailbox.fileno()
    assert duty.join()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_no_thread_keeps_the_process_alive() -> None:
    """When the main thread fails the process ends, and does not wait for the others."""
    duty = Duty("idle", lambda: None, Failures())
    assert duty._thread.daemon
    duty.join()


def test_a_start_that_fails_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 starts no thread a second time; the duty has a new one then."""
    ran = threading.Event()
    duty = Duty("later", ran.set, Failures())
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", _refused)
        with pytest.raises(ResourceError, match="thread later cannot be started"):
            duty.start()
    assert not duty.started
    duty.start()
    assert ran.wait(SECONDS)
    assert duty.join(SECONDS)


def _refused(thread: threading.Thread) -> None:
    thread._started.set()  # type: ignore[attr-defined] # as Python 3.13 does
    raise RuntimeError("can't start new thread")
