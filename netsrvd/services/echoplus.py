"""UDPEchoPlus (TR-143 Amendment 1, A.1.4): echo that says when it received and when it answered.

The numbers of the replies are counted for each source address: by the text there is one count a
server, which says nothing about lost packets as soon as there are two clients.
"""

from typing import Any

from netsrvd.packets import udpechoplus
from netsrvd.services import base
from netsrvd.services.timed import Arrival, Sessions, needs_udp_alone

MICROSECOND_NS = 1000


class Source:
    """A client's address: how many of its requests were answered, and how many could not be."""

    __slots__ = ("_last", "answered", "failures")

    def __init__(self) -> None:
        self.answered = self.failures = 0
        self._last: Reply | None = None

    def begin(self, reply: "Reply") -> None:
        """Count the request that a reply is for, once it is known what became of the last one."""
        if self._last is not None and not self._last.sent_ns:
            self.failures += 1
            self.answered -= 1
        self.answered += 1
        self._last = reply


class Reply:
    """The answer to one request. One that is too short for the protocol is a plain echo."""

    __slots__ = ("_arrival", "_request", "_source", "sent_ns")
    tos = None

    def __init__(self, request: bytes, arrival: Arrival, source: Source | None) -> None:
        self._request = request
        self._arrival = arrival
        self._source = source
        self.sent_ns = 0

    def finish(self, now_ns: int) -> bytes:
        """Return the answer, which is sent now."""
        source = self._source
        if source is None:
            return self._request
        self._source = None  # which would keep it, and so all replies before it
        source.begin(self)
        return udpechoplus.make_reply(
            self._request,
            source.answered,
            (self._arrival.received_ns or now_ns) // MICROSECOND_NS,
            now_ns // MICROSECOND_NS,
            source.failures,
        )


class EchoPlus(base.Datagrams):
    """Owned by the udp event loop."""

    __slots__ = ("_sources",)
    is_timed = True

    def __init__(self) -> None:
        self._sources: Sessions[Source] = Sessions(Source)

    def resume(self, old: Any) -> None:
        """Go on counting."""
        self._sources = old._sources  # noqa: SLF001 - of the same class

    def reply(
        self, payload: bytes, client: base.Client, arrival: Arrival, now: float
    ) -> Reply | str | None:
        """Return the answer to any datagram."""
        if len(payload) < udpechoplus.HEAD_BYTES:
            return Reply(payload, arrival, None)
        return Reply(payload, arrival, self._sources.find(client.peer[0], now))


def prepare(settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service; raises ValueError if the listener is to serve TCP."""
    needs_udp_alone(settings)
    return base.Service(base.SILENT, EchoPlus())
