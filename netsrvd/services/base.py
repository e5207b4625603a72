"""What services have in common: each is these classes with a few words changed."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Protocol

Memory = int | str | list[int] | list[str] | None
"""What a service must remember beyond a restart, in types that JSON knows."""


class Client(Protocol):
    """Who asks, and where."""

    @property
    def peer(self) -> tuple[str, int]:
        """Return the client's address and port."""

    @property
    def local(self) -> tuple[str, int]:
        """Return the address and port of ours that it asked."""


class Wishes(Protocol):
    """What a listener's settings say to services."""


class Present:
    """Who is connected at the moment; whoever runs the connections sets `look`."""

    __slots__ = ("look",)

    def __init__(self) -> None:
        self.look: Callable[[], Sequence[Client]] = tuple


class Stream:
    """One TCP connection's service: silent and without an end, until a service says otherwise.

    It never sees a socket, a clock or a thread. It is made with the client, which it must not
    keep, and the time at which it came, in seconds since 1970.
    """

    __slots__ = ()
    finished = False
    """True when all has been said: the connection ends once the client has it."""
    heedless: ClassVar[bool] = False
    """True for a service that does not care what it is sent: that is thrown away meanwhile."""

    def __init__(self, client: Client, at: float) -> None:
        """Begin."""

    def greeting(self) -> bytes:
        """Return what is said before the client has said anything."""
        return b""

    def respond(self, data: bytes) -> bytes:  # noqa: ARG002 - for those who answer
        """Return the answer to what the client sent."""
        return b""

    def more(self) -> bytes:
        """Return what is said next, asked only when the client has taken everything so far."""
        return b""

    def memory(self) -> Memory:
        """Return what the service of the next process must know to go on from here."""
        return None

    def recall(self, memory: Memory) -> None:
        """Go on from there, instead of a greeting."""


class Datagrams:
    """A listener's UDP service: never an answer, until a service says otherwise."""

    __slots__ = ()
    as_received: ClassVar[bool] = False
    """True for a service whose answer is what was asked: `answer` is not called then."""
    reply_floor_bytes: ClassVar[int] = 0
    """How long an answer may be to a shorter datagram. A sender can be forged, and nobody may have
    more sent to others than he sends himself, but for so little."""

    def answer(self, payload: memoryview, client: Client, at: float) -> bytes | None:  # noqa: ARG002
        """Return the answer to a datagram that came at that time, None for none.

        `payload` is valid until this returns. An answer longer than it may be is cut.
        """
        return None


class Service(NamedTuple):
    """A service as a listener uses it: what is made for each connection, and for all datagrams."""

    stream: Callable[[Client, float], Stream]
    datagrams: Datagrams
