"""The longest life of a connection: `max_connection_seconds`, whatever the client does."""

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened
from tests.support.clients import ended
from tests.support.patience import SECONDS
from tests.support.peers import connect, echoed
from tests.support.proxied import v1
from tests.support.run import echo
from tests.support.unit import Unit

HOST = "127.0.0.1"
AGE_SECONDS = 1.0

HANDLER = """
def talk(connection):
    assert connection.deadline < float("inf")
    try:
        while data := connection.recv():
            connection.send(data)
    except TimeoutError as error:
        print("<7>told: " + str(error), file=__import__("sys").stderr, flush=True)
        raise
"""


def _talk_to_the_end(sock: socket.socket) -> None:
    """Send a byte and have it echoed, again and again, until the connection ends."""
    deadline = monotonic() + SECONDS
    try:
        while monotonic() < deadline:
            sock.sendall(b"x")
            if not sock.recv(1):
                return
    except ConnectionError:
        return
    raise AssertionError("the connection did not end")


def _do_nothing(sock: socket.socket) -> None:
    """Say nothing until the connection ends."""
    assert ended(sock)


def _read_nothing(sock: socket.socket) -> None:
    """Send what is taken and read nothing until the connection ends."""
    with suppress(ConnectionError):
        while True:
            sock.sendall(bytes(1 << 16))


@pytest.mark.parametrize("behave", [_talk_to_the_end, _do_nothing, _read_nothing])
def test_a_connection_ends_at_its_age(
    start: Start, port: int, behave: Callable[[socket.socket], None]
) -> None:
    """However busy it is, it lasts for the time that is configured, and its record has `age`."""
    run = start(echo(port, host=[HOST], max_connection_seconds=AGE_SECONDS))
    with connect((HOST, port)) as sock:
        began_at = monotonic()
        behave(sock)
        assert monotonic() - began_at > 0.9 * AGE_SECONDS
    run.wait_line(" closed: age, 1.")


def test_a_handler_is_told_of_the_age(start: Start, port: int, tmp_path: Path) -> None:
    """Its call raises TimeoutError with the setting's name; the record has `age`."""
    (tmp_path / "talker.py").write_text(HANDLER)
    configuration = echo(
        port, host=[HOST], service="python:talker:talk", max_connection_seconds="1s"
    )
    run = start(configuration, environment={"PYTHONPATH": str(tmp_path)})
    with connect((HOST, port)) as sock:
        _talk_to_the_end(sock)
    run.wait_line("told: the connection has ended: it lasted for max_connection_seconds")
    run.wait_line(" closed: age, ")
    run.rest()


def test_a_proxy_waits_no_longer(start: Start, port: int) -> None:
    """A connection that waits for its header is refused at that age; one that has come by a proxy
    ends at it.
    """
    keys = {
        "proxies": [HOST],
        "allow": ["any"],
        "proxy_timeout": "1h",
        "max_connection_seconds": AGE_SECONDS,
    }
    run = start(echo(port, host=[HOST], **keys))
    with connect((HOST, port)) as sock:
        assert ended(sock)
    run.wait_line("no whole header within max_connection_seconds = 1 s")
    with connect((HOST, port)) as sock:
        sock.sendall(v1())
        _talk_to_the_end(sock)
    run.wait_line(" closed: age, ")


def test_a_reload_sets_the_age_of_live_connections(start: Start, port: int) -> None:
    """A connection that is older than the new limit ends at the reload."""
    run = start(echo(port, host=[HOST]))
    with connect((HOST, port)) as sock:
        run.reload(echo(port, host=[HOST], max_connection_seconds=AGE_SECONDS))
        _talk_to_the_end(sock)
    run.wait_line(" closed: age, ")


def test_the_age_goes_on_over_a_restart(start: Start, port: int) -> None:
    """The next process counts from the time when the connection was let in by the one before: a
    connection that is older than its limit ends there at once, and its record has the whole time.
    """
    with ExitStack() as stack:
        unit = Unit(start, port, opened(stack, port, "tcp4", "udp4"))
        first = unit.start()
        sock = stack.enter_context(connect((HOST, port)))
        began_at = monotonic()
        while monotonic() - began_at < 2 * AGE_SECONDS:
            assert echoed(sock)
        second = unit.restart(first, echo(port, host=[HOST], max_connection_seconds=AGE_SECONDS))
        _talk_to_the_end(sock)
        line = second.wait_line(" closed: age, ")
        assert float(line.partition(" closed: age, ")[2].split()[0]) > 2 * AGE_SECONDS
        second.rest()
