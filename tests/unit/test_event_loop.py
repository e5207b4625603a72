"""netsrvd.event_loop"""

import errno
import fcntl
import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest

from netsrvd import event_loop
from netsrvd.event_loop import CALLS_PER_TURN, READ, WRITE, EventLoop
from tests.support.patience import SECONDS, eventually
from tests.support.reports import Failures


class Watched:
    """Calls a function when its descriptor is ready."""

    def __init__(self, call: Callable[[int], object]) -> None:
        self.call = call

    def on_ready(self, events: int, now: float) -> None:
        self.call(events)


class Timer:
    """Notes the times of its calls; says what the test wants about the next one."""

    def __init__(self, call: Callable[[float], float] = lambda now: inf) -> None:
        self.calls: list[float] = []
        self.call = call

    def run_due(self, now: float) -> float:
        self.calls.append(now)
        return self.call(now)


class Running:
    """A loop, and the failures of its thread."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.loop = EventLoop("test", self.failures)

    def turn(self) -> None:
        """Return when everything that was posted has been done."""
        self.loop.call_and_wait(lambda: None)

    def end(self) -> None:
        """Stop the loop and wait for its end."""
        self.loop.stop()
        assert self.loop.join(SECONDS)


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.end()
    assert not made.failures.found


# --- timers -----------------------------------------------------------------------------------


def test_a_timer_is_called_once_and_not_early(running: Running) -> None:
    """A timer that returns "never" has one call, at its time or later."""
    timer, second = Timer(), threading.Event()
    when = event_loop.monotonic() + 0.02
    running.loop.call_at(when, timer)
    running.loop.call_at(when + 0.02, Timer(lambda _: (second.set(), inf)[1]))
    running.loop.start()
    assert second.wait(SECONDS)
    [called_at] = timer.calls
    assert called_at >= when


def test_the_earlier_of_two_deadlines_counts(running: Running) -> None:
    """A later deadline does not put off an earlier one; an earlier one replaces a later one."""
    once = threading.Event()
    timer = Timer(lambda _: (once.set(), inf)[1])
    far = event_loop.monotonic() + 1000
    running.loop.start()
    for when in (far, 0.0, far):
        running.loop.call_soon_threadsafe(running.loop.call_at, when, timer)
    assert once.wait(SECONDS)
    running.turn()
    assert len(timer.calls) == 1


def test_a_later_timer_does_not_put_an_earlier_one_off(running: Running) -> None:
    """Of two timers the earlier one counts, whichever was asked for last."""
    called = threading.Event()
    running.loop.call_at(event_loop.monotonic(), Timer(lambda _: (called.set(), inf)[1]))
    running.loop.call_at(event_loop.monotonic() + 1000, Timer())
    running.loop.start()
    assert called.wait(SECONDS)


def test_a_timer_says_when_it_is_next_due(running: Running) -> None:
    """It is called again at the time that it returns, until it returns infinity."""
    third = threading.Event()

    def due(now: float) -> float:
        if len(timer.calls) == 3:
            third.set()
            return inf
        return now + 0.002

    timer = Timer(due)
    running.loop.call_at(0.0, timer)
    running.loop.start()
    assert third.wait(SECONDS)
    running.turn()
    assert len(timer.calls) == 3
    assert all(later >= before + 0.002 for before, later in itertools.pairwise(timer.calls))


def test_a_timer_that_asks_for_an_earlier_time_meanwhile_gets_it(running: Running) -> None:
    """What `run_due` calls may ask for a call before the time that `run_due` returns."""
    twice = threading.Event()

    def due(_: float) -> float:
        if len(timer.calls) == 1:
            running.loop.call_at(0.0, timer)
            return event_loop.monotonic() + 1000
        twice.set()
        return inf

    timer = Timer(due)
    running.loop.call_at(0.0, timer)
    running.loop.start()
    assert twice.wait(SECONDS)


def test_a_timer_asks_for_another_one_meanwhile(running: Running) -> None:
    """A timer that is new, and one that was called in this turn already, are called soon."""
    done = threading.Event()
    first = Timer(lambda _: (done.set() if len(first.calls) == 2 else None, inf)[1])
    new = Timer()

    def due(_: float) -> float:
        running.loop.call_at(0.0, first)
        running.loop.call_at(0.0, new)
        return inf

    running.loop.call_at(0.0, first)
    running.loop.call_at(0.0, Timer(due))
    running.loop.start()
    assert done.wait(SECONDS)
    running.turn()
    assert len(new.calls) == 1


def test_a_forgotten_timer_is_not_called(running: Running) -> None:
    """Neither before its time, nor in a turn in which another timer forgets it, nor by itself."""
    forgotten, victim, done = Timer(), Timer(), threading.Event()

    def forget(now: float) -> float:
        running.loop.forget_timer(victim)
        running.loop.forget_timer(suicide)
        done.set()
        return now  # due at once again, if it were not forgotten

    suicide = Timer(forget)
    for timer in (forgotten, suicide, victim):
        running.loop.call_at(0.0, timer)
    running.loop.forget_timer(forgotten)
    running.loop.start()
    assert done.wait(SECONDS)
    running.turn()
    running.turn()
    assert (len(forgotten.calls), len(suicide.calls), len(victim.calls)) == (0, 1, 0)


def test_a_loop_without_deadlines_sleeps(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timers it waits for ever; so does it after the last one, and does not turn on."""
    waits: list[float | None] = []
    running.loop._epoll = spy_on_poll(running.loop, waits.append)
    running.loop.start()
    eventually(lambda: waits)
    done = threading.Event()
    running.loop.call_soon_threadsafe(running.loop.call_at, 0.0, Timer())
    running.turn()
    running.loop.call_soon_threadsafe(done.set)
    assert done.wait(SECONDS)
    assert waits[0] is None
    eventually(lambda: waits[-1] is None)
    assert len(waits) <= 6


# --- calls from other threads -----------------------------------------------------------------


def test_calls_run_in_their_order(running: Running) -> None:
    """Also those that were posted before the start; all of them run in the loop's thread."""
    seen: list[tuple[int, str]] = []
    for number in range(3 * CALLS_PER_TURN):
        if number == CALLS_PER_TURN:
            running.loop.start()
        running.loop.call_soon_threadsafe(
            lambda each: seen.append((each, threading.current_thread().name)), number
        )
    running.turn()
    assert seen == [(number, "test") for number in range(3 * CALLS_PER_TURN)]


def test_a_turn_runs_so_many_calls_and_no_more(running: Running) -> None:
    """The others run in the next ones, after what is ready then: calls do not starve clients."""
    turns = count_turns(running)
    seen: list[int] = []
    for _ in range(5 * CALLS_PER_TURN):
        running.loop.call_soon_threadsafe(lambda: seen.append(turns[0]))
    running.loop.start()
    running.turn()
    assert len(seen) == 5 * CALLS_PER_TURN
    assert max(map(seen.count, set(seen))) == CALLS_PER_TURN


def test_a_call_that_posts_itself_does_not_keep_the_loop(running: Running) -> None:
    """A timer is called though each turn has a call; and so is `stop`."""
    ran = threading.Event()

    def again() -> None:
        if not ran.is_set():
            running.loop.call_soon_threadsafe(again)

    running.loop.call_soon_threadsafe(again)
    running.loop.call_at(0.0, Timer(lambda _: (ran.set(), inf)[1]))
    running.loop.start()
    assert ran.wait(SECONDS)


def test_call_and_wait_returns_what_the_call_returns(running: Running) -> None:
    """And passes the arguments; the call has run in the loop's thread when it returns."""
    running.loop.start()
    name, total = running.loop.call_and_wait(
        lambda a, b: (threading.current_thread().name, a + b), 3, 4
    )
    assert (name, total) == ("test", 7)


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3)])
def test_call_and_wait_raises_what_the_call_raises(running: Running, error: BaseException) -> None:
    """In the caller's thread; the loop goes on."""

    def fail() -> None:
        raise error

    running.loop.start()
    with pytest.raises(type(error)) as caught:
        running.loop.call_and_wait(fail)
    assert caught.value is error
    assert running.loop.call_and_wait(lambda: 5) == 5


def test_before_the_start_and_after_the_end_the_caller_has_the_loop() -> None:
    """`call_and_wait` runs the call at once, in the caller's thread."""
    made = Running()
    here = threading.current_thread().name
    who = lambda: threading.current_thread().name  # noqa: E731
    assert made.loop.call_and_wait(who) == here
    made.loop.start()
    assert made.loop.call_and_wait(who) == "test"
    made.end()
    assert made.loop.call_and_wait(who) == here


def test_a_loop_that_failed_before_it_came_to_the_call_is_ended() -> None:
    """Then the caller has the loop: the call runs at once, in its thread, and once."""
    made, seen = Running(), []
    go_on = threading.Event()

    def fail() -> None:
        go_on.wait()
        raise ZeroDivisionError("a bug")

    made.loop.start()
    made.loop.call_soon_threadsafe(fail)
    threading.Timer(0.05, go_on.set).start()
    made.loop.call_and_wait(lambda: seen.append(threading.current_thread().name))
    assert seen == [threading.current_thread().name]
    assert made.loop.join(SECONDS)
    assert len(made.failures.found) == 1


def test_a_ping_comes_before_all_calls_that_wait(running: Running) -> None:
    """However many there are, the watchdog is answered by a loop that turns."""
    seen: list[int] = []
    for _ in range(3 * CALLS_PER_TURN):
        running.loop.call_soon_threadsafe(lambda: seen.append(running.loop.thread.heartbeat))
    running.loop.thread.ping(7)
    running.loop.start()
    running.turn()
    assert set(seen) == {7}


def test_a_loop_that_has_ended_has_no_open_descriptor() -> None:
    """Also one that was never started."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    made, never = Running(), Running()
    made.loop.start()
    made.end()
    assert never.loop.join(0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_loop_that_does_not_answer_is_not_waited_for_for_ever(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`call_and_wait` raises TimeoutError, which names the thread."""
    monkeypatch.setattr(event_loop, "CALL_SECONDS", 0.01)
    go_on = threading.Event()
    running.loop.start()
    running.loop.call_soon_threadsafe(go_on.wait)
    with pytest.raises(TimeoutError, match="thread test does not answer"):
        running.loop.call_and_wait(lambda: None)
    go_on.set()


# --- descriptors ------------------------------------------------------------------------------


def test_events_are_passed_on(pair: tuple[socket.socket, socket.socket], running: Running) -> None:
    """READ when there is something to read, WRITE when there is room, as `modify` says."""
    near, far = pair
    seen: list[int] = []
    came = threading.Event()

    def note(events: int) -> None:
        seen.append(events)
        running.loop.modify(near.fileno(), 0)
        came.set()

    running.loop.add(near.fileno(), Watched(note))
    running.loop.start()
    far.send(b"x")
    assert came.wait(SECONDS)
    came.clear()
    running.turn()
    assert seen == [READ]
    running.loop.call_and_wait(running.loop.modify, near.fileno(), WRITE)
    assert came.wait(SECONDS)
    assert seen == [READ, WRITE]


def test_a_descriptor_that_was_removed_is_not_heard_of(
    pair: tuple[socket.socket, socket.socket], running: Running
) -> None:
    """Also while another descriptor of the same open file stays, as systemd's store keeps one."""
    near, far = pair
    seen: list[int] = []
    running.loop.add(near.fileno(), Watched(seen.append))
    kept = near.dup()
    with kept:
        running.loop.remove(near.fileno())
        near.close()
        far.send(b"x")
        turns = count_turns(running)
        running.loop.start()
        running.turn()
        running.turn()
    assert not seen
    assert turns[0] <= 5  # it does not turn round and round


def test_a_descriptor_that_is_forgotten_and_closed_is_not_heard_of(
    pair: tuple[socket.socket, socket.socket], running: Running
) -> None:
    """The close takes it out of epoll(7); its number can be used again."""
    near, _ = pair
    seen: list[str] = []
    running.loop.add(near.fileno(), Watched(lambda _: seen.append("old")))
    number = near.fileno()
    running.loop.forget(number)
    near.close()
    one, other = socket.socketpair()
    with one, other:
        assert number in (one.fileno(), other.fileno())
        peer = other if one.fileno() == number else one

        def read(_: int) -> None:
            running.loop.remove(number)
            seen.append("new")

        running.loop.add(number, Watched(read))
        peer.send(b"x")
        running.loop.start()
        eventually(lambda: seen)
    assert seen == ["new"]


def test_to_remove_what_is_not_watched_is_nothing(running: Running) -> None:
    """A connection may be closed twice over on two ways; others are watched all the same."""
    near, far = socket.socketpair()
    with near, far:
        called = threading.Event()
        running.loop.add(far.fileno(), Watched(lambda _: (far.recv(1), called.set())))
        for descriptor in (0, 100_000):
            running.loop.remove(descriptor)
            running.loop.forget(descriptor)
        running.loop.forget(-1)  # of a socket that is closed
        running.loop.start()
        near.send(b"x")
        assert called.wait(SECONDS)


def test_a_descriptor_that_is_reserved_may_have_events(running: Running) -> None:
    """Such as those that epoll(7) always reports: they are nothing, whatever its number is."""
    number = 1000
    with socket.socket() as sock:  # without a peer: EPOLLHUP
        assert fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, number) == number
    try:
        running.loop.reserve(number)
        polled = running.loop._epoll.poll(0)
        assert [descriptor for descriptor, _ in polled] == [number]
        running.loop.start()
        running.turn()
        running.turn()
        running.loop.release(number)
    finally:
        os.close(number)


def test_what_cannot_be_watched_is_an_error(running: Running) -> None:
    """`add` raises what epoll_ctl(2) fails with, and remembers nothing."""
    with Path(os.devnull).open() as file, pytest.raises(PermissionError):
        running.loop.add(file.fileno(), Watched(lambda _: None))


def test_a_descriptor_that_was_closed_in_this_turn_has_no_event(running: Running) -> None:
    """Of two that are ready in one turn the first closes the second: its event is left out, also
    when a new descriptor has its number by then.
    """
    pairs = [socket.socketpair() for _ in range(2)]
    for near, far in pairs:
        near.setblocking(False)
        far.send(b"x")
    ours = [near for near, _ in pairs]
    seen: list[str] = []
    new: list[socket.socket] = []

    def first(index: int) -> Callable[[int], None]:
        def call(_: int) -> None:
            seen.append("event")
            ours[index].recv(1)
            other = ours[1 - index]
            number = other.fileno()
            running.loop.forget(number)
            other.close()
            new.extend(socket.socketpair())
            [again] = [each for each in new if each.fileno() == number]
            again.setblocking(False)
            running.loop.add(number, Watched(lambda _: stale(again)))

        return call

    def stale(sock: socket.socket) -> None:
        with suppress(BlockingIOError):  # what every watched object has to bear
            sock.recv(1)
            seen.append("data")

    for index, near in enumerate(ours):
        running.loop.add(near.fileno(), Watched(first(index)))
    running.loop.start()
    running.turn()
    eventually(lambda: seen)
    running.turn()
    assert seen == ["event"]
    for sock in [*new, *(each for pair in pairs for each in pair)]:
        sock.close()


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["descriptor", "timer", "call"])
def test_an_exception_ends_the_loop_and_is_told(
    failing: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    """`on_failure` has the name of the thread and the exception; the thread has ended then."""
    made = Running()
    error = ZeroDivisionError("a bug")

    def fail(*_: object) -> Any:
        raise error

    if failing == "descriptor":
        made.loop.add(pair[0].fileno(), Watched(fail))
        pair[1].send(b"x")
    elif failing == "timer":
        made.loop.call_at(0.0, Timer(fail))
    else:
        made.loop.call_soon_threadsafe(fail)
    made.loop.start()
    assert made.loop.join(SECONDS)
    assert made.failures.found == [("test", error)]


def spy_on_poll(loop: EventLoop, look: Callable[[float | None], object]) -> Any:
    """Return what polls as the loop does, and looks at each wait before."""
    epoll = loop._epoll

    class Polled:
        def __getattr__(self, name: str) -> Any:
            return getattr(epoll, name)

        def poll(self, wait: float | None, most: int) -> list[tuple[int, int]]:
            look(wait)
            return epoll.poll(wait, most)

    return Polled()


def count_turns(running: Running) -> list[int]:
    """Return a list whose one element counts the turns of a loop that is not started yet."""
    turns = [0]

    def count(_: float | None) -> None:
        turns[0] += 1

    running.loop._epoll = spy_on_poll(running.loop, count)
    return turns


def test_an_error_of_epoll_that_may_pass_is_survived(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOMEM has it wait a moment; then it goes on."""
    pauses: list[float] = []
    errors = [OSError(errno.ENOMEM, "no memory"), OSError(errno.ENOMEM, "no memory")]

    def fail(_: float | None) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(event_loop, "sleep", pauses.append)
    running.loop._epoll = spy_on_poll(running.loop, fail)
    running.loop.start()
    assert running.loop.call_and_wait(lambda: 5) == 5
    assert pauses == [event_loop.PAUSE_SECONDS] * 2


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.EFAULT])
def test_an_error_of_epoll_that_is_ours_ends_the_loop(number: int) -> None:
    """It would come again for ever."""
    made = Running()

    def fail(_: float | None) -> None:
        raise OSError(number, os.strerror(number))

    made.loop._epoll = spy_on_poll(made.loop, fail)
    made.loop.start()
    assert made.loop.join(SECONDS)
    [(name, error)] = made.failures.found
    assert (name, getattr(error, "errno", 0)) == ("test", number)


# --- life -------------------------------------------------------------------------------------


def test_a_loop_that_turns_answers_the_watchdog(running: Running) -> None:
    """A ping is answered by its number, in the thread itself."""
    running.loop.start()
    running.loop.thread.ping(7)
    eventually(lambda: running.loop.thread.heartbeat == 7)


def test_a_loop_that_hangs_does_not_answer_the_watchdog(running: Running) -> None:
    """While a callback does not return, no ping is answered."""
    go_on, entered = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        go_on.wait()

    running.loop.start()
    running.loop.call_soon_threadsafe(hang)
    assert entered.wait(SECONDS)
    running.loop.thread.ping(7)
    assert running.loop.thread.heartbeat == 0
    assert not running.loop.join(0.01)
    go_on.set()
    eventually(lambda: running.loop.thread.heartbeat == 7)


def test_a_loop_runs_from_its_start_to_its_end() -> None:
    """`is_running` is for those who may start it; a stop does what was asked for before it."""
    made, seen = Running(), []
    assert not made.loop.is_running
    made.loop.start()
    assert made.loop.is_running
    made.loop.call_soon_threadsafe(seen.append, 1)
    made.end()
    assert seen == [1]


def test_the_time_of_a_turn_is_current(running: Running) -> None:
    """`now` is when epoll_wait(2) returned, and not when the turn before did."""
    running.loop.start()
    running.turn()
    before = event_loop.monotonic()
    assert before <= running.loop.call_and_wait(lambda: running.loop.now) <= event_loop.monotonic()


def test_many_descriptors_are_all_served(running: Running) -> None:
    """More than one epoll_wait(2) returns, all ready at once: each has its event."""
    count = event_loop.EVENTS_PER_TURN // 4
    pairs = [socket.socketpair() for _ in range(count)]
    seen: set[int] = set()
    for near, far in pairs:
        far.send(b"x")

        def read(_: int, near: socket.socket = near) -> None:
            near.recv(1)
            seen.add(near.fileno())

        running.loop.add(near.fileno(), Watched(read))
    running.loop.start()
    eventually(lambda: len(seen) == count)
    for sock in (each for pair in pairs for each in pair):
        sock.close()


def test_the_events_are_those_of_epoll() -> None:
    """Errors and hang-ups come unasked, with numbers of their own."""
    assert (READ, WRITE) == (select.EPOLLIN, select.EPOLLOUT)
    assert not (READ | WRITE) & (select.EPOLLERR | select.EPOLLHUP)


# --- lag --------------------------------------------------------------------------------------


def test_a_timer_that_runs_late_is_lag(running: Running) -> None:
    """A call that takes long makes the timers of its turn late."""
    ran = threading.Event()

    def compute() -> None:
        when = event_loop.monotonic() + 0.01
        running.loop.call_at(when, Timer(lambda _: (ran.set(), inf)[1]))
        while event_loop.monotonic() < when + 0.05:
            pass

    running.loop.call_soon_threadsafe(compute)
    running.loop.start()
    assert ran.wait(SECONDS)
    assert running.loop.lag.highest(event_loop.monotonic()) >= 0.05


def test_what_was_due_before_the_start_is_not_late(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that starts long after it was made, with work for its first turn, has no lag."""
    ran, real = threading.Event(), event_loop.monotonic
    running.loop.call_at(0.0, Timer(lambda _: (ran.set(), inf)[1]))
    monkeypatch.setattr(event_loop, "monotonic", lambda: real() + 1000)
    running.loop.start()
    assert ran.wait(SECONDS)
    assert running.loop.lag.highest(event_loop.monotonic()) < 900
