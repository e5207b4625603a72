"""netsrvd.services.http: requests and answers"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import pytest

from netsrvd.services import http
from netsrvd.services.http import MOST_HEAD_BYTES, MOST_HEAD_LINES, Answer, Stream
from tests.support.effort import in_proportion


def long(_accept: str) -> Answer:
    return Answer(200, "text/plain", iter([b"", b"one\n", b"two\n", b"", b"three\n"]))


def accepted(accept: str) -> Answer:
    return Answer(200, "text/plain", [f"accept: {accept}\n".encode()], (("Vary", "Accept"),))


SITE = {
    "/metrics": lambda _: Answer(200, "text/plain", [b"hello\n"]),
    "/long": long,
    "/accept": accepted,
}
GET = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
HELLO = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\nContent-Length: 6\r\n\r\nhello\n"
)


def parts(stream: Stream, *segments: bytes) -> Iterator[bytes]:
    """Yield what a connection is sent at once for these segments."""
    for segment in segments:
        if stream.finished:
            return
        assert stream.respond(segment) == b""
        yield from rest(stream)


def rest(stream: Stream) -> Iterator[bytes]:
    """Yield what is sent before the client says more."""
    while not stream.finished and (piece := stream.more()) != b"":
        if piece:
            yield piece


def asked(*segments: bytes) -> tuple[bytes, bool]:
    """Return all that is sent for these segments, and whether the connection ends then."""
    stream = Stream(SITE)
    return b"".join(parts(stream, *segments)), stream.finished


def test_a_request_is_answered_and_the_connection_kept() -> None:
    """The answer has its length, so that the next request can follow."""
    assert asked(GET) == (HELLO, False)
    assert asked(GET, GET) == (2 * HELLO, False)


def test_a_pipeline_is_answered_in_its_order_one_answer_a_turn() -> None:
    """However many requests come at once, each turn of the loop makes one answer."""
    assert list(parts(Stream(SITE), 3 * GET + GET[:9])) == 3 * [HELLO]


def test_a_request_that_comes_byte_by_byte_is_answered_once() -> None:
    """Nothing is sent before it is whole."""
    assert asked(*(bytes([each]) for each in GET)) == (HELLO, False)


def test_a_body_of_more_than_a_piece_is_sent_in_chunks() -> None:
    """A turn makes one piece; a client of HTTP/1.0 gets them until the connection ends."""
    sent = list(parts(Stream(SITE), b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n"))
    chunks = b"4\r\none\n\r\n4\r\ntwo\n\r\n"
    assert sent[0].endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert sent[1:] == [b"6\r\nthree\n\r\n", b"0\r\n\r\n"]
    sent_plain, ends = asked(b"GET /long HTTP/1.0\r\n\r\n")
    assert sent_plain.endswith(b"\r\nConnection: close\r\n\r\none\ntwo\nthree\n")
    assert ends


def test_a_step_without_a_piece_leaves_the_turn_to_others() -> None:
    """The loop serves other clients, and calls again."""
    stream = Stream(SITE)
    stream.respond(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [stream.more() is None for _ in range(6)] == [True, True, False, True, False, False]
    assert stream.more() == b""


def test_a_request_that_comes_while_an_answer_is_sent_waits() -> None:
    """The answers do not mix."""
    stream = Stream(SITE)
    stream.respond(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
    assert stream.more() is None
    stream.respond(GET)
    sent = b"".join(rest(stream))
    assert sent.endswith(b"0\r\n\r\n" + HELLO)
    assert sent.count(b"HTTP/1.1 200 OK") == 2


def test_head_gets_no_body() -> None:
    """The head alone, that of GET, and the connection is kept."""
    sent, ends = asked(2 * GET.replace(b"GET", b"HEAD"))
    assert sent == 2 * HELLO.removesuffix(b"hello\n")
    assert not ends
    sent, ends = asked(b"HEAD /long HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    assert sent.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO)
    assert not ends


KEPT, ENDS = False, True


@pytest.mark.parametrize(
    ("request_bytes", "status", "ends"),
    [
        (b"GET /metrics?collect[]=x HTTP/1.1\r\nHost: a\r\n\r\n", 200, KEPT),
        (b"GET http://a:9/metrics HTTP/1.1\r\nHost: a\r\n\r\n", 200, KEPT),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200, ENDS),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, ENDS),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n", 200, KEPT),
        (b"GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n", 404, KEPT),
        (b"GET /%6detrics HTTP/1.1\r\nHost: a\r\n\r\n", 404, KEPT),
        (b"GET /../metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404, KEPT),
        (b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 404, KEPT),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404, KEPT),
        (b"DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405, KEPT),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405, KEPT),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", 405, ENDS),
        (b"PUT /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz", 405, ENDS),
        (b"BREW /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 501, KEPT),
        (b"get /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 501, KEPT),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, ENDS),
        (b"GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n", 505, ENDS),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ENDS),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400, ENDS),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, ENDS),
        (b"GET /metrics\r\n\r\n", 400, ENDS),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, ENDS),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400, ENDS),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 9000 + b"\r\n\r\n", 400, ENDS),
    ],
)
def test_each_request_gets_its_status(request_bytes: bytes, status: int, ends: bool) -> None:  # noqa: FBT001
    """What cannot be answered gets the status that says why; the connection ends where the next
    request could not be found.
    """
    sent, is_finished = asked(request_bytes)
    assert sent.startswith(f"HTTP/1.1 {status} {http.REASONS[status]}\r\n".encode())
    assert is_finished == ends
    assert (b"\r\nConnection: close\r\n" in sent) == ends
    assert sent.count(b"HTTP/1.1 ") == 1
    assert (b"\r\nAllow: GET, HEAD\r\n" in sent) == (status == 405)


def test_nothing_is_sent_after_the_last_answer() -> None:
    """What follows it is not answered, as a request with `Connection: close` has none behind it."""
    closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    sent, ends = asked(closing + GET)
    assert sent.count(b"HTTP/1.1 ") == 1
    assert ends


@pytest.mark.parametrize("whole", [True, False])
def test_a_head_has_a_limit(whole: bool) -> None:  # noqa: FBT001
    """It is refused when it is longer, also if it comes at once; one of that length is answered."""
    start, end = b"GET /metrics HTTP/1.1\r\nHost: a\r\nx: ", b"\r\n\r\n"
    room = MOST_HEAD_BYTES - len(start) - len(end)
    assert asked(start + b"y" * room + end) == (HELLO, False)
    sent, ends = asked(start + b"y" * (room + 1) + (end if whole else b"y" * 100))
    assert sent.startswith(b"HTTP/1.1 431 ")
    assert ends


@pytest.mark.parametrize("whole", [True, False])
def test_a_head_has_not_too_many_lines(whole: bool) -> None:  # noqa: FBT001
    """Each of them takes time, which the clients of all listeners would wait."""
    start, end = b"GET /metrics HTTP/1.1\r\nHost: a\r\n", b"\r\n"
    assert asked(start + b"x:\r\n" * (MOST_HEAD_LINES - 3) + end) == (HELLO, False)
    sent, ends = asked(start + b"x:\r\n" * (MOST_HEAD_LINES - 2 + (not whole)) + end * whole)
    assert sent.startswith(b"HTTP/1.1 431 ")
    assert ends


@pytest.mark.parametrize("forbidden", [b"\0", b"\v", b"\f", b"\r"])
def test_no_head_takes_long_to_be_refused(forbidden: bytes) -> None:
    """A control character behind much white space is found before h11 looks for it, which takes
    the square of the length: seconds, in which no client is served.
    """
    start = b"GET /metrics HTTP/1.1\r\nHost: a\r\nx:"
    segments = start, *(b" " * 5000 for _ in range(3)), forbidden + b"\r\n\r\n"
    began_at = process_time()
    sent, ends = asked(*segments)
    assert process_time() - began_at < 0.5
    assert sent.startswith(b"HTTP/1.1 400 ")
    assert ends


def test_a_body_may_have_any_bytes() -> None:
    """Only the head is looked at."""
    post = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n"
    sent, ends = asked(post + b"\0\n\r" * 200)
    assert sent.startswith(b"HTTP/1.1 405 ")
    assert ends


def test_the_accept_header_is_passed_on() -> None:
    """One that stands in several lines is a list."""
    sent, _ = asked(b"GET /accept HTTP/1.1\r\nHost: a\r\nAccept: b\r\naccept: c;q=1\r\n\r\n")
    assert sent.endswith(b"\r\n\r\naccept: b,c;q=1\n")
    assert b"\r\nVary: Accept\r\n" in sent


def test_it_ends_soon_between_two_answers() -> None:
    """At once when nothing is being sent, also in the middle of a request."""
    stream = Stream(SITE)
    assert b"".join(parts(stream, GET + GET[:9])) == HELLO
    assert stream.end_soon()
    assert stream.finished


def test_it_ends_soon_after_an_answer() -> None:
    """The answer that has begun is sent to its end, and a request behind it is not answered."""
    stream = Stream(SITE)
    stream.respond(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    assert stream.more() is None
    assert not stream.end_soon()
    assert not stream.finished
    sent = b"".join(rest(stream))
    assert stream.finished
    assert sent.endswith(b"6\r\nthree\n\r\n0\r\n\r\n")


def test_the_effort_grows_with_the_input() -> None:
    """Four times the requests cost four times the steps, and so do four times the segments."""
    assert in_proportion(lambda count: asked(count * GET))
    field = b"x: " + b"y" * 8
    assert in_proportion(lambda count: asked(GET[:-4], *(count * [field])))


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:51425", True),
        ("[::1]:51425", True),
        ("localhost", True),
        ("LOCALHOST.:80", True),
        ("a.localhost:1", True),
        ("web", True),
        ("web.Example.org.:9", True),
        ("own.example.net", True),
        ("Own2.Example.Net.:80", True),
        ("monitor", True),
        ("", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:51425", False),
        ("x.web.example.org", False),
        ("web.evil.example", False),
        ("comment.example.net", False),
        ("127.0.1.1.", True),
        ("ff02.example", False),
        ("late.example.net", False),
    ],
)
def test_a_foreign_name_of_loopback_is_refused(
    tmp_path: Path,
    host: str,
    known: bool,  # noqa: FBT001
) -> None:
    """A name with a dot that is neither the node's nor in the hosts file gets 421 and no figure."""
    hosts = tmp_path / "hosts"
    hosts.write_bytes(
        b"127.0.1.1\town.example.net own2.example.NET\tweb # comment.example.net\n"
        b"ff02.example\n\n# caf\xe9\n" + b"#" * http.MOST_HOSTS_BYTES + b"\n::1 late.example.net\n"
    )
    stream = Stream(SITE, lambda text: http.names_loopback(text, "Web.example.org", hosts))
    sent = b"".join(parts(stream, GET.replace(b"Host: a", f"Host: {host}".encode())))
    assert sent.startswith(b"HTTP/1.1 200 " if known else b"HTTP/1.1 421 Misdirected Request\r\n")
    assert not stream.finished


def test_without_a_hosts_file_the_other_names_are_known(tmp_path: Path) -> None:
    """A file that is missing, or not readable as one, is no error."""
    for hosts in (tmp_path / "none", tmp_path):
        assert http.names_loopback("web", "web", hosts)
        assert not http.names_loopback("web.evil.example", "web", hosts)


def test_a_look_into_the_hosts_file_imports_nothing() -> None:
    """A late import would meet the files of an upgrade."""
    program = (
        "import sys; from netsrvd.services import http; before = {*sys.modules}\n"
        "http.names_loopback('web.evil.example', 'web'); print({*sys.modules} - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "set()\n"
