"""netsrvd.services.metrics"""

from collections.abc import Iterator

import pytest

from netsrvd.services import metrics
from netsrvd.services.base import ServerView
from netsrvd.services.shown import Family
from netsrvd.settings import ListenerSettings
from tests.support.service_client import FakeClient


def families() -> Iterator[Family | None]:
    yield None
    yield Family("lab", "gauge", "A figure.", (((), 4),))


def sent(request: bytes, local: str = "127.0.0.1") -> bytes:
    """Return the answer to a request."""
    view = ServerView()
    view.families = families
    service = metrics.prepare(ListenerSettings("lab"), view)
    stream = service.stream(FakeClient(local=(local, 51425)), 0.0)
    found = stream.respond(request)
    while (piece := stream.more()) != b"":
        found += piece or b""
    return found


@pytest.mark.parametrize(
    ("accept", "kind", "body"),
    [
        (b"*/*", b"text/plain; version=0.0.4", b"lab 4\n"),
        (b"application/openmetrics-text", b"application/openmetrics-text", b"lab 4\n# EOF\n"),
    ],
)
def test_it_gives_the_families_of_the_server(accept: bytes, kind: bytes, body: bytes) -> None:
    """In the format that is asked for, which caches are told."""
    answer = sent(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: " + accept + b"\r\n\r\n")
    head, _, text = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: " + kind in head
    assert b"\r\nVary: Accept\r\n" in head
    assert text.endswith(body)


@pytest.mark.parametrize(
    ("local", "status"), [("127.0.0.1", b"421"), ("::1", b"421"), ("192.0.2.1", b"200")]
)
def test_a_name_is_looked_at_on_loopback_alone(local: str, status: bytes) -> None:
    """Elsewhere the server may have any name."""
    request = b"GET /metrics HTTP/1.1\r\nHost: metrics.example.org\r\n\r\n"
    assert sent(request, local).startswith(b"HTTP/1.1 " + status)
