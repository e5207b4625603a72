"""How a thread waits for its sockets and for its mail at once."""

import select
import socket
from enum import IntEnum
from math import inf
from sys import maxsize
from time import sleep

from netsrvd.linux.mailbox import Mailbox
from netsrvd.listeners.accept_errors import OWN_ERRORS
from netsrvd.listeners.trouble import PAUSE_SECONDS

CONGESTED_SECONDS = 0.02
"""How often to look whether the log has room again, with `when_full = "wait"`."""


class Width(IntEnum):
    """How much of what is watched a wait looks at: the mail always."""

    MAIL = 0
    LOBBY = 1
    ALL = 2


def retry_later(error: OSError) -> list[tuple[int, int]]:
    """Wait a moment after an error of poll(2) that may pass, such as ENOMEM; return nothing.

    Raises the error if only a bug of ours can cause it.
    """
    if error.errno in OWN_ERRORS:
        raise error
    sleep(PAUSE_SECONDS)
    return []


class Watch:
    """A poll(2) of some sockets, a lobby and one mailbox. Owned by the thread they belong to.

    A wait delivers at most `most` calls of the mailbox.
    """

    __slots__ = ("_mailbox", "_most", "_polls")

    def __init__(self, mailbox: Mailbox, most: int = maxsize) -> None:
        self._mailbox = mailbox
        self._most = most
        self._polls = [select.poll() for _ in Width]
        for poll in self._polls:
            poll.register(mailbox, select.POLLIN)

    def add(self, sock: socket.socket) -> None:
        """Watch one more socket."""
        self._polls[Width.ALL].register(sock, select.POLLIN)

    def add_lobby(self, descriptor: int) -> None:
        """Watch a lobby, too: a wait ends when it has something."""
        for poll in self._polls[Width.LOBBY :]:
            poll.register(descriptor, select.POLLIN)

    def remove(self, sock: socket.socket) -> None:
        """Watch one socket less; it must still be open."""
        self._polls[Width.ALL].unregister(sock)

    def wait(self, seconds: float, width: Width) -> list[tuple[int, int]]:
        """Wait, deliver the mail, and return what poll(2) found: descriptors that have something to
        be taken, also those of the mailbox and the lobby, each with its events.

        It waits for so many seconds, which may be none or less, or infinitely many. What is not
        looked at is left alone: what comes there waits in the kernel.
        """
        try:
            ready = self._polls[width].poll(None if seconds == inf else max(0.0, seconds * 1000))
        except OSError as error:
            ready = retry_later(error)
        self._mailbox.deliver(self._most)
        return ready
