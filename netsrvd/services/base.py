"""What services have in common: each is these classes with a few words changed."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol


class Client(Protocol):
    """Who asks, and where."""

    @property
    def listener(self) -> str:
        """Return the name of the listener that it came to."""

    @property
    def peer(self) -> tuple[str, int]:
        """Return the client's address and port."""

    @property
    def local(self) -> tuple[str, int]:
        """Return the address and port of ours that it asked."""


class Wishes(Protocol):
    """What a listener's settings say to services; see netsrvd.toml(5)."""

    @property
    def daytime_format(self) -> str:
        """Return the form of the service `daytime`, one of its `FORMATS`."""

    @property
    def quotes(self) -> str:
        """Return the path of the file, or of the folder of files, that `qotd` quotes from."""

    @property
    def active_listeners(self) -> tuple[str, ...]:
        """Return the names of the listeners whose connections `active` tells."""

    @property
    def reply_floor_bytes(self) -> int:
        """Return how long an answer to a shorter datagram may be, whatever the service says."""


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


class Datagrams:
    """A listener's UDP service: never an answer, until a service says otherwise."""

    __slots__ = ()
    as_received: ClassVar[bool] = False
    """True for a service whose answer is what was asked: `answer` is not called then."""
    reply_floor_bytes = 0
    """How long an answer may be to a shorter datagram. A sender can be forged, and nobody may have
    more sent to others than he sends himself, but for so little."""

    def answer(self, payload: memoryview, client: Client, at: float) -> bytes | None:  # noqa: ARG002
        """Return the answer to a datagram that came at that time, None for none.

        `payload` is valid until this returns. An answer longer than it may be is cut.
        """
        return None


Handler = Callable[[Any], Any]
"""Code of the administrator's: called with a connection or a datagram, in a thread of its own."""


class Service(NamedTuple):
    """A service as a listener uses it: what is made for each connection, and for all datagrams.

    Where there is a handler, it takes the place of both.
    """

    stream: Callable[[Client, float], Stream]
    datagrams: Datagrams
    handler: Handler | None = None


Words = Callable[[Client, float], bytes | None]
"""Makes what a client that came at a time, in seconds since 1970, is told; None for nothing."""


class Announcement(Stream):
    """One TCP connection that is told something at once; what it sends is thrown away."""

    __slots__ = ("_text",)
    finished = True
    heedless = True

    def __init__(self, text: bytes) -> None:
        self._text = text

    def greeting(self) -> bytes:
        """Return all that there is to say."""
        return self._text


class Answers(Datagrams):
    """UDP: any datagram, the empty one too, is answered with what a TCP client is told."""

    __slots__ = ("_words", "reply_floor_bytes")

    def __init__(self, words: Words, reply_floor_bytes: int) -> None:
        self._words = words
        self.reply_floor_bytes = reply_floor_bytes

    def answer(self, payload: memoryview, client: Client, at: float) -> bytes | None:  # noqa: ARG002
        """Return what there is to say."""
        return self._words(client, at)


def one_way(words: Words, reply_floor_bytes: int) -> Service:
    """Return the service that tells whoever comes what `words` makes, and nothing more."""

    def stream(client: Client, at: float) -> Stream:
        return Announcement(words(client, at) or b"")

    return Service(stream, Answers(words, reply_floor_bytes))


def shown(host: str, port: int) -> str:
    """Return `host:port`, with the brackets of RFC 3986 around an IPv6 address.

    A zone is left out: it is a name of ours and means nothing elsewhere (RFC 4007, 6).
    """
    return f"[{host.partition('%')[0]}]:{port}" if ":" in host else f"{host}:{port}"
