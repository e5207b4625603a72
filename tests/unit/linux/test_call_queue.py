"""netsrvd.linux.call_queue"""

import os
import select
import threading
from collections import deque
from collections.abc import Iterator

import pytest

from netsrvd.linux.call_queue import CallQueue


@pytest.fixture
def queue() -> Iterator[CallQueue]:
    made = CallQueue()
    yield made
    made.close()


def wakes(queue: CallQueue) -> bool:
    """Return whether a poll on the queue returns now."""
    poll = select.poll()
    poll.register(queue, select.POLLIN)
    return bool(poll.poll(0))


def test_a_post_wakes_and_is_delivered_once(queue: CallQueue) -> None:
    """What is posted makes the owner's poll return, and is run by `run_pending`, once."""
    calls: list[int] = []
    assert not wakes(queue)
    queue.put(calls.append, 1)
    assert wakes(queue)
    queue.run_pending()
    queue.run_pending()
    assert calls == [1]
    assert not wakes(queue)


def test_what_is_first_comes_before_all_that_waits(queue: CallQueue) -> None:
    """It wakes, and it is run first, also by a delivery that has begun or is of a few calls."""
    calls: list[int] = []
    queue.put(lambda: queue.put_first(calls.append, 2))
    queue.put(calls.append, 3)
    queue.put_first(calls.append, 1)
    assert wakes(queue)
    queue.run_pending(3)
    assert calls == [1, 2]
    queue.run_pending()
    assert calls == [1, 2, 3]


def test_many_posts_are_one_wake_up(queue: CallQueue) -> None:
    """A wake-up that is on its way serves all that come meanwhile."""
    calls: list[int] = []
    for number in range(100):
        queue.put(calls.append, number)
    assert os.eventfd_read(queue.fileno()) == 1
    os.eventfd_write(queue.fileno(), 1)
    queue.run_pending()
    assert calls == [*range(100)]


def test_a_wake_up_alone_delivers_nothing(queue: CallQueue) -> None:
    """The owner may be woken just to look around."""
    queue.wake()
    assert wakes(queue)
    queue.run_pending()
    assert not wakes(queue)


def test_a_call_may_post_again(queue: CallQueue) -> None:
    """What a call posts is delivered in the next turn, which the owner need not wait for."""
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        queue.put(calls.append, "second")

    queue.put(first)
    queue.run_pending()
    assert calls == ["first"]
    assert wakes(queue)
    queue.run_pending()
    assert calls == ["first", "second"]


def test_a_delivery_ends_while_others_post(queue: CallQueue) -> None:
    """However fast calls come, a delivery runs those that waited at its beginning, and ends."""
    calls: list[int] = []

    def again() -> None:
        calls.append(1)
        for _ in range(2):
            queue.put(again)

    queue.put(again)
    for count in (1, 3, 7):
        queue.run_pending()
        assert len(calls) == count


def test_a_delivery_of_a_few_goes_on_in_the_next_turn(queue: CallQueue) -> None:
    """With `most` it runs that number of calls, in their order, and the next poll returns."""
    calls: list[int] = []
    for number in range(5):
        queue.put(calls.append, number)
    for delivered in (2, 4):
        queue.run_pending(2)
        assert calls == [*range(delivered)]
        assert wakes(queue)
    queue.run_pending(2)
    assert calls == [*range(5)]
    assert not wakes(queue)


def test_a_wake_up_that_is_still_on_its_way_is_seen_later(queue: CallQueue) -> None:
    """Another thread has decided to wake us but has not written yet: the call is not lost."""
    calls: list[int] = []
    queue._token.pop()
    queue.put(calls.append, 1)
    queue.run_pending()
    assert calls == [1]
    os.eventfd_write(queue.fileno(), 1)
    assert wakes(queue)
    queue.put(calls.append, 2)
    queue.run_pending()
    assert calls == [1, 2]
    assert not wakes(queue)


def test_two_threads_may_want_to_wake_at_once(queue: CallQueue) -> None:
    """Of two that find the token one takes it; the other has nothing to do any more."""

    class Taken(deque[bool]):
        def pop(self) -> bool:
            raise IndexError

    queue._token = Taken([True])
    queue.put(print)
    assert not wakes(queue)
    queue._token = deque([True])


def test_nothing_is_lost_between_threads(queue: CallQueue) -> None:
    """However the threads meet, every call is run, and each thread's calls in their order."""
    calls: list[tuple[int, int]] = []

    def post(thread: int) -> None:
        for number in range(300):
            queue.put(calls.append, (thread, number))

    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    poll = select.poll()
    poll.register(queue, select.POLLIN)
    while len(calls) < 4 * 300:
        assert poll.poll(10_000), "a wake-up was lost"
        queue.run_pending()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [call[1] for call in calls if call[0] == number] == [*range(300)]


def test_a_closed_mailbox_takes_nothing() -> None:
    """Posting to a thread that has ended is without effect, and its descriptor is free."""
    queue = CallQueue()
    descriptor = queue.fileno()
    queue.put(print)
    queue.close()
    queue.close()
    reused = os.eventfd(0, os.EFD_NONBLOCK)
    queue.put(print)
    queue.wake()
    assert reused == descriptor
    with pytest.raises(BlockingIOError):
        os.eventfd_read(reused)
    os.close(reused)
    assert queue.fileno() == -1


def test_a_mailbox_that_nobody_posted_to_is_closed() -> None:
    """Closing does not wait for a wake-up that nobody has sent."""
    queue = CallQueue()
    queue.close()
    assert queue.fileno() == -1
