"""Tells a client its own address and port, as they are seen here: behind all translators."""

from netsrvd.services import base

LONGEST_LINE = len("[2001:0db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535\n")


def make_text(client: base.Client, _at: float) -> bytes:
    """Return one line. It ends as lines of shells do: `$(nc host port)` would keep a CR."""
    return f"{base.shown(*client.peer)}\n".encode()


def prepare(_settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service."""
    return base.send_once(make_text, LONGEST_LINE)
