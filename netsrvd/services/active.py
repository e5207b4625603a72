"""The Active Users Protocol (RFC 866): the connections of this daemon, a line each."""

from collections.abc import Sequence

from netsrvd.services import base

MOST_LINES = 500
"""About 64 KiB with the longest names and addresses: as much as an echo may have waiting."""

FRESH_SECONDS = 0.01
"""How old a list may be. To look at 10,000 connections takes a millisecond or two; requests within
this time get the same list."""


class ActiveUsers:
    """The latest list. Any thread may call `make_text`; the list is replaced as a whole."""

    __slots__ = ("_last", "_listeners", "_server")

    def __init__(self, listeners: tuple[str, ...], server: base.ServerView) -> None:
        self._listeners = frozenset(listeners)
        self._server = server
        self._last = float("-inf"), b""

    def make_text(self, _client: base.Client, at: float) -> bytes:
        """Return the list: a line for each connection, and what the limit left out as a number."""
        made_at, text = self._last
        if not 0 <= at - made_at < FRESH_SECONDS:
            live = self._server.live()
            text = self._list(live)
            if live:  # or at a start, when the connections are not yet known
                self._last = at, text
        return text

    def _list(self, live: Sequence[base.Client]) -> bytes:
        here = [each for each in live if each.listener in self._listeners]
        lines = [f"{each.listener} {base.shown(*each.peer)}\r\n" for each in here[:MOST_LINES]]
        if len(here) > MOST_LINES:
            lines.append(f"and {len(here) - MOST_LINES} more\r\n")
        return "".join(lines).encode()


class Datagrams(base.Answers):
    """UDP: as many whole lines of the list as the answer may be long."""

    __slots__ = ("_floor_bytes",)

    def __init__(self, make_text: base.MakeText, floor_bytes: int) -> None:
        super().__init__(make_text, 0)
        self._floor_bytes = floor_bytes

    def answer(self, payload: memoryview, client: base.Client, at: float) -> bytes:
        """Return the whole lines that fit: a part of an address would be another address."""
        text = super().answer(payload, client, at) or b""
        room = max(len(payload), self._floor_bytes)
        return text[: text.rfind(b"\n", 0, room) + 1]


def prepare(settings: base.ServiceSettings, server: base.ServerView) -> base.Service:
    """Return the service; raises ValueError without `active_listeners`."""
    if not settings.active_listeners:
        raise ValueError("active_listeners must name the listeners whose connections it may tell")
    users = ActiveUsers(settings.active_listeners, server)
    stream = base.send_once(users.make_text, 0).stream
    return base.Service(stream, Datagrams(users.make_text, settings.reply_floor_bytes))
