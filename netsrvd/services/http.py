"""HTTP/1.1 (RFC 9112) for the service `metrics`: h11 reads the requests, a `Site` answers them.

The server has no clock here, and so sends no Date (RFC 9110, 6.6.1).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import h11

from netsrvd.services import base

MOST_HEAD_BYTES = 16 << 10
"""Of a request, up to the empty line. Prometheus sends 300 bytes, a browser 1 KB."""

MOST_HEAD_LINES = 100
"""Of a request. h11 takes 4 µs for each, and no other client is served meanwhile."""

HOSTS = Path("/etc/hosts")
MOST_HOSTS_BYTES = 16 << 10
"""Of this file: it is read for a request with an unknown name, and no other client is served
meanwhile. Lists of blocked sites can have megabytes; they stand after the names of the host."""

_END_OF_HEAD = re.compile(rb"\n\r?\n")

_FORBIDDEN = re.compile(rb"[\0\v\f]|\r(?=[^\n])")
"""What no field may have (RFC 9110, 5.5). h11 finds it in time that grows with the square of the
white space before it: 16 KiB take 2.5 s."""

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE"})
"""Those of RFC 9110; another one is not implemented."""

REASONS: Mapping[int, str] = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}

ALWAYS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)
"""Header fields of every answer."""

ALLOWED = (("Allow", "GET, HEAD"),)


class Answer(NamedTuple):
    """What is sent for a request."""

    status: int
    content_type: str
    pieces: Iterable[bytes]
    """The body. An empty piece leaves the turn to other clients: the next one is being made."""
    headers: tuple[tuple[str, str], ...] = ()


Page = Callable[[str], Answer]
"""Makes the answer of a path, for the value of the Accept header."""

Site = Mapping[str, Page]
"""The pages by their paths."""


class Stream(base.Stream):
    """One TCP connection: requests in, answers out, one after the other.

    A request with a body is answered before the body has come, and the connection ends. What waits
    is bounded: at most `MOST_HEAD_BYTES` of a request that is not whole, and what one read gives.
    So is the time that a request takes to be read: see `_check_head`.
    """

    __slots__ = (
        "_answer",
        "_first",
        "_http",
        "_is_head",
        "_is_last",
        "_knows",
        "_pieces",
        "_site",
        "finished",
    )
    answers_requests = True

    def __init__(self, site: Site, knows: Callable[[str], bool] | None = None) -> None:
        """Begin. `knows` tells of a Host field whether it is this server's; None: any one is."""
        self._site = site
        self._knows = knows
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
        self._answer: Answer | None = None
        """The answer that is being sent; None between two."""
        self._pieces: Iterator[bytes] = iter(())
        """What is left of its body."""
        self._first: bytes | None = b""
        """The first piece, until the next one, or the end, is known; None after that."""
        self._is_head = False
        self._is_last = False
        """Whether the connection ends with the answer that is being sent, or with the next one."""
        self.finished = False

    def respond(self, data: bytes) -> bytes:
        """Take what has come. `more` returns the answers."""
        self._http.receive_data(data)
        return b""

    def more(self) -> bytes | None:
        """Return the next part of an answer, or of the answer to the next request of a pipeline.

        Nothing if no request is whole, None if the next part takes another turn.
        """
        if self._answer is None:
            self._answer = None if self.finished else self._next_answer()
            if self._answer is None:
                return b""
            self._pieces, self._first = iter(self._answer.pieces), b""
        return self._part(self._answer)

    def end_soon(self) -> bool:
        """Finish with the answer that is being sent; return True if there is none."""
        self._is_last = True
        self.finished = self._answer is None
        return self.finished

    def _next_answer(self) -> Answer | None:
        """Return the answer to the next request; None if that is not whole."""
        try:
            self._check_head()
            request = self._http.next_event()
            if not isinstance(request, h11.Request):
                return None
            if _has_body(request):
                self._is_last = True
            else:
                self._http.next_event()  # the end of the message
        except (h11.RemoteProtocolError, ValueError) as fault:
            # ValueError: h11 0.14 converts a length of thousands of digits
            self._is_head, self._is_last = False, True
            status = getattr(fault, "error_status_hint", 400)
            return _error(status if status in REASONS else 400)
        self._is_head = request.method == b"HEAD"
        return self._find(request)

    def _check_head(self) -> None:
        """Raise RemoteProtocolError for what h11 would take long to read of the next request."""
        waiting, _ = self._http.trailing_data
        end = _END_OF_HEAD.search(waiting)
        head = waiting[: end.end()] if end else waiting
        if _FORBIDDEN.search(head):
            raise h11.RemoteProtocolError("a control character")
        if len(head) > MOST_HEAD_BYTES or head.count(b"\n") > MOST_HEAD_LINES:
            raise h11.RemoteProtocolError("the head is too long", error_status_hint=431)

    def _find(self, request: h11.Request) -> Answer:
        """Return what a request asks for, or why it has no such answer."""
        fields = dict(request.headers)  # of a field that comes twice, the last one
        page = self._site.get(_path(request.target))
        if not request.http_version.startswith(b"1."):
            self._is_last = True
            return _error(505)
        if request.method not in METHODS:
            return _error(501)
        if self._knows and not self._knows(fields.get(b"host", b"").decode("latin-1")):
            return _error(421, "use an address or localhost")
        if page is None:
            return _error(404, f"there is {' and '.join(self._site)}")
        if request.method not in (b"GET", b"HEAD"):
            return _error(405, "GET and HEAD are allowed")._replace(headers=ALLOWED)
        return page(_listed(request, b"accept"))

    def _part(self, answer: Answer) -> bytes | None:
        """Return what is sent after the next step of the body: its head, a piece, or its end."""
        piece = next(self._pieces, None)
        if piece == b"":
            return None
        if piece is not None and self._first == b"":
            self._first = piece
            return None
        if self._first is None:
            if piece is not None:
                return self._http.send(h11.Data(data=piece))
            return self._end() or None  # nothing ends a body of HTTP/1.0
        first, self._first = self._first, None
        data = self._head(answer, None if piece is not None else len(first))
        if self._is_head:
            return data + self._end()
        data += self._http.send(h11.Data(data=first))
        return data + (self._end() if piece is None else self._http.send(h11.Data(data=piece)))

    def _head(self, answer: Answer, length: int | None) -> bytes:
        """Return the head of an answer. Without a length h11 sends chunks, or ends with the
        connection if the client speaks HTTP/1.0.
        """
        headers = [("Content-Type", answer.content_type), *ALWAYS, *answer.headers]
        if length is not None:
            headers.append(("Content-Length", str(length)))
        if self._is_last:
            headers.append(("Connection", "close"))
        reason = REASONS[answer.status]
        return self._http.send(
            h11.Response(status_code=answer.status, headers=headers, reason=reason)
        )

    def _end(self) -> bytes:
        """Return what ends an answer; the connection ends with it, or waits for a request."""
        self._answer = None
        data = self._http.send(h11.EndOfMessage())
        if self._is_last or self._http.our_state is not h11.DONE:
            self.finished = True
        else:
            self._http.start_next_cycle()
        return data


def names_loopback(host: str, node: str, hosts: Path = HOSTS) -> bool:
    """Return whether a Host field (RFC 9110, 7.2) may be meant for a loopback address.

    A foreign site can make its own name lead to loopback, so that a browser takes the answer for
    that site's (DNS rebinding). Such a name has dots, is not that of this `node` (uname(2)), and is
    not in the file at `hosts`, where a resolver looks before it asks DNS.
    """
    if host.startswith("["):
        return True
    name = host.partition(":")[0].lower().rstrip(".")
    *domains, last = name.split(".")
    if not domains or last.isdecimal() or last == "localhost":
        return True
    return name == node.lower().rstrip(".") or _is_in_hosts(name, hosts)


def _is_in_hosts(name: str, path: Path) -> bool:
    """Return whether a file of the form of hosts(5) has a name, in its first `MOST_HOSTS_BYTES`."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_HOSTS_BYTES)
    except OSError:
        return False
    lines = data.decode("latin-1").lower().splitlines()  # a file's encoding would be an import
    return any(name in line.partition("#")[0].split()[1:] for line in lines)


def _error(status: int, text: str = "") -> Answer:
    """Return the answer of an error: one line of text."""
    line = f"{status} {REASONS[status]}{': ' if text else ''}{text}\n"
    return Answer(status, "text/plain; charset=utf-8", (line.encode(),))


def _listed(request: h11.Request, field: bytes) -> str:
    """Return the value of a field that may stand in several lines (RFC 9110, 5.3)."""
    return b",".join(text for name, text in request.headers if name == field).decode("latin-1")


def _has_body(request: h11.Request) -> bool:
    """Return whether a body follows (RFC 9112, 6)."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and text.strip(b"0"))
        for name, text in request.headers
    )


def _path(target: bytes) -> str:
    """Return the path of a request's target (RFC 9112, 3.2), without its query.

    A client that takes the server for a proxy sends a whole URL.
    """
    text = target.decode("latin-1")
    if "://" in text and not text.startswith("/"):
        text = "/" + text.partition("://")[2].partition("/")[2]
    return text.partition("?")[0]
