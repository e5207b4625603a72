"""netsrvd.listeners.handlers.crew"""

import threading
from collections.abc import Callable, Iterator

import pytest

from netsrvd.linux.mailbox import Mailbox
from netsrvd.listeners.handlers.crew import Crew, Job
from tests.support.patience import wait_readable
from tests.support.reports import Failures
from tests.support.waiting import wait_event


class Owner:
    """The thread that owns a crew, which is the test's."""

    def __init__(self, most: int) -> None:
        self.mailbox, self.failures = Mailbox(), Failures()
        self.crew = Crew("handler lab", most, self.mailbox, self.failures)
        self.results: list[object] = []
        self.gates: list[threading.Event] = []

    def job(self, work: Callable[[], object]) -> Job:
        made = Job(work, self.results.append)
        self.crew.give(made)
        return made

    def held(self) -> threading.Event:
        """Give the crew a job that lasts until the event is set."""
        begun, gate = threading.Event(), threading.Event()
        self.gates.append(gate)

        def work() -> str:
            begun.set()
            wait_event(gate, "the end of a job")
            return threading.current_thread().name

        self.job(work)
        if self.crew.busy == len(self.gates):
            wait_event(begun, "the begin of a job")
        return gate

    def hear(self, count: int) -> list[object]:
        """Return the results as soon as there are so many."""
        while len(self.results) < count:
            wait_readable(self.mailbox.fileno(), "a result")
            self.mailbox.deliver()
        return self.results


@pytest.fixture
def owner() -> Iterator[Owner]:
    """Return the owner of a crew of two."""
    made = Owner(2)
    yield made
    for gate in made.gates:
        gate.set()
    while made.crew.busy:
        wait_readable(made.mailbox.fileno(), "the last results")
        made.mailbox.deliver()
    made.crew.dismiss()
    made.mailbox.close()
    assert made.failures.found == []


def test_the_owner_hears_the_result(owner: Owner) -> None:
    """The work is done in a thread of the crew, its result is told in the owner's."""
    names: list[str] = []
    work = threading.current_thread
    owner.crew.give(Job(lambda: work().name, lambda name: names.extend((name, work().name))))
    wait_readable(owner.mailbox.fileno(), "a result")
    owner.mailbox.deliver()
    assert names == ["handler lab 1", "MainThread"]


def test_threads_are_started_when_they_are_needed(owner: Owner) -> None:
    """None without work, and a thread that is free is taken before another one is started."""
    before = threading.active_count()
    for count in (1, 2, 3):
        owner.job(lambda: threading.current_thread().name)
        assert owner.hear(count)[-1] == "handler lab 1"
    assert threading.active_count() == before + 1


def test_who_finds_no_thread_waits(owner: Owner) -> None:
    """There are never more threads than were asked for, and the oldest job is next."""
    first, second = owner.held(), owner.held()
    owner.job(lambda: "third")
    owner.job(lambda: "fourth")
    assert (owner.crew.busy, len(owner.crew.waiting)) == (2, 2)
    first.set()
    assert owner.hear(3)[1:] == ["third", "fourth"]
    second.set()
    assert owner.hear(4)[3] == "handler lab 2"


def test_a_host_without_threads_to_spare_has_jobs_wait(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until somebody is free, or looks again."""
    begin = threading.Thread.start

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    owner.job(lambda: "first")
    assert (owner.crew.busy, len(owner.crew.waiting)) == (0, 1)
    monkeypatch.setattr(threading.Thread, "start", begin)
    owner.crew.assign()
    assert owner.hear(1) == ["first"]
    gate = owner.held()
    monkeypatch.setattr(threading.Thread, "start", none_left)
    owner.job(lambda: "third")
    assert (owner.crew.busy, len(owner.crew.waiting)) == (1, 1)
    gate.set()
    assert owner.hear(3)[2] == "third"


def test_a_job_that_waits_can_be_taken_back(owner: Owner) -> None:
    """One that somebody has cannot."""
    gates = owner.held(), owner.held()
    waits = owner.job(lambda: pytest.fail("done all the same"))
    assert owner.crew.withdraw(waits)
    assert not owner.crew.withdraw(waits)
    for gate in gates:
        gate.set()
    assert len(owner.hear(2)) == 2


def test_a_crew_grows_and_shrinks(owner: Owner) -> None:
    """A new thread takes what waits; those that are too many end when they are free."""
    before = threading.active_count()
    gates = [owner.held() for _ in range(4)]
    owner.crew.resize(4)
    assert (owner.crew.busy, len(owner.crew.waiting)) == (4, 0)
    for gate in gates[:2]:
        gate.set()
    owner.hear(2)
    owner.crew.resize(1)
    assert threading.active_count() == before + 2
    for gate in gates[2:]:
        gate.set()
    owner.hear(4)
    assert threading.active_count() == before + 1


def test_a_dismissed_crew_forgets_what_waits(owner: Owner) -> None:
    """Who is busy still tells his result, and nothing is begun any more."""
    gates = owner.held(), owner.held()
    owner.job(lambda: pytest.fail("begun"))
    owner.crew.dismiss()
    for gate in gates:
        gate.set()
    assert len(owner.hear(2)) == 2
