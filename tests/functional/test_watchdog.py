"""Never half dead: a thread that hangs starves the watchdog, one that fails ends the process."""

from contextlib import suppress
from time import monotonic

import pytest

from tests.functional.conftest import Start
from tests.support.clients import HELLO, answer, ended, serves, talking
from tests.support.peers import connect, datagrams, echoed
from tests.support.run import LOOPBACK, NO_SHORTCUT, Run, echo, failing_echo, free_port

WATCHED = {"WATCHDOG_USEC": "200000"}
TICK = 0.05
"""Seconds: the daemon shows itself four times in the time that it has."""

# Places that a thread comes to when a client has come.
ACCEPT = "from netsrvd.tcp import TCPListener as Owner\nname = 'accept_waiting'"
CONNECTION = "from netsrvd.connection import Connection as Owner\nname = 'on_ready'"
DATAGRAM = "from netsrvd.udp import UDPSocket as Owner\nname = 'on_ready'"
MAIN = "from netsrvd.daemon import Daemon as Owner\nname = '_tick'"
REPORTER = "from netsrvd.log.stderr import StderrLog as Owner\nname = 'write'"


def _hangs(where: str) -> str:
    """Return what makes the method `name` of `Owner` wait for ever."""
    return f"{where}\nimport time\nsetattr(Owner, name, lambda *_: time.sleep(3600))"


def _raises(where: str) -> str:
    """Return what makes the method `name` of `Owner` raise an exception."""
    return f"""{where}
def broken(*_):
    raise ArithmeticError("planted")
setattr(Owner, name, broken)
"""


def _visit(port: int) -> None:
    """Come as a client, and do not wait for an answer."""
    with connect(("127.0.0.1", port)) as sock, datagrams() as sender:
        sock.sendall(HELLO)
        sender.sendto(HELLO, ("127.0.0.1", port))


def _silent_for(run: Run, seconds: float) -> bool:
    """Return whether the watchdog has not been fed for so long."""
    heard_at = max(run.heard_at[key] for key in ("READY", "WATCHDOG") if key in run.heard_at)
    return monotonic() - heard_at > seconds


def test_the_watchdog_is_fed(start: Start) -> None:
    """While everything turns, WATCHDOG=1 comes again and again, also while clients are served."""
    run = start(environment=WATCHED)
    with talking(run.port) as sock:
        for count in range(1, 6):
            run.wait_notice("WATCHDOG", count)
            assert echoed(sock)


def test_the_watchdog_is_not_fed_without_need(start: Start) -> None:
    """Who is another process's business, by WATCHDOG_PID, or nobody's, is not fed so often."""
    run = start(environment=WATCHED | {"WATCHDOG_PID": "1"})
    run.wait(lambda: _silent_for(run, 10 * TICK), "silence")


def test_threads_of_a_reload_are_watched_too(start: Start) -> None:
    """After a reload that opened a listener the watchdog is still fed."""
    run = start(environment=WATCHED)
    run.wait_notice("WATCHDOG", 3)
    more = {"more": {"host": LOOPBACK, "port": free_port(run.port + 1)}}
    run.reload({"listener": {**echo(run.port)["listener"], **more}})
    run.rest()
    fed = len(run.notices_with("WATCHDOG"))
    run.wait_notice("WATCHDOG", fed + 3)


@pytest.mark.parametrize(
    "where",
    [ACCEPT, CONNECTION, DATAGRAM, REPORTER],
    ids=["accept", "connection", "datagram", "log"],
)
def test_a_thread_that_hangs_starves_the_watchdog(start: Start, where: str) -> None:
    """systemd hears nothing more, though all other threads still turn, and restarts the daemon."""
    run = start(planted=_hangs(where), environment=WATCHED)
    _visit(run.port)
    run.wait(lambda: _silent_for(run, 10 * TICK), "silence")
    run.kill()


@pytest.mark.parametrize(
    ("where", "thread"),
    [
        (ACCEPT, "tcp"),
        (CONNECTION, "tcp"),
        (DATAGRAM, "udp"),
        (REPORTER, "log"),
        (MAIN, "main"),
    ],
    ids=["accept", "connection", "datagram", "log", "main"],
)
def test_a_thread_that_fails_ends_the_process(start: Start, where: str, thread: str) -> None:
    """Status 70, so that systemd starts it anew, and the traceback is on standard error."""
    # What the thread held is left to the end of the process, of which Python would warn.
    environment = WATCHED | {"PYTHONWARNINGS": ""}
    run = start(planted=_raises(where), environment=environment, ready=False)
    run.wait(lambda: run.notices or run.process.poll() is not None, "beginning")
    if where != REPORTER:
        with suppress(ConnectionError):  # its tick came before
            _visit(run.port)
    run.allow("thread ", "Traceback ", "  ", "ArithmeticError: planted")
    run.wait_end(70)
    assert run.lines_with(f"thread {thread} failed: ArithmeticError('planted')")
    assert run.lines_with("in broken")
    assert where == REPORTER or run.lines_with(f"<3>thread {thread} failed, the daemon ends: ")


def test_a_service_that_fails_ends_one_connection(start: Start) -> None:
    """The other connection and the datagrams are served on; the record has the traceback."""
    run = start(planted=failing_echo('data == b"fail"', 'ArithmeticError("planted")'))
    with talking(run.port) as one, talking(run.port) as other:
        one.sendall(b"fail")
        assert ended(one)
        assert echoed(other)
    assert answer(run.port) == HELLO
    run.wait_line("<3>    ArithmeticError: planted")
    assert run.lines_with("<3>echo: service echo failed for 127.0.0.1:")
    run.wait_line("closed: error (ArithmeticError('planted'))")


def test_a_datagram_service_that_fails_ends_nothing(start: Start) -> None:
    """The batch goes without an answer; TCP and later datagrams are served."""
    run = start(
        planted="""
from netsrvd.services.echo import Datagrams
def answer(self, payload, client, at):
    if payload == b"fail":
        raise ArithmeticError("planted")
    return bytes(payload)
Datagrams.answer, Datagrams.is_echo = answer, False
"""
    )
    with datagrams() as sender:
        sender.connect(("127.0.0.1", run.port))
        sender.send(b"fail")
        run.wait_line("<3>    ArithmeticError: planted")
        sender.send(HELLO)
        assert sender.recv(100) == HELLO
    assert serves(run.port)


def test_a_service_that_hangs_starves_the_watchdog(start: Start) -> None:
    """The watchdog was fed until a client made the service hang."""
    run = start(
        planted=f"""{NO_SHORTCUT}
import time
from netsrvd.services.echo import Stream
def respond(self, data):
    if data == b"hang":
        time.sleep(3600)
    return data
Stream.respond = respond
""",
        environment=WATCHED,
    )
    run.wait_notice("WATCHDOG", 6)
    with talking(run.port) as sock:
        sock.sendall(b"hang")
        run.wait(lambda: _silent_for(run, 10 * TICK), "silence")
    run.kill()
