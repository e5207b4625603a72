"""What the listeners need of the other rooms; `assembly.py` joins them."""

from collections.abc import Callable
from typing import Protocol

from netsrvd.events import Event


class Report(Protocol):
    """The way to the log. Each thread has one of its own, see `reporting/reporter.py`."""

    def __call__(self, event: Event) -> None:
        """Hand an event over; never blocks, never raises."""

    @property
    def congested(self) -> bool:
        """True while new connections and peers should wait, so that no record is lost."""


class StreamService(Protocol):
    """One TCP connection's service. It never sees a socket, a clock or a thread."""

    @property
    def finished(self) -> bool:
        """True when all has been said: the connection closes once the last byte is sent."""

    def greeting(self) -> bytes:
        """Return what is sent before the client has said anything."""

    def respond(self, data: bytes) -> bytes:
        """Return the answer to what the client sent."""

    def more(self) -> bytes:
        """Return what is sent next, asked only when the peer has taken everything so far."""


StreamFactory = Callable[[], StreamService]


class Batch(Protocol):
    """What a service may do with the datagrams that came together."""

    def reply_as_received(self, count: int) -> None:
        """Make each payload its own answer."""


class DatagramService(Protocol):
    """The service of one UDP socket, asked once a batch."""

    def answer(self, batch: Batch, count: int) -> None:
        """Make the answers to the `count` datagrams of a batch."""


class Gate(Protocol):
    """Who may come in: one gate a socket, owned by the socket's thread."""

    def refusal(self, host: str) -> tuple[str, str] | None:
        """Return None to let this peer in, else the reason and the rule that decided."""

    def datagram_refusal(self, host: str, asked: str, local: str) -> tuple[str, str] | None:
        """Return the same for datagrams that were sent to `asked` and received on `local`."""
