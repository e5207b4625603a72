"""Clients that are not there: all that a service sees of one and of its listener's settings."""

from pathlib import Path
from typing import Any, NamedTuple

from netsrvd.services import prepare
from netsrvd.services.base import ServerView, Service
from netsrvd.settings import TIMED_SERVICES, ListenerSettings


class FakeClient(NamedTuple):
    """A client by its addresses, and the listener that it came to."""

    peer: tuple[str, int] = ("192.0.2.1", 40_000)
    local: tuple[str, int] = ("192.0.2.9", 7)
    listener: str = "lab"


CLIENT = FakeClient()

QUOTES = str(Path(__file__).parents[1] / "data/fuzz/quotes/one")
"""A file with one quote."""


def prepared(name: str, *connections: FakeClient, **settings: Any) -> Service:
    """Return a service for a listener with these settings, while these clients are connected.

    What a service cannot do without is there by default.
    """
    here = ServerView()
    here.live = lambda: list(connections)
    needed: dict[str, Any] = {"quotes": QUOTES, "active_listeners": ("lab",)}
    if name in TIMED_SERVICES:
        needed["protocols"] = ("udp",)
    return prepare(name, ListenerSettings("lab", **{**needed, **settings}), here)


def said(service: Service, client: FakeClient = CLIENT, at: float = 0.0) -> bytes:
    """Return what a TCP connection is told at once."""
    return service.stream(client, at).greeting()


def answered(
    service: Service, payload: bytes = b"", client: FakeClient = CLIENT, at: float = 0.0
) -> bytes | None:
    """Return what a datagram is answered, as it is before it is cut."""
    return service.datagrams.answer(memoryview(payload), client, at)
