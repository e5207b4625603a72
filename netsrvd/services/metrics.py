"""The metrics of this daemon for Prometheus, and its status page, by HTTP.

`http.py` reads requests and sends answers, `exposition.py` writes the text, `page.py` the page.
"""

from os import uname
from typing import TYPE_CHECKING

from netsrvd.services import base, exposition

if TYPE_CHECKING:
    from netsrvd.services import http

MISSING = "it needs h11: install the package python3-h11, or h11 with pip"

HTML, JSON = "text/html; charset=utf-8", "application/json"

VARY = (("Vary", "Accept"),)


def prepare(_settings: base.ServiceSettings, server: base.ServerView) -> base.Service:
    """Return the service. Raises ValueError without h11."""
    try:
        from netsrvd.services import http, page  # noqa: PLC0415 - h11 takes 10 ms and 1 MB
    except ModuleNotFoundError as error:
        if error.name != "h11":
            raise
        raise ValueError(MISSING) from error
    node = uname().nodename

    def metrics(accept: str) -> "http.Answer":
        shape = exposition.accepted(accept)
        pieces = exposition.pieces(server.families(), shape)
        return http.Answer(200, shape.content_type, pieces, VARY)

    def knows(host: str) -> bool:
        return http.names_loopback(host, node)

    def status_page(_accept: str) -> "http.Answer":
        nonce = page.new_nonce()
        return http.Answer(200, HTML, page.html(server.overview(), nonce), page.headers(nonce))

    def status_object(_accept: str) -> "http.Answer":
        return http.Answer(200, JSON, page.json_object(server.overview()))

    site = {"/": status_page, "/status.json": status_object, "/metrics": metrics}

    def stream(client: base.Client, _at: float) -> base.Stream:
        address = client.local[0]
        is_loopback = address.startswith("127.") or address == "::1"
        return http.Stream(site, knows if is_loopback else None)

    return base.Service(stream, base.Datagrams())
