"""Datagrams that the kernel dropped because they came faster than they were read."""

import socket
import struct
from collections.abc import Callable

from netsrvd.events import Event
from netsrvd.events.flows import DatagramsDropped, DropsEnded

# <linux/sock_diag.h>: getsockopt(SO_MEMINFO) gives nine numbers, SK_MEMINFO_DROPS is the last.
SO_MEMINFO = 55
MEMINFO = struct.Struct("9I")

COUNTER_MASK = 0xFFFFFFFF
"""The kernel counts in 32 bits."""


class KernelDrops:
    """The drops of one UDP socket, reported when they begin and when they end.

    Owned by the udp event loop. (SO_RXQ_OVFL would report them with each datagram, but its control
    message would have to be taken out again before the batch can be sent back.)
    """

    __slots__ = ("_began", "_began_at", "_drops", "_first", "_report", "_sock", "_where")

    def __init__(
        self, sock: socket.socket, report: Callable[[Event], None], where: tuple[str, str, int]
    ) -> None:
        self._sock = sock
        self._report = report
        self._where = where
        self._first = self._drops = self._began = self._counter()
        self._began_at = 0.0

    @property
    def seen(self) -> int:
        """The kernel's counter at the last look."""
        return self._drops

    def go_on_from(self, seen: int) -> None:
        """Have the next look count also what was dropped between the last look of another process,
        which has seen this counter, and the beginning of this one.
        """
        self._drops = (self._drops - (self._first - seen)) & COUNTER_MASK

    def look(self, now: float) -> int:
        """Look for new drops, report where that is due, and return how many there are."""
        before, self._drops = self._drops, self._counter()
        if self._drops != before:
            if not self._began_at:
                self._began, self._began_at = before, now
                self._report(DatagramsDropped(*self._where))
        elif self._began_at:
            lost = (self._drops - self._began) & COUNTER_MASK
            seconds, self._began_at = now - self._began_at, 0.0
            self._report(DropsEnded(*self._where, lost, seconds))
        return (self._drops - before) & COUNTER_MASK

    @property
    def ongoing(self) -> bool:
        """Whether their end is still to be reported."""
        return self._began_at > 0

    def _counter(self) -> int:
        try:
            figures = self._sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size)
        except OSError:  # Linux before 4.12
            return 0
        return int(MEMINFO.unpack(figures)[8])
