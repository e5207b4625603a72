"""netsrvd.listeners.passed; tests/process has it with real inetds"""

from typing import Any

from netsrvd.admission.connections import ConnectionGate
from netsrvd.events.connections import Accepted
from netsrvd.events.refusals import Refused
from netsrvd.listeners import passed
from netsrvd.services.base import Stream
from netsrvd.settings import ListenerSettings
from tests.support.reports import Reports


class Visit:
    """A connection that somebody accepted."""

    closed = False

    def getpeername(self) -> tuple[str, int, int, int]:
        return ("::ffff:192.0.2.1", 40_000, 0, 0)

    def getsockname(self) -> tuple[str, int, int, int]:
        return ("::ffff:192.0.2.9", 7, 0, 0)

    def close(self) -> None:
        self.closed = True


def visit(**given: Any) -> tuple[Any, list[Any], Reports]:
    """Return a visit after it was judged, what was handed over, and the records."""
    sock: Any = Visit()
    taken: list[Any] = []
    reports, settings = Reports(), ListenerSettings("lab", **given)
    gate = ConnectionGate(settings)
    passed.admit(sock, "c-1", settings, gate, Stream, taken.append, reports)
    return sock, taken, reports


def test_a_guest_is_let_in() -> None:
    """It has a record like any other, and is handed over."""
    sock, [connection], reports = visit(allow=("192.0.2.0/24",))
    addresses = ("192.0.2.1", 40_000, "192.0.2.9", 7)
    assert reports.events == [Accepted("c-1", "lab", "echo", *addresses)]
    assert (connection.sock, sock.closed) == (sock, False)
    connection.departed()


def test_a_proxy_is_refused() -> None:
    """Nobody would read its header, and it would be served in its client's place."""
    sock, taken, reports = visit(allow=("any",), proxies=("192.0.2.1",))
    assert [event.reason for event in reports.events] == ["proxy"]  # type: ignore[attr-defined]
    assert (taken, sock.closed) == ([], True)


def test_a_guest_is_refused() -> None:
    """The access of the listener holds for it; it is closed, and the record names the rule."""
    sock, taken, reports = visit()
    [refused] = reports.events
    assert isinstance(refused, Refused)
    assert (refused.protocol, refused.reason, refused.peer_address) == (
        "tcp",
        "access",
        "192.0.2.1",
    )
    assert (taken, sock.closed) == ([], True)
