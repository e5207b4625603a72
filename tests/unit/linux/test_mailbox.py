"""netsrvd.linux.mailbox"""

import os
import select
import threading
from collections import deque
from collections.abc import Iterator

import pytest

from netsrvd.linux.mailbox import Mailbox


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


def wakes(mailbox: Mailbox) -> bool:
    """Return whether a poll on the mailbox returns now."""
    poll = select.poll()
    poll.register(mailbox, select.POLLIN)
    return bool(poll.poll(0))


def test_a_post_wakes_and_is_delivered_once(mailbox: Mailbox) -> None:
    """What is posted makes the owner's poll return, and is run by `deliver`, once."""
    calls: list[int] = []
    assert not wakes(mailbox)
    mailbox.post(calls.append, 1)
    assert wakes(mailbox)
    mailbox.deliver()
    mailbox.deliver()
    assert calls == [1]
    assert not wakes(mailbox)


def test_what_is_first_comes_before_all_that_waits(mailbox: Mailbox) -> None:
    """It wakes, and it is run first, also by a delivery that has begun or is of a few calls."""
    calls: list[int] = []
    mailbox.post(lambda: mailbox.post_first(calls.append, 2))
    mailbox.post(calls.append, 3)
    mailbox.post_first(calls.append, 1)
    assert wakes(mailbox)
    mailbox.deliver(3)
    assert calls == [1, 2]
    mailbox.deliver()
    assert calls == [1, 2, 3]


def test_many_posts_are_one_wake_up(mailbox: Mailbox) -> None:
    """A wake-up that is on its way serves all that come meanwhile."""
    calls: list[int] = []
    for number in range(100):
        mailbox.post(calls.append, number)
    assert os.eventfd_read(mailbox.fileno()) == 1
    os.eventfd_write(mailbox.fileno(), 1)
    mailbox.deliver()
    assert calls == [*range(100)]


def test_a_wake_up_alone_delivers_nothing(mailbox: Mailbox) -> None:
    """The owner may be woken just to look around."""
    mailbox.wake()
    assert wakes(mailbox)
    mailbox.deliver()
    assert not wakes(mailbox)


def test_a_call_may_post_again(mailbox: Mailbox) -> None:
    """What a call posts is delivered in the next turn, which the owner need not wait for."""
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        mailbox.post(calls.append, "second")

    mailbox.post(first)
    mailbox.deliver()
    assert calls == ["first"]
    assert wakes(mailbox)
    mailbox.deliver()
    assert calls == ["first", "second"]


def test_a_delivery_ends_while_others_post(mailbox: Mailbox) -> None:
    """However fast calls come, a delivery runs those that waited at its beginning, and ends."""
    calls: list[int] = []

    def again() -> None:
        calls.append(1)
        for _ in range(2):
            mailbox.post(again)

    mailbox.post(again)
    for count in (1, 3, 7):
        mailbox.deliver()
        assert len(calls) == count


def test_a_delivery_of_a_few_goes_on_in_the_next_turn(mailbox: Mailbox) -> None:
    """With `most` it runs that number of calls, in their order, and the next poll returns."""
    calls: list[int] = []
    for number in range(5):
        mailbox.post(calls.append, number)
    for delivered in (2, 4):
        mailbox.deliver(2)
        assert calls == [*range(delivered)]
        assert wakes(mailbox)
    mailbox.deliver(2)
    assert calls == [*range(5)]
    assert not wakes(mailbox)


def test_a_wake_up_that_is_still_on_its_way_is_seen_later(mailbox: Mailbox) -> None:
    """Another thread has decided to wake us but has not written yet: the call is not lost."""
    calls: list[int] = []
    mailbox._token.pop()
    mailbox.post(calls.append, 1)
    mailbox.deliver()
    assert calls == [1]
    os.eventfd_write(mailbox.fileno(), 1)
    assert wakes(mailbox)
    mailbox.post(calls.append, 2)
    mailbox.deliver()
    assert calls == [1, 2]
    assert not wakes(mailbox)


def test_two_threads_may_want_to_wake_at_once(mailbox: Mailbox) -> None:
    """Of two that find the token one takes it; the other has nothing to do any more."""

    class Taken(deque[bool]):
        def pop(self) -> bool:
            raise IndexError

    mailbox._token = Taken([True])
    mailbox.post(print)
    assert not wakes(mailbox)
    mailbox._token = deque([True])


def test_nothing_is_lost_between_threads(mailbox: Mailbox) -> None:
    """However the threads meet, every call is run, and each thread's calls in their order."""
    calls: list[tuple[int, int]] = []

    def post(thread: int) -> None:
        for number in range(300):
            mailbox.post(calls.append, (thread, number))

    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    poll = select.poll()
    poll.register(mailbox, select.POLLIN)
    while len(calls) < 4 * 300:
        assert poll.poll(10_000), "a wake-up was lost"
        mailbox.deliver()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [call[1] for call in calls if call[0] == number] == [*range(300)]


def test_a_closed_mailbox_takes_nothing() -> None:
    """Posting to a thread that has ended is without effect, and its descriptor is free."""
    mailbox = Mailbox()
    descriptor = mailbox.fileno()
    mailbox.post(print)
    mailbox.close()
    mailbox.close()
    reused = os.eventfd(0, os.EFD_NONBLOCK)
    mailbox.post(print)
    mailbox.wake()
    assert reused == descriptor
    with pytest.raises(BlockingIOError):
        os.eventfd_read(reused)
    os.close(reused)
    assert mailbox.fileno() == -1


def test_a_mailbox_that_nobody_posted_to_is_closed() -> None:
    """Closing does not wait for a wake-up that nobody has sent."""
    mailbox = Mailbox()
    mailbox.close()
    assert mailbox.fileno() == -1
