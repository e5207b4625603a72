"""How a thread waits for its sockets and for its mail at once."""

import select
import socket

from netsrvd.linux.mailbox import Mailbox

CONGESTED_MS = 20
"""How often to look whether the log has room again, with `when_full = "wait"`."""


class Watch:
    """A poll(2) of some sockets and one mailbox. Owned by the thread that they belong to."""

    __slots__ = ("_descriptors", "_mailbox", "_poll", "_watched")

    def __init__(self, mailbox: Mailbox) -> None:
        self._descriptors: list[int] = []
        self._mailbox = mailbox
        self._poll = select.poll()
        self._poll.register(mailbox, select.POLLIN)
        self._watched = False

    def add(self, sock: socket.socket) -> None:
        """Watch one more socket."""
        self._descriptors.append(sock.fileno())
        if self._watched:
            self._poll.register(sock, select.POLLIN)

    def remove(self, sock: socket.socket) -> None:
        """Watch one socket less; it must still be open."""
        self._descriptors.remove(sock.fileno())
        if self._watched:
            self._poll.unregister(sock)

    def wait(self, patience_ms: float | None, *, wanted: bool) -> list[int]:
        """Wait, deliver the mail, and return the descriptors that have something to be taken.

        While they are not `wanted` the sockets are left alone: what comes waits in the kernel.
        """
        if wanted is not self._watched:
            self._watched = wanted
            for descriptor in self._descriptors:
                if wanted:
                    self._poll.register(descriptor, select.POLLIN)
                else:
                    self._poll.unregister(descriptor)
        ready = self._poll.poll(patience_ms)
        self._mailbox.deliver()
        return [descriptor for descriptor, _ in ready if descriptor in self._descriptors]


def soonest(*looks_ms: float | None) -> float | None:
    """Return the shortest of several waits, of which None is the one without an end."""
    return min((each for each in looks_ms if each is not None), default=None)
