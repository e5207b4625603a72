"""A queue of calls that wakes the thread that runs them (eventfd(2))."""

import os
import select
from collections import deque
from collections.abc import Callable
from sys import maxsize


class CallQueue:
    """Calls to be made by the thread that owns the queue.

    Any thread may `put`; only the owner may `run_pending`. A deque's append and pop are
    atomic, so no lock is needed; an eventfd(2) makes the owner's poll return. A thread that wakes
    the owner takes the one token first, and the owner puts it back when it has read the wake-up.
    So at most one wake-up is on its way, and a call that was queued without the token is seen.

    Close it when its owner has ended.
    """

    __slots__ = ("_calls", "_eventfd", "_token")

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._token = deque([True])

    def fileno(self) -> int:
        """Return the descriptor that is readable while calls wait."""
        return self._eventfd

    def put(self, call: Callable[..., None], *arguments: object) -> None:
        """Queue `call(*arguments)` and wake the owner. Without effect once it is closed."""
        self._calls.append((call, arguments))
        self.wake()

    def put_first(self, call: Callable[..., None], *arguments: object) -> None:
        """Queue `call(*arguments)` before all calls that wait, and wake the owner."""
        self._calls.appendleft((call, arguments))
        self.wake()

    def wake(self) -> None:
        """Make the owner's poll return."""
        if self._token:
            try:
                self._token.pop()
            except IndexError:  # another thread was quicker
                return
            os.eventfd_write(self._eventfd, 1)

    def run_pending(self, most: int = maxsize) -> None:
        """Run the calls that wait now, `most` of them at most, in their order (owner only).

        A call that comes meanwhile is left for the next delivery. Otherwise this would not return
        while another thread queues calls as fast as the calls are run. If calls are left because of
        `most`, the owner's next poll returns at once.
        """
        if not self._token:
            try:
                os.eventfd_read(self._eventfd)
            except BlockingIOError:
                pass  # not written yet: it will make the next poll return
            else:
                self._token.append(True)
        calls = self._calls
        waiting = len(calls)
        for _ in range(min(waiting, most)):
            call, arguments = calls.popleft()
            call(*arguments)
        if waiting > most:
            self.wake()

    def close(self) -> None:
        """Close the descriptor; drop the calls that are left, and all later ones.

        A wake-up that is on its way is waited for: it must not be written to a descriptor that has
        been given to another file by then.
        """
        if self._eventfd < 0:
            return
        try:
            self._token.pop()
        except IndexError:
            poll = select.poll()
            poll.register(self._eventfd, select.POLLIN)
            poll.poll()
        os.close(self._eventfd)
        self._eventfd = -1
