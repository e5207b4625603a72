"""Protocols for what `tcp.py`, `udp.py` and `handlers/` need of packages beside or above them."""

from collections.abc import Callable
from typing import Any, Protocol

from netsrvd.events import Event

CONGESTED_SECONDS = 0.02
"""How often to look whether the log has room again, with `when_full = "wait"`."""


class Report(Protocol):
    """The way to the log. Each loop has its own, see `log/writer.py`."""

    def __call__(self, event: Event) -> None:
        """Hand an event over; never blocks, never raises."""

    @property
    def level(self) -> int:
        """Return the least important priority that is written; other events need not be made."""

    @property
    def may_wait(self) -> bool:
        """Whether `congested` can be True at all."""

    @property
    def congested(self) -> bool:
        """True while new connections and peers should wait, so that no record is lost."""


class Client(Protocol):
    """The client of a service."""

    @property
    def listener(self) -> str:
        """Return the name of its listener."""

    @property
    def peer(self) -> tuple[str, int]:
        """Return the client's address and port."""

    @property
    def local(self) -> tuple[str, int]:
        """Return the local address and port that it connected or sent to."""


class StreamService(Protocol):
    """One TCP connection's service. It never sees a socket, a clock or a thread."""

    @property
    def finished(self) -> bool:
        """True when the service has sent all: the connection ends once the client has it."""

    @property
    def discards_input(self) -> bool:
        """True if what the client sends is thrown away, also while it takes nothing."""

    @property
    def answers_requests(self) -> bool:
        """True if input without an answer is no activity, and a stop need not wait for the client.

        The connection is not handed over.
        """

    def greeting(self) -> bytes:
        """Return what is sent before the client has sent anything."""

    def respond(self, data: bytes) -> bytes:
        """Return the answer to what the client sent."""

    def more(self) -> bytes | None:
        """Return what is sent next; called when the peer has taken all that was sent so far.

        Nothing if the service waits for the client; None to be called again in the next turn.
        """

    def end_soon(self) -> bool:
        """Finish with the answer that is being sent; return True if there is none."""


StreamFactory = Callable[[Client, float], StreamService]
"""Called with the client, and with the time in seconds since 1970."""


Handler = Callable[[Any], Any]
"""A Python handler, called with a connection or a datagram in a thread of a pool."""


class DatagramService(Protocol):
    """The service of a listener's datagrams."""

    @property
    def is_echo(self) -> bool:
        """True if each datagram is its own answer; then `answer` is not called."""

    @property
    def is_timed(self) -> bool:
        """True if it is a `timed.TimedService`, of which `reply` is called instead of `answer`."""

    @property
    def reply_floor_bytes(self) -> int:
        """How long an answer to a shorter datagram may be."""

    def resume(self, old: "DatagramService") -> None:
        """Go on with what the service of the old settings knows of its peers."""

    def answer(self, payload: memoryview, client: Client, at: float) -> bytes | None:
        """Return the answer to one datagram, None for none; may raise any exception."""


Refusal = tuple[str, str]
"""Why a peer is refused: the reason, one word, and the rule that decided."""
