"""The base classes of the services."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from netsrvd.services.shown import Family, Overview


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


class ServiceSettings(Protocol):
    """The settings of a listener that services use; see netsrvd.toml(5)."""

    @property
    def daytime_format(self) -> str:
        """Return the form of the service `daytime`, one of its `FORMATS`."""

    @property
    def quotes(self) -> str:
        """Return the path of the file, or of the folder of files, that `qotd` quotes from."""

    @property
    def active_listeners(self) -> tuple[str, ...]:
        """Return the names of the listeners whose connections `active` shows."""

    @property
    def reply_floor_bytes(self) -> int:
        """Return how long an answer to a shorter datagram may be, for every service."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """Return by what the listener is reached: `tcp`, `udp` or both."""

    @property
    def stamp_key(self) -> str:
        """Return where the key of `stamp` is: `credential:NAME`, or the path of a file."""

    @property
    def stamp_stateful(self) -> bool:
        """Return whether `stamp` counts the replies of each session."""

    @property
    def stamp_ssids(self) -> tuple[int, ...]:
        """Return the identifiers of sessions that `stamp` answers; empty for all."""

    @property
    def stamp_dscps(self) -> tuple[int, ...]:
        """Return the DSCPs that a sender may wish `stamp` to answer with."""

    @property
    def stamp_clock(self) -> str:
        """Return what synchronises the host's clock, one of `stamp.CLOCKS`."""

    @property
    def stamp_clock_error_seconds(self) -> float:
        """Return by how much the host's clock may be wrong."""


class ServerView:
    """What services may see of the server, which sets the calls. Without one there is nothing."""

    __slots__ = ("families", "live", "overview")

    def __init__(self) -> None:
        self.live: Callable[[], Sequence[Client]] = tuple
        """Returns the live connections."""
        self.families: Callable[[], Iterable[Family | None]] = tuple
        """Returns all metrics. They begin with a None for each step in which they are counted: the
        event loop serves clients meanwhile."""
        self.overview: Callable[[], Iterable[Overview | None]] = tuple
        """Returns what the status page shows, after a None for each step."""


class Stream:
    """The service of a TCP connection. By default it sends nothing and does not end.

    It never sees a socket, a clock or a thread.
    """

    __slots__ = ()
    finished = False
    """True when the service has sent all: the connection ends once the client has it."""
    discards_input: ClassVar[bool] = False
    """True for a service that discards its input, also while the client takes nothing."""
    answers_requests: ClassVar[bool] = False
    """True for a service of requests and answers, whose clients connect anew at any time. Input
    that completes no request is no activity for `idle_timeout`. Such a connection is not handed
    over at a restart: it ends when `end_soon` says so."""

    def greeting(self) -> bytes:
        """Return what is sent before the client has sent anything."""
        return b""

    def respond(self, data: bytes) -> bytes:  # noqa: ARG002 - used by services that answer
        """Return the answer to what the client sent."""
        return b""

    def more(self) -> bytes | None:
        """Return what is sent next; called when the client has taken all that was sent so far.

        Nothing if the service waits for the client; None to be called again in the next turn.
        """
        return b""

    def end_soon(self) -> bool:
        """Finish with the answer that is being sent; return True if there is none."""
        return False


class Datagrams:
    """A listener's UDP service. By default it answers nothing."""

    __slots__ = ()
    is_echo: ClassVar[bool] = False
    """True for a service whose answer is the datagram itself: `answer` is not called then."""
    is_timed: ClassVar[bool] = False
    """True for a service that has a method `reply`, as in `services/timed.py`."""
    reply_floor_bytes = 0
    """How long an answer may be to a shorter datagram. A sender can be forged, so an answer must
    not be longer than its datagram but for these few bytes."""

    def answer(self, payload: memoryview, client: Client, at: float) -> bytes | None:  # noqa: ARG002
        """Return the answer to a datagram that came at that time, None for none.

        `payload` is valid until this returns. An answer longer than it may be is cut.
        """
        return None

    def resume(self, old: Any) -> None:
        """Go on with what the service of the settings before a reload knows of its peers."""


StreamFactory = Callable[[Client, float], Stream]
"""Called with the client, which the stream must not keep, and with the time in seconds since 1970.
"""


def shared(stream: Stream) -> StreamFactory:
    """Return what serves all connections by one stream, which must keep nothing of any of them."""
    return lambda _client, _at: stream


SILENT = shared(Stream())
"""Sends nothing and does not end."""

Handler = Callable[[Any], Any]
"""A Python handler: called with a connection or a datagram, in a thread of a pool."""


class Service(NamedTuple):
    """A service as a listener uses it: what is made for each connection, and for all datagrams.

    Where there is a handler, it takes the place of both.
    """

    stream: StreamFactory
    datagrams: Datagrams
    handler: Handler | None = None


MakeText = Callable[[Client, float], bytes | None]
"""Makes the bytes for a client, at a time in seconds since 1970; None for nothing."""


class SendOnce(Stream):
    """One TCP connection that is sent one text; its input is discarded."""

    __slots__ = ("_text",)
    finished = True
    discards_input = True

    def __init__(self, text: bytes) -> None:
        self._text = text

    def greeting(self) -> bytes:
        """Return the text."""
        return self._text


class Answers(Datagrams):
    """UDP: any datagram, the empty one too, is answered with the text of a TCP client."""

    __slots__ = ("_make_text", "reply_floor_bytes")

    def __init__(self, make_text: MakeText, reply_floor_bytes: int) -> None:
        self._make_text = make_text
        self.reply_floor_bytes = reply_floor_bytes

    def answer(self, payload: memoryview, client: Client, at: float) -> bytes | None:  # noqa: ARG002
        """Return the text."""
        return self._make_text(client, at)


def send_once(make_text: MakeText, reply_floor_bytes: int) -> Service:
    """Return the service that sends each client what `make_text` makes, and ends."""

    def stream(client: Client, at: float) -> Stream:
        return SendOnce(make_text(client, at) or b"")

    return Service(stream, Answers(make_text, reply_floor_bytes))


def shown(host: str, port: int) -> str:
    """Return `host:port`, with the brackets of RFC 3986 around an IPv6 address.

    A zone is left out: it is a name of this host and means nothing elsewhere (RFC 4007, 6).
    """
    return f"[{host.partition('%')[0]}]:{port}" if ":" in host else f"{host}:{port}"
