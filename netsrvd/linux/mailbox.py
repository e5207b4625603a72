"""A queue that wakes its reader's poll: how one thread asks another to do something."""

import os
from collections import deque
from collections.abc import Callable


class Mailbox:
    """Calls to be made by the thread that owns the mailbox.

    Any thread may `post` or `leave`; only the owner may `deliver`. A deque's append and popleft
    are atomic, so no lock is needed; an eventfd(2) makes the owner's poll return. `signalled`
    saves its system call while a wake-up is already on its way: the owner clears it before it
    looks into the queue, so a call that was appended under a set flag is always still seen.

    Close it when its owner has ended.
    """

    __slots__ = ("_calls", "_eventfd", "_signalled")

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signalled = False

    def fileno(self) -> int:
        """Return the descriptor that is readable while calls wait."""
        return self._eventfd

    def post(self, call: Callable[..., None], *arguments: object) -> None:
        """Have the owner run `call(*arguments)` soon. Without effect once the mailbox is closed."""
        self._calls.append((call, arguments))
        self.wake()

    def leave(self, call: Callable[..., None], *arguments: object) -> None:
        """Have the owner run `call(*arguments)` when something else wakes it."""
        self._calls.append((call, arguments))

    def wake(self) -> None:
        """Make the owner's poll return."""
        if not self._signalled and self._eventfd >= 0:
            self._signalled = True
            os.eventfd_write(self._eventfd, 1)

    def deliver(self) -> None:
        """Run all calls that wait, in the order in which they came (owner only)."""
        if self._signalled:
            os.eventfd_read(self._eventfd)
            self._signalled = False
        calls = self._calls
        while calls:
            call, arguments = calls.popleft()
            call(*arguments)

    def close(self) -> None:
        """Close the descriptor; calls that are left are forgotten."""
        descriptor, self._eventfd = self._eventfd, -1
        if descriptor >= 0:
            os.close(descriptor)
