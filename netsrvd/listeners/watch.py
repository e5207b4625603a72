"""How a thread waits for its socket and for its mail at once."""

import select
import socket

from netsrvd.linux.mailbox import Mailbox

CONGESTED_MS = 20
"""How often to look whether the log has room again, with `when_full = "wait"`."""


class Watch:
    """A poll(2) of one socket and one mailbox. Owned by the thread that both belong to."""

    __slots__ = ("_descriptor", "_mailbox", "_poll", "_watched")

    def __init__(self, sock: socket.socket, mailbox: Mailbox) -> None:
        self._descriptor = sock.fileno()
        self._mailbox = mailbox
        self._poll = select.poll()
        self._poll.register(mailbox, select.POLLIN)
        self._watched = False

    def wait(self, patience_ms: float | None, *, wanted: bool) -> bool:
        """Wait, deliver the mail, and return whether the socket has something to be taken.

        While it is not `wanted` the socket is left alone: what comes waits in the kernel's queue.
        """
        if wanted is not self._watched:
            self._watched = wanted
            if wanted:
                self._poll.register(self._descriptor, select.POLLIN)
            else:
                self._poll.unregister(self._descriptor)
        ready = self._poll.poll(patience_ms)
        self._mailbox.deliver()
        return any([descriptor == self._descriptor for descriptor, _ in ready])  # noqa: C419 - quicker
