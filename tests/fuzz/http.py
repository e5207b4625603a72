"""Requests of HTTP: any bytes have well-formed answers, the same ones wherever they are cut."""

import h11

from netsrvd.services import http

BODY = (b"one\n", b"two\n")
SITE = {
    "/metrics": lambda _: http.Answer(200, "text/plain", BODY),
    "/": lambda _: http.Answer(200, "text/html", BODY[:1]),
}


def check(data: bytes) -> None:
    """Send the input to the service at once, and cut in two; read the answers as a client."""
    whole = answers(data)
    for end in {len(data) // 2, max(0, len(data) - 1), min(len(data), 15)}:
        assert answers(data[:end], data[end:]) == whole, "the answers depend on the segments"
    statuses = read(data, whole)
    assert all(status in http.REASONS for status in statuses)


def answers(*segments: bytes) -> bytes:
    """Return all that a connection is sent for these segments."""
    stream, sent = http.Stream(SITE), b""
    for segment in segments:
        if segment and not stream.finished:
            sent += stream.respond(segment)
            while not stream.finished and (piece := stream.more()) != b"":
                sent += piece or b""
    return sent


def read(asked: bytes, sent: bytes) -> list[int]:
    """Return the statuses of the answers; raises h11.RemoteProtocolError if one is malformed."""
    found: list[int] = []
    while sent:
        client = h11.Connection(h11.CLIENT)
        method = "HEAD" if _is_head(asked, sent) else "GET"
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(sent)
        client.receive_data(b"")
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                found.append(event.status_code)
        sent, _ = client.trailing_data
    return found


def _is_head(asked: bytes, sent: bytes) -> bool:
    """Return whether the first answer has no body: then another one, or nothing, follows its head.

    No body begins as an answer does.
    """
    head, _, rest = sent.partition(b"\r\n\r\n")
    has_body = b"Content-Length: 0" not in head
    return b"HEAD " in asked and has_body and (not rest or rest.startswith(b"HTTP/1.1 "))
