"""netsrvd.handlers.pool"""

import threading
from collections.abc import Callable, Iterator

import pytest

from netsrvd.handlers.pool import PoolThread, Task, ThreadPool
from netsrvd.linux.call_queue import CallQueue
from netsrvd.loop_thread import LoopThread
from tests.support.patience import wait_readable
from tests.support.reports import Failures
from tests.support.waiting import wait_event


class Owner:
    """The thread that owns a pool, which is the test's."""

    def __init__(self, size: int) -> None:
        self.calls, self.failures = CallQueue(), Failures()
        self.pool = ThreadPool("handler lab", size, self.calls, self.failures)
        self.results: list[object] = []
        self.gates: list[threading.Event] = []

    def submit(self, work: Callable[[], object]) -> Task:
        made = Task(work, self.results.append)
        self.pool.submit(made)
        return made

    def held(self) -> threading.Event:
        """Submit a task that lasts until the event is set."""
        begun, policy = threading.Event(), threading.Event()
        self.gates.append(policy)

        def work() -> str:
            begun.set()
            wait_event(policy, "the end of a task")
            return threading.current_thread().name

        self.submit(work)
        if self.pool.busy == len(self.gates):
            wait_event(begun, "the begin of a task")
        return policy

    def results_of(self, count: int) -> list[object]:
        """Wait for `count` results, and return them."""
        while len(self.results) < count:
            wait_readable(self.calls.fileno(), "a result")
            self.calls.run_pending()
        return self.results


@pytest.fixture
def owner() -> Iterator[Owner]:
    """Return the owner of a pool of two."""
    made = Owner(2)
    yield made
    for policy in made.gates:
        policy.set()
    while made.pool.busy:
        wait_readable(made.calls.fileno(), "the last results")
        made.calls.run_pending()
    made.pool.shutdown()
    made.calls.close()
    assert made.failures.found == []


def test_the_owner_gets_the_result(owner: Owner) -> None:
    """The work is done in a thread of the pool, `done` runs in the owner's."""
    names: list[str] = []
    current = threading.current_thread
    owner.pool.submit(
        Task(lambda: current().name, lambda name: names.extend((name, current().name)))
    )
    wait_readable(owner.calls.fileno(), "a result")
    owner.calls.run_pending()
    assert names == ["handler lab 1", "MainThread"]


def test_threads_are_started_when_they_are_needed(owner: Owner) -> None:
    """None without work, and a thread that is free is taken before another one is started."""
    before = threading.active_count()
    for count in (1, 2, 3):
        owner.submit(lambda: threading.current_thread().name)
        assert owner.results_of(count)[-1] == "handler lab 1"
    assert threading.active_count() == before + 1


def test_a_task_that_finds_no_thread_waits(owner: Owner) -> None:
    """There are never more threads than the size of the pool, and the oldest task is next."""
    first, second = owner.held(), owner.held()
    owner.submit(lambda: "third")
    owner.submit(lambda: "fourth")
    assert (owner.pool.busy, len(owner.pool.waiting)) == (2, 2)
    first.set()
    assert owner.results_of(3)[1:] == ["third", "fourth"]
    second.set()
    assert owner.results_of(4)[3] == "handler lab 2"


def test_a_host_without_threads_to_spare_has_tasks_wait(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a thread is free, or `assign` is called."""
    begin = threading.Thread.start

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    owner.submit(lambda: "first")
    assert (owner.pool.busy, len(owner.pool.waiting)) == (0, 1)
    monkeypatch.setattr(threading.Thread, "start", begin)
    owner.pool.assign()
    assert owner.results_of(1) == ["first"]
    policy = owner.held()
    monkeypatch.setattr(threading.Thread, "start", none_left)
    owner.submit(lambda: "third")
    assert (owner.pool.busy, len(owner.pool.waiting)) == (1, 1)
    policy.set()
    assert owner.results_of(3)[2] == "third"


def test_a_task_that_waits_can_be_cancelled(owner: Owner) -> None:
    """One that a thread has cannot."""
    gates = owner.held(), owner.held()
    waits = owner.submit(lambda: pytest.fail("done all the same"))
    assert owner.pool.cancel(waits)
    assert not owner.pool.cancel(waits)
    for policy in gates:
        policy.set()
    assert len(owner.results_of(2)) == 2


def test_a_pool_grows_and_shrinks(owner: Owner) -> None:
    """A new thread takes what waits; those that are too many end when they are free."""
    before = threading.active_count()
    gates = [owner.held() for _ in range(4)]
    owner.pool.resize(4)
    assert (owner.pool.busy, len(owner.pool.waiting)) == (4, 0)
    for policy in gates[:2]:
        policy.set()
    owner.results_of(2)
    owner.pool.resize(1)
    assert threading.active_count() == before + 2
    for policy in gates[2:]:
        policy.set()
    owner.results_of(4)
    assert threading.active_count() == before + 1


def test_a_pool_that_is_shut_down_forgets_what_waits(owner: Owner) -> None:
    """Tasks that run still have their results; none is begun any more."""
    gates = owner.held(), owner.held()
    owner.submit(lambda: pytest.fail("begun"))
    owner.pool.shutdown()
    for policy in gates:
        policy.set()
    assert len(owner.results_of(2)) == 2


@pytest.mark.parametrize("smaller", [ThreadPool.shutdown, lambda pool: pool.resize(0)])
def test_all_threads_are_asked_to_end_before_one_is_waited_for(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, smaller: Callable[[ThreadPool], None]
) -> None:
    """The owner is an event loop, and each thread may have to wait for the interpreter lock."""
    gates = [owner.held(), owner.held()]
    for policy in gates:
        policy.set()
    owner.results_of(2)
    steps: list[str] = []
    stop, join = PoolThread.stop, LoopThread.join

    def noted_stop(thread: PoolThread) -> None:
        steps.append("stop")
        stop(thread)

    def noted_join(thread: LoopThread, seconds: float | None = None) -> bool:
        steps.append("join")
        return join(thread, seconds)

    monkeypatch.setattr(PoolThread, "stop", noted_stop)
    monkeypatch.setattr(LoopThread, "join", noted_join)
    smaller(owner.pool)
    assert steps == ["stop", "stop", "join", "join"]
